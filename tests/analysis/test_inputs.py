"""Roles of inputs from the graph, each with a relevance that is known by construction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from building import Array, ints, opened, proto, real, walk, wide

from palrp_onnx import Explainer, Model
from palrp_onnx.analysis.roles import Role
from palrp_onnx.describe import Explanation
from palrp_onnx.errors import PalrpError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.prepare import analyse_model
from palrp_onnx.record import InputFacts

V, F, C = 30, 6, 4
WORDS, HEAD = real(V, F, seed=1), real(F, C, seed=2)
IDS = ints(7, 20, 3, 3, 21)[None]
ONE = ints(1)


def roles(model: Model) -> dict[str, str]:
    facts = analyse_model(model).inputs.facts
    return {name: fact.role.value for name, fact in facts.items()}


def explained(model: Model, feeds: Mapping[str, Array], target: str = "1") -> list[Explanation]:
    """The explanation of the default engine, compared with the other one."""
    sample = Sample("x", "tensors", dict(feeds), InputFacts(kind="tensors", truncated=False))
    first = Explainer(model.path).explain(sample, target)
    second = Explainer(model.path, dtype="float64").explain(sample, target)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(
            one.record.relevance.content, other.record.relevance.content, atol=1e-4
        )
        assert abs(one.record.ledger["residual_relative"]) < 1e-5
        assert abs(other.record.ledger["residual_relative"]) < 1e-9
    return first


def content(model: Model, feeds: Mapping[str, Array]) -> Array:
    (found,) = explained(model, feeds)
    return np.array(found.record.relevance.content)


def of_words(ids: Array) -> Array:
    """Relevance of every word of a bag of words for class 1."""
    return np.asarray((wide(WORDS) @ wide(HEAD))[ids, 1])


BAG = "h = ReduceSum <keepdims=0> (e, one)  y = MatMul(h, head)"
TABLES = {"words": WORDS, "head": HEAD, "one": ONE}


# --- ids ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fed", [ints(1, 2, 3, 4, 5), ints(5, 4, 3, 2, 1), ints(0, 1, 1, 0, 1)])
def test_ids_are_content_whatever_they_are(fed: Array) -> None:
    model = opened(proto("e = Gather(words, ids)  " + BAG, {"ids": IDS}, TABLES, free=(0, 1)))
    np.testing.assert_allclose(content(model, {"ids": fed[None]}), of_words(fed), rtol=1e-5)


@pytest.mark.parametrize("before", ["", "r = Round(ids)  ", "r = Floor(ids)  "])
def test_ids_that_come_as_real_numbers(before: str) -> None:
    source = "r" if before else "ids"
    body = f"{before}i = Cast <to=7> ({source})  e = Gather(words, i)  " + BAG
    feeds = {"ids": IDS.astype(np.float32)}
    model = opened(proto(body, feeds, TABLES, free=(0, 1)))
    np.testing.assert_allclose(content(model, feeds), of_words(IDS[0]), rtol=1e-5)


@pytest.mark.parametrize(
    "spelling",
    [
        "e1 = OneHot <axis=-1> (ids, depth, values)",
        "t = OneHot <axis=1> (ids, depth, values)  e1 = Transpose <perm=[0, 2, 1]> (t)",
        "n = OneHot <axis=-1> (ids, depth, whole)  e1 = Cast <to=1> (n)",
        "u = Unsqueeze(ids, last)  q = Equal(u, names)  e1 = Cast <to=1> (q)",
        "u = Unsqueeze(ids, last)  q = Equal(u, names)  e1 = Where(q, unit, none)",
    ],
)
def test_ids_that_become_one_hot_vectors(spelling: str) -> None:
    known = {
        "depth": np.array(V),
        "values": np.array([0, 1], np.float32),
        "whole": ints(0, 1),
        "unit": np.array(1, np.float32),
        "none": np.array(0, np.float32),
        "last": ints(-1),
        "names": np.arange(V),
    }
    used = {name: array for name, array in known.items() if name in spelling}
    body = spelling + "  e = MatMul(e1, words)  " + BAG
    model = opened(proto(body, {"ids": IDS}, {**TABLES, **used}, free=(0, 1)))
    np.testing.assert_allclose(content(model, {"ids": IDS}), of_words(IDS[0]), rtol=1e-5)


def test_ids_that_are_hashed() -> None:
    body = "a = Mul(ids, prime)  b = Add(a, one)  i = Mod(b, rows)  e = Gather(words, i)  " + BAG
    weights = {**TABLES, "prime": np.array(31), "rows": np.array(V)}
    model = opened(proto(body, {"ids": IDS}, weights, free=(0, 1)))
    expected = of_words((IDS[0] * 31 + 1) % V)
    np.testing.assert_allclose(content(model, {"ids": IDS}), expected, rtol=1e-5)


def test_ids_times_a_mask_are_content_and_the_mask_is_not() -> None:
    body = """i = Mul(ids, mask)  e = Gather(words, i)  f = Cast <to=1> (mask)
        u = Unsqueeze(f, last)  g = Mul(e, u)  h = ReduceSum <keepdims=0> (g, one)
        y = MatMul(h, head)"""
    mask = ints(1, 1, 1, 0, 0)[None]
    for order in (("ids", "mask"), ("mask", "ids")):
        feeds = {name: {"ids": IDS, "mask": mask}[name] for name in order}
        model = opened(proto(body, feeds, {**TABLES, "last": ints(-1)}, free=(0, 1)))
        assert roles(model) == {"ids": "content", "mask": "mask"}
        expected = of_words(IDS[0]) * mask[0]
        np.testing.assert_allclose(content(model, feeds), expected, rtol=1e-5, atol=1e-7)


def test_categories_one_a_sample() -> None:
    body = "e = Gather(words, c)  z = Concat <axis=-1> (x, e)  y = MatMul(z, w)"
    feeds = {"x": real(2, 3), "c": ints(3, 9)}
    model = opened(proto(body, feeds, {"words": WORDS, "w": real(3 + F, C, seed=4)}))
    assert roles(model) == {"x": "content", "c": "content"}
    found = explained(model, feeds)
    for row, each in enumerate(found):
        expected = wide(feeds["x"][row]) * wide(real(3 + F, C, seed=4))[:3, 1]
        np.testing.assert_allclose(each.record.relevance.content, expected, rtol=1e-5)
        category = wide(WORDS[feeds["c"][row]]) @ wide(real(3 + F, C, seed=4))[3:, 1]
        assert each.record.ledger["c"] == pytest.approx(category, rel=1e-5)


# --- words that are moved -------------------------------------------------------------------------
SHIFTED = "c = Slice(ids, zero, minus, one)  i = Concat <axis=1> (start, c)"
MOVES: dict[str, tuple[str, list[int | None]]] = {
    "shifted": (SHIFTED, [None, 0, 1, 2, 3]),
    "shifted along a negative axis": (
        "c = Slice(ids, zero, minus, minus)  i = Concat <axis=-1> (start, c)",
        [None, 0, 1, 2, 3],
    ),
    "reversed": ("i = Slice(ids, minus, first, one, minus)", [4, 3, 2, 1, 0]),
    "scattered": (
        "u = Slice(ids, zero, three, one)  i = ScatterND(blank, places, u)",
        [1, None, 0, None, 2],
    ),
    "scattered along an axis": (
        "i = ScatterElements <axis=1> (ids, there, start)",
        [0, 1, None, 3, 4],
    ),
    "chosen": ("q = Equal(ids, twenty)  i = Where(q, unknown, ids)", [0, None, 2, 3, 4]),
    "selected": ("i = Gather <axis=1> (ids, order)", [4, 0, 0, 2, 1]),
    "flattened": ("r = Reshape(ids, flat)  i = Reshape(r, back)", [0, 1, 2, 3, 4]),
    "hashed, then shifted": (
        "a = Mul(ids, seven)  b = Mod(a, rows)  c = Slice(b, zero, minus, one)  "
        "i = Concat <axis=1> (start, c)",
        [None, 0, 1, 2, 3],
    ),
    "shifted, then moved up": (
        SHIFTED.replace("i =", "j =") + "  i = Add(j, two)",
        [None, 0, 1, 2, 3],
    ),
}
CONSTANTS = {
    "zero": ints(0),
    "minus": ints(-1),
    "first": ints(-100),
    "three": ints(3),
    "start": ints(2)[None],
    "blank": np.zeros((1, 5), np.int64),
    "places": np.array([[[0, 2], [0, 0], [0, 4]]]),
    "there": ints(2)[None],
    "twenty": np.array(20),
    "unknown": np.array(1),
    "order": ints(4, 0, 0, 2, 1),
    "flat": ints(-1),
    "back": ints(1, 5),
    "seven": np.array(7),
    "rows": np.array(V),
    "two": np.array(2),
}


@pytest.mark.parametrize("name", MOVES)
def test_relevance_reaches_the_word_that_was_moved(name: str) -> None:
    """Places have different weights, which shows a word in the wrong place."""
    move, origin = MOVES[name]
    body = move + "  e0 = Gather(words, i)  e = Mul(e0, weights)  " + BAG
    weights = real(5, 1, seed=9)
    used = {k: a for k, a in CONSTANTS.items() if f"{k}," in body or f"{k})" in body}
    given = {**TABLES, **used, "weights": np.tile(weights, (1, F))}
    model = opened(proto(body, {"ids": IDS}, given, free=()))
    changed = {"hashed, then shifted": IDS[0] * 7 % V, "shifted, then moved up": IDS[0] + 2}
    own = of_words(changed.get(name, IDS[0]))
    expected = np.zeros(5)
    for place, word in enumerate(origin):
        if word is not None:
            expected[word] += own[word] * weights[place, 0]
    feeds = {"ids": IDS}
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    method = {"roles": {"weights": "parameter"}}
    for dtype, tolerance in (("float32", 1e-4), ("float64", 1e-9)):
        (found,) = Explainer(model.path, dtype=dtype, **method).explain(sample, "1")
        np.testing.assert_allclose(found.record.relevance.content, expected, atol=tolerance)
        assert abs(found.record.ledger["residual_relative"]) < tolerance / 10
        assert "lookup moved" in found.record.fidelity.rewritten


@pytest.mark.parametrize("axis", [2, -1])
def test_words_that_are_parts_of_one_input(axis: int) -> None:
    """Ids [B, T, 2], split: the two of each pair have different weights."""
    body = f"""p, q = Split <axis={axis}, num_outputs=2> (ids)  i = Squeeze(p, two)
        j = Squeeze(q, two)  a = Gather(words, i)  b = Gather(words, j)  c = Mul(b, four)
        e = Add(a, c)  """ + BAG  # fmt: skip
    ids = np.stack([IDS, IDS[:, ::-1] + 1], axis=2)
    weights = {**TABLES, "two": ints(2), "four": np.array(4, np.float32)}
    found = content(opened(proto(body, {"ids": ids}, weights, free=(0, 1))), {"ids": ids})
    expected = of_words(ids[0]) * [1, 4]
    np.testing.assert_allclose(found, expected.ravel(), rtol=1e-5)


BACKWARDS = "i = Slice(ids, minus, far, one, minus)  u = Unsqueeze(i, last)  "
BACK = {"minus": ints(-1), "far": ints(-(2**31)), "one": ONE, "last": ints(-1)}


def test_moved_ids_that_become_integers_as_one_hot_vectors() -> None:
    body = """i = Slice(ids, minus, far, one, minus)  n = OneHot <axis=-1> (i, depth, whole)
        e1 = Cast <to=1> (n)  k = MatMul(e1, words)  e = Mul(k, places)  """ + BAG  # fmt: skip
    places = np.arange(1, 6, dtype=np.float32)[:, None]
    more = {"depth": np.array(V), "whole": ints(0, 1), "places": places}
    more |= {k: BACK[k] for k in ("minus", "far")}
    model = opened(proto(body, {"ids": IDS}, {**TABLES, **more}, free=(0,)))
    found = Explainer(model, method="gradient-x-input", dtype="float64").explain(
        Sample("x", "tensors", {"ids": IDS}, InputFacts(kind="tensors", truncated=False)), "1"
    )
    expected = of_words(IDS[0]) * [5, 4, 3, 2, 1]
    np.testing.assert_allclose(found[0].record.relevance.content, expected, rtol=1e-6)


def test_moved_ids_that_are_compared_are_refused() -> None:
    body = BACKWARDS + "q = Equal(u, names)  e1 = Cast <to=1> (q)  e = MatMul(e1, words)  " + BAG
    more = {**BACK, "names": np.arange(V)}
    model = opened(proto(body, {"ids": IDS}, {**TABLES, **more}, free=(0, 1)))
    with pytest.raises(PalrpError, match="cannot be followed"):
        explained(model, {"ids": IDS})


def test_ids_that_are_transposed_without_perm() -> None:
    body = "i = Transpose(ids)  k = Gather(words, i)  e = Transpose <perm=[1, 0, 2]> (k)  " + BAG
    model = opened(proto(body, {"ids": IDS}, TABLES, free=(0, 1)))
    np.testing.assert_allclose(content(model, {"ids": IDS}), of_words(IDS[0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("move", "weights"),
    [
        ("i = Pad(ids, pads)", {"pads": ints(0, 1, 0, 0)}),
        ("i, at = TopK <axis=1> (ids, five)", {"five": ints(5)}),
    ],
)
def test_words_that_cannot_be_followed_are_refused(move: str, weights: dict[str, Array]) -> None:
    body = f"{move}  e = Gather(words, i)  " + BAG
    model = opened(proto(body, {"ids": IDS}, {**TABLES, **weights}, free=()))
    with pytest.raises(PalrpError, match="cannot be followed"):
        explained(model, {"ids": IDS})


# --- words and places -----------------------------------------------------------------------------
def two_tables(words: int, places: int, tail: str, **weights: Array) -> Model:
    body = "e = Gather(a, i)  p = Gather(b, j)  x = Add(e, p)  r = Relu(x)  " + tail
    feeds = {"i": IDS, "j": ints(*range(5))[None]}
    tables = {"a": real(words, F, seed=5), "b": real(places, F, seed=6), **weights}
    return opened(proto(body, feeds, tables, free=(0, 1)))


def test_a_vocabulary_may_be_smaller_than_the_table_of_positions() -> None:
    predicts = two_tables(53, 512, "y = MatMul(r, w)", w=real(F, 53))
    assert roles(predicts) == {"i": "content", "j": "position"}
    assert not analyse_model(predicts).inputs.doubts
    classifies = two_tables(53, 512, "h = ReduceSum <keepdims=0> (r, one)  y = MatMul(h, w)",
                        w=real(F, 3), one=ONE)  # fmt: skip
    assert roles(classifies) == {"i": "content", "j": "position"}
    assert "i" in analyse_model(classifies).inputs.doubts


def test_long_vocabularies_are_distinguished_from_positions_in_any_order() -> None:
    swapped = two_tables(512, 6000, "y = MatMul(r, w)", w=real(F, 3))
    assert roles(swapped) == {"i": "position", "j": "content"}


def test_doubts_are_in_the_record() -> None:
    model = two_tables(53, 512, "h = ReduceSum <keepdims=0> (r, one)  y = MatMul(h, w)",
                   w=real(F, 3), one=ONE)  # fmt: skip
    (found,) = explained(model, {"i": IDS, "j": ints(*range(5))[None]})
    assert [w.code for w in found.record.warnings] == ["uncertain"]


# --- numbers --------------------------------------------------------------------------------------
@pytest.mark.parametrize("fed", ["noise", "zeros and ones", "ones"])
def test_columns_of_a_table(fed: str) -> None:
    """Numbers for each column are weights, not positions; columns of 0 and 1 are content."""
    body = (
        """c = Sub(x, mean)  s = Mul(c, scale)  h = MatMul(s, w)  r = Relu(h)  y = MatMul(r, v)"""
    )
    weights = {
        "mean": real(6, seed=3),
        "scale": np.abs(real(6, seed=4)) + 0.5,
        "w": real(6, 8, seed=5),
        "v": real(8, 3, seed=6),
    }
    x = {
        "noise": real(1, 6),
        "zeros and ones": np.array([[0, 1, 1, 0, 1, 0]], np.float32),
        "ones": np.ones((1, 6), np.float32),
    }[fed]
    found = walk(opened(proto(body, {"x": x}, weights)), {"x": x})
    assert not found.planned.sites and not found.result.ledger["position"].any()
    scaled = (wide(x) - weights["mean"]) * weights["scale"]
    open_ = (scaled @ wide(weights["w"]) > 0) * (found.seed @ wide(weights["v"]).T)
    expected = wide(x) * weights["scale"] * (open_ @ wide(weights["w"]).T)
    np.testing.assert_allclose(found.content, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "selection",
    [
        "p, q = Split <axis=1, num_outputs=2> (x)",
        "p = Slice(x, i0, i3, i1)  q = Slice(x, i3, i6, i1)",
        "p = Gather <axis=1> (x, front)  q = Gather <axis=1> (x, back)",
    ],
)
def test_columns_that_are_scaled_in_part(selection: str) -> None:
    body = f"""{selection}  c = Sub(p, mean)  s = Mul(c, scale)  z = Concat <axis=1> (s, q)
        y = MatMul(z, w)"""
    known = {
        "mean": real(3, seed=3),
        "scale": np.abs(real(3, seed=4)) + 0.5,
        "w": real(6, C, seed=5),
        "i0": ints(0),
        "i1": ints(1),
        "i3": ints(3),
        "i6": ints(6),
        "front": ints(0, 1, 2),
        "back": ints(3, 4, 5),
    }
    used = {k: a for k, a in known.items() if f"{k})" in body or f"{k}," in body}
    x = real(2, 6)
    expected = wide(x) * wide(known["w"][:, 1]) * [*wide(known["scale"]), 1, 1, 1]
    for row, found in enumerate(explained(opened(proto(body, {"x": x}, used)), {"x": x})):
        assert not found.record.sites and found.record.ledger["position"] == 0
        np.testing.assert_allclose(found.record.relevance.content, expected[row], rtol=1e-5)


def test_tokens_made_of_columns_have_positions_and_weights() -> None:
    body = """u = Unsqueeze(x, last)  m = Mul(u, w)  n = Add(m, b)
        k = Transpose <perm=[0, 2, 1]> (n)  s = MatMul(n, k)  p = Softmax <axis=-1> (s)
        o = MatMul(p, n)  y = ReduceSum <keepdims=0> (o, one)"""
    feeds = {"x": real(1, 5)}
    weights = {"w": real(5, 4), "b": real(5, 4, seed=2), "last": ints(-1), "one": ONE}
    found = analyse_model(opened(proto(body, feeds, weights)))
    roles = {node.outputs[0].name: fact.role for (node, k), fact in found.operands.items() if k}
    assert roles["m"] is Role.PARAMETER and roles["n"] is Role.POSITION


PIXELS = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
CONV = {"w": real(5, 3, 2, 2, seed=3), "v": real(5, C, seed=4), "axes": ints(2, 3)}


@pytest.mark.parametrize("last", [False, True])
def test_pixels_as_integers(last: bool) -> None:
    turn = "t = Transpose <perm=[0, 3, 1, 2]> (x)  f = Cast <to=1> (t)  "
    turn = turn if last else "f = Cast <to=1> (x)  "
    body = (
        turn
        + """d = Div(f, top)  c = Conv <kernel_shape=[2, 2], strides=[2, 2]> (d, w)
        g = ReduceSum <keepdims=0> (c, axes)  y = MatMul(g, v)"""
    )
    x = PIXELS.transpose(0, 2, 3, 1) if last else PIXELS
    x = np.ascontiguousarray(x)
    model = opened(proto(body, {"x": x}, {**CONV, "top": np.array(255, np.float32)}))
    kernel = np.einsum("oikl,o->ikl", wide(CONV["w"]), wide(CONV["v"])[:, 1]) / 255
    tiled = np.tile(kernel, (1, 4, 4))
    expected = (PIXELS * tiled).sum(axis=1).reshape(2, 4, 2, 4, 2).sum((2, 4)).reshape(2, 16)
    for row, found in enumerate(explained(model, {"x": x})):
        assert found.record.units.grid == (4, 4)
        np.testing.assert_allclose(found.record.relevance.content, expected[row], rtol=2e-4)


@pytest.mark.parametrize("mean", [0.5, 120.0, -120.0])
@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_a_constant_added_to_pixels_is_a_bias(mean: float, op: str) -> None:
    body = f"""c = {op}(x, mean)  d = Conv <kernel_shape=[2, 2], strides=[2, 2]> (c, w)
        g = ReduceSum <keepdims=0> (d, axes)  y = MatMul(g, v)"""
    x = PIXELS.astype(np.float32)
    weights = {**CONV, "mean": np.full((1, 3, 1, 1), mean, np.float32)}
    found = walk(opened(proto(body, {"x": x}, weights)), {"x": x})
    kernel = np.einsum("oikl,o->ikl", wide(CONV["w"]), (found.seed @ wide(CONV["v"]).T)[0])
    signed = mean if op == "Add" else -mean
    assert found.residual < 1e-10
    np.testing.assert_allclose(
        found.result.ledger["bias"][0], 16 * signed * kernel.sum(), rtol=1e-6
    )


# --- masks ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("low", [1.0, -100.0, -1e9])
def test_a_table_of_two_numbers_that_is_added_is_a_position(low: float) -> None:
    table = np.where(np.random.default_rng(2).random((5, F)) < 0.5, np.float32(low), np.float32(0))
    body = """e = Gather(words, ids)  x = Add(e, table)  h = ReduceSum <keepdims=0> (x, one)
        y = MatMul(h, head)"""
    model = opened(proto(body, {"ids": IDS}, {**TABLES, "table": table}, free=()))
    found = walk(model, {"ids": IDS})
    slopes = found.seed @ wide(HEAD).T
    np.testing.assert_allclose(
        found.result.ledger["position"], (wide(table) * slopes).sum(), rtol=1e-6
    )
    assert found.residual < 1e-10


def test_group_norm_in_primitive_operations_has_no_positions() -> None:
    """Channels are split into groups and merged again: they are never tokens."""
    body = """c = Conv <kernel_shape=[1, 1]> (x, k)  r = Reshape(c, groups)
        n = InstanceNormalization(r, ones, zeros)  b = Reshape(n, whole)  m = Mul(b, gamma)
        a = Add(m, beta)  g = GlobalAveragePool(a)  f = Flatten(g)  y = MatMul(f, v)"""
    x = real(2, 3, 4, 4)
    weights = {
        "k": real(8, 3, 1, 1),
        "groups": ints(0, 2, -1),
        "ones": np.ones(2, np.float32),
        "zeros": np.zeros(2, np.float32),
        "whole": ints(-1, 8, 4, 4),
        "gamma": real(8, 1, 1, seed=3),
        "beta": real(8, 1, 1, seed=4),
        "v": real(8, C, seed=5),
    }
    analysis = analyse_model(opened(proto(body, {"x": x}, weights)))
    assert not [f for f in analysis.operands.values() if f.role is Role.POSITION]


@pytest.mark.parametrize("numbers", [(0, 1), (0, 2), (0, 7)])
def test_a_mask_may_hold_any_numbers(numbers: tuple[int, int]) -> None:
    body = """e = Gather(words, ids)  z = Equal(mask, none)  f = Where(z, low, nothing)
        u = Unsqueeze(f, one)  k = Transpose <perm=[0, 2, 1]> (e)  s = MatMul(e, k)  a = Add(s, u)
        p = Softmax <axis=-1> (a)  h = MatMul(p, e)  y = MatMul(h, head)"""
    off, on = numbers
    feeds = {"ids": IDS, "mask": np.where(ints(1, 1, 1, 0, 0)[None] > 0, on, off)}
    weights = {
        **TABLES,
        "none": np.array(0),
        "low": np.array(-1e9, np.float32),
        "nothing": np.array(0, np.float32),
    }
    model = opened(proto(body, feeds, weights, free=(0, 1)))
    assert roles(model) == {"ids": "content", "mask": "mask"}
    (found,) = explained(model, feeds, "pred")
    assert found.record.target.index[0] == 2
    assert found.record.units.special == [False, False, False, True, True]


# --- tokens of a mask ---------------------------------------------------------------------------
REAL = "m = Cast <to=1> (mask)  n = ReduceSum <keepdims=1> (m, one)  "
POOLING = {
    "weights": "d = Div(m, n)  u = Unsqueeze(d, last)  g = Mul(e, u)  "
    "h = ReduceSum <keepdims=0> (g, one)",
    "a product of weights": "d = Div(m, n)  u = Unsqueeze(d, one)  g = MatMul(u, e)  "
    "h = Squeeze(g, one)",
    "a product with the mask": "u = Unsqueeze(m, one)  g = MatMul(u, e)  f = Squeeze(g, one)  "
    "h = Div(f, n)",
    "an Einsum": 'f = Einsum <equation = "bt,btf->bf"> (m, e)  h = Div(f, n)',
    "a softmax of the mask": "o = Sub(m, unit)  l = Mul(o, high)  w = Softmax <axis=-1> (l)  "
    "u = Unsqueeze(w, last)  g = Mul(e, u)  h = ReduceSum <keepdims=0> (g, one)",
}


@pytest.mark.parametrize("name", POOLING)
@pytest.mark.parametrize("visible", [3, 5])
def test_a_mean_over_a_mask_is_all_content(name: str, visible: int) -> None:
    body = f"{REAL}  e = Gather(words, ids)  {POOLING[name]}  y = MatMul(h, head)"
    known = {"last": ints(-1), "unit": np.array(1, np.float32), "high": np.array(1e4, np.float32)}
    used = {k: a for k, a in known.items() if f"{k})" in body}
    mask = (np.arange(5) < visible)[None].astype(np.int64)
    model = opened(proto(body, {"ids": IDS, "mask": mask}, {**TABLES, **used}, free=(0, 1)))
    assert roles(model) == {"ids": "content", "mask": "mask"}
    expected = of_words(IDS[0]) * mask[0] / visible
    found = content(model, {"ids": IDS, "mask": mask})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("low", [-5.0, -20.0, -1e4])
def test_a_number_that_a_mask_subtracts_from_scores_is_no_position(low: float) -> None:
    body = """e = Gather(words, ids)  m = Cast <to=1> (mask)  o = Sub(unit, m)  l = Mul(o, low)
        u = Unsqueeze(l, one)  k = Transpose <perm=[0, 2, 1]> (e)  s = MatMul(e, k)
        a = Add(s, u)  p = Softmax <axis=-1> (a)  c = MatMul(p, e)
        h = ReduceSum <keepdims=0> (c, one)  y = MatMul(h, head)"""
    weights = {**TABLES, "unit": np.array(1, np.float32), "low": np.array(low, np.float32)}
    mask = ints(1, 1, 1, 0, 0)[None]
    model = opened(proto(body, {"ids": IDS, "mask": mask}, weights, free=(0, 1)))
    assert roles(model) == {"ids": "content", "mask": "mask"}
    (found,) = explained(model, {"ids": IDS, "mask": mask})
    assert not found.record.sites and found.record.ledger["position"] == 0


SOFTMAXES = {
    "an exponential over its sum": "x = Exp(a)  n = ReduceSum <keepdims=1> (x, last)  "
    "p = Div(x, n)",
    "less the largest score": "b = ReduceMax <keepdims=1> (a, last)  d = Sub(a, b)  x = Exp(d)  "
    "n = ReduceSum <keepdims=1> (x, last)  r = Reciprocal(n)  p = Mul(x, r)",
    "less the logarithm of the sum": "n = ReduceLogSumExp <keepdims=1> (a, last)  d = Sub(a, n)  "
    "p = Exp(d)",
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_exponentials_over_their_sum_are_a_softmax(name: str) -> None:
    body = """e = Gather(words, ids)  m = Cast <to=1> (mask)  o = Sub(m, unit)  l = Mul(o, high)
        u = Unsqueeze(l, one)  k = Transpose <perm=[0, 2, 1]> (e)  s = MatMul(e, k)
        a = Add(s, u)  SOFTMAX  c = MatMul(p, e)
        h = ReduceSum <keepdims=0> (c, one)  y = MatMul(h, head)"""
    weights = {
        **TABLES,
        "last": ints(-1),
        "unit": np.array(1, np.float32),
        "high": np.array(1e4, np.float32),
    }
    feeds = {"ids": IDS, "mask": ints(1, 1, 1, 0, 0)[None]}
    spelled = opened(proto(body.replace("SOFTMAX", SOFTMAXES[name]), feeds, weights))
    plain = opened(proto(body.replace("SOFTMAX", "p = Softmax <axis=-1> (a)"), feeds, weights))
    (one,), (other,) = explained(spelled, feeds), explained(plain, feeds)
    np.testing.assert_allclose(
        one.record.relevance.content, other.record.relevance.content, rtol=1e-4, atol=1e-6
    )
    assert one.record.fidelity.rewritten == {"softmax written out": 1}


# --- selected values ----------------------------------------------------------------------------
PICKING = {
    "rows by tuples": "u = Unsqueeze(ids, last)  e = GatherND(words, u)",
    "rows by moved ids": "i = Trilu(ids)  e = Gather(words, i)",
    "places of a thermometer": "u = Unsqueeze(ids, last)  q = Less(names, u)  "
    "h1 = Cast <to=1> (q)  e = MatMul(h1, words)",
}


@pytest.mark.parametrize("name", PICKING)
@pytest.mark.parametrize("other_input", ["vectors", "types"])
def test_ids_that_cannot_be_followed_are_no_positions(name: str, other_input: str) -> None:
    """Another input does not turn words into positions or biases."""
    other = {
        "vectors": ("f = MatMul(x, w)", {"x": real(1, 5, F)}, {"w": real(F, F)}),
        "types": ("f = Gather(kinds, x)", {"x": ints(0, 0, 1, 1, 1)[None]}, {"kinds": real(2, F)}),
    }
    line, feeds, tables = other[other_input]
    body = f"{PICKING[name]}  {line}  z = Add(e, f)  " + BAG.replace("(e,", "(z,")
    known = {"last": ints(-1), "names": np.arange(V)}
    used = {k: a for k, a in known.items() if f"{k})" in body or f"{k}," in body}
    model = opened(proto(body, {"ids": IDS, **feeds}, {**TABLES, **used, **tables}))
    with pytest.raises(PalrpError, match="this input selects"):
        explained(model, {"ids": IDS, **feeds})


CHOSEN = {
    "a code": "s = MatMul(x, codes)  k = ArgMax <axis=-1, keepdims=0> (s)  g = Gather(rows, k)  "
    "z = Sub(x, g)",
    "a threshold": "q = Greater(x, zero)  f = Cast <to=1> (q)  g = MatMul(f, square)  "
    "z = Add(x, g)",
}


@pytest.mark.parametrize("name", CHOSEN)
def test_values_that_content_selects_are_no_positions(name: str) -> None:
    body = f"{CHOSEN[name]}  " + BAG.replace("(e,", "(z,")
    known = {
        "codes": real(F, 4, seed=5),
        "rows": real(4, F, seed=6),
        "zero": np.array(0, np.float32),
        "square": real(F, F, seed=7),
    }
    used = {k: a for k, a in known.items() if f"{k})" in body or f"{k}," in body}
    x = real(2, 5, F, seed=8)
    tables = {"head": HEAD, "one": ONE, **used}
    for row, found in enumerate(explained(opened(proto(body, {"x": x}, tables)), {"x": x})):
        assert not found.record.sites and found.record.ledger["position"] == 0
        expected = wide(x[row]) @ wide(HEAD[:, 1])
        np.testing.assert_allclose(found.record.relevance.content, expected, rtol=1e-4)
