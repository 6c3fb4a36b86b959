"""Positions reach the units that they belong to, or are not on the map; mixing is noticed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from building import Array, ints, opened, proto, real
from msgspec import UNSET

from palrp_onnx import Explainer, Model
from palrp_onnx.describe import Explanation
from palrp_onnx.errors import InputError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.prepare import analyse_model, plan_model
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.method_parsing import method

V, F, T = 30, 6, 5
IDS = ints(7, 20, 3, 3, 21)[None]
WORDS, HEAD = real(V, F, seed=1), real(F, 4, seed=2)


def explained(model: Model, feeds: Mapping[str, Array], **options: str) -> list[Explanation]:
    """Both engines, compared."""
    sample = Sample("x", "tensors", dict(feeds), InputFacts(kind="tensors", truncated=False))
    found = [
        Explainer(model.path, dtype=dtype, positions="signed", **options).explain(sample, "1")
        for dtype in ("float32", "float64")
    ]
    for one, other in zip(*found, strict=True):
        assert [s.name for s in one.record.sites] == [s.name for s in other.record.sites]
        np.testing.assert_allclose(
            one.record.relevance.position, other.record.relevance.position, atol=1e-4
        )
        assert abs(one.record.ledger["residual_relative"]) < 1e-5
    return found[0]


def slopes() -> Array:
    """What one unit of every feature adds to class 1."""
    return np.asarray(HEAD[:, 1].astype(np.float64))


# --- tokens before and after ----------------------------------------------------------------------
@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("after", [0, 3])
def test_tokens_before_and_after_are_cut_off(before: int, after: int) -> None:
    """A class token in front, detection tokens at the end."""
    size = before + T + after
    parts = [("first", before), ("last", after)]
    weights = {name: real(1, n, F, seed=n + 3) for name, n in parts if n}
    names = [*(["first"] if before else []), "e", *(["last"] if after else [])]
    join = f"c = Concat <axis=1> ({', '.join(names)})" if len(names) > 1 else "c = Identity(e)"
    table = real(1, size, F, seed=9)
    body = f"""e = Gather(words, ids)  {join}  x = Add(c, table)
        h = ReduceSum <keepdims=0> (x, one)  y = MatMul(h, head)"""
    weights |= {"words": WORDS, "table": table, "head": HEAD, "one": ints(1)}
    (found,) = explained(opened(proto(body, {"ids": IDS}, weights, free=())), {"ids": IDS})
    own = (table[0] @ slopes())[before : before + T]
    np.testing.assert_allclose(found.record.relevance.position, own, rtol=1e-4)
    assert found.record.ledger["position"] == pytest.approx((table[0] @ slopes()).sum(), rel=1e-4)
    assert not found.record.warnings


def test_tokens_that_are_cut_off_again_leave_the_others_in_place() -> None:
    body = """e = Gather(words, ids)  c = Concat <axis=1> (first, e)  d = Slice(c, one, end, one)
        x = Add(d, table)  h = ReduceSum <keepdims=0> (x, one)  y = MatMul(h, head)"""
    table = real(1, T, F, seed=9)
    weights = {
        "words": WORDS,
        "first": real(1, 1, F, seed=3),
        "table": table,
        "head": HEAD,
        "one": ints(1),
        "end": ints(100),
    }
    (found,) = explained(opened(proto(body, {"ids": IDS}, weights, free=())), {"ids": IDS})
    np.testing.assert_allclose(found.record.relevance.position, table[0] @ slopes(), rtol=1e-4)


def test_rows_and_columns_of_a_grid_have_tables_of_their_own() -> None:
    body = """c = Conv <kernel_shape=[2, 2], strides=[2, 2]> (x, w)  a = Add(c, rows)
        b = Add(a, columns)  h = ReduceSum <keepdims=0> (b, axes)  y = MatMul(h, head)"""
    tables = {"rows": real(1, F, 4, 1, seed=8), "columns": real(1, F, 1, 3, seed=9)}
    weights = {"w": real(F, 3, 2, 2, seed=3), "axes": ints(2, 3), "head": HEAD, **tables}
    x = real(1, 3, 8, 6, seed=5)
    (found,) = explained(opened(proto(body, {"x": x}, weights)), {"x": x})
    both = (tables["rows"] + tables["columns"])[0].astype(np.float64)
    expected = np.einsum("fij,f->ij", both, slopes()).ravel()
    np.testing.assert_allclose(found.record.relevance.position, expected, rtol=1e-4, atol=1e-5)
    assert not [w for w in found.record.warnings if w.code == "unaligned-site"]


#: Movement of words → the word of every place, −1 for none.
MOVES = {
    "d = Slice(e, minus, first, one, minus)": [4, 3, 2, 1, 0],
    "d = Gather <axis=1> (e, order)": [4, 3, 2, 1, 0],
    "c = Slice(e, one, end, one)  d = Concat <axis=1> (c, last)": [1, 2, 3, 4, -1],
}


@pytest.mark.parametrize("move", MOVES)
def test_places_belong_to_the_words_that_were_moved_there(move: str) -> None:
    body = f"""e = Gather(words, ids)  {move}  x = Add(d, table)
        h = ReduceSum <keepdims=0> (x, one)  y = MatMul(h, head)"""
    known = {
        "minus": ints(-1),
        "first": ints(-100),
        "one": ints(1),
        "end": ints(100),
        "order": ints(4, 3, 2, 1, 0),
        "last": real(1, 1, F, seed=3),
    }
    used = {k: a for k, a in known.items() if f"{k}," in body or f"{k})" in body}
    weights = {"words": WORDS, "table": real(1, T, F, seed=9), "head": HEAD, **used}
    (found,) = explained(opened(proto(body, {"ids": IDS}, weights, free=())), {"ids": IDS})
    places, words = weights["table"][0] @ slopes(), [*MOVES[move]]
    expected = [sum(places[k] for k in range(T) if words[k] == word) for word in range(T)]
    np.testing.assert_allclose(found.record.relevance.position, expected, rtol=1e-4, atol=1e-6)
    off = sum(places[k] for k in range(T) if words[k] < 0)
    assert found.record.sites[0].off_map == pytest.approx(off, rel=1e-4, abs=1e-9)
    assert not found.record.warnings


def test_positions_are_found_after_words_that_were_scattered() -> None:
    """Places without a word are no content, but the results are tokens all the same."""
    body = """e = Gather(words, ids)  d = ScatterND(blank, places, e)  x = Add(d, table)
        h = ReduceSum <keepdims=0> (x, one)  y = MatMul(h, head)"""
    table = real(1, T, F, seed=9)
    weights = {
        "words": WORDS,
        "blank": np.zeros((1, T, F), np.float32),
        "places": np.array([[[0, (k + 1) % T] for k in range(T)]]),
        "table": table,
        "head": HEAD,
        "one": ints(1),
    }
    (found,) = explained(opened(proto(body, {"ids": IDS}, weights, free=())), {"ids": IDS})
    places = table[0] @ slopes()
    assert found.record.ledger["position"] == pytest.approx(places.sum(), rel=1e-4)
    np.testing.assert_allclose(found.record.relevance.position, np.roll(places, -1), rtol=1e-4)


@pytest.mark.parametrize("expanded", [True, False])
def test_learned_queries_are_no_positions_whether_or_not_each_sample_has_its_own(
    expanded: bool,
) -> None:
    spread = "n = Shape <start=0, end=1> (ids)  s = Concat <axis=0> (n, rest)  q = Expand(own, s)"
    body = f"""e = Gather(words, ids)  {spread if expanded else "q = Identity(own)"}
        k = Transpose <perm=[0, 2, 1]> (e)  s1 = MatMul(q, k)  p = Softmax <axis=-1> (s1)
        c = MatMul(p, e)  x = Add(c, q)  h = ReduceSum <keepdims=0> (x, one)
        y = MatMul(h, head)"""
    weights = {"words": WORDS, "own": real(1, T, F, seed=9), "head": HEAD, "one": ints(1)}
    weights |= {"rest": ints(T, F)} if expanded else {}
    model = opened(proto(body, {"ids": IDS}, weights, free=(0, 1)))
    (found,) = explained(model, {"ids": IDS})
    assert not found.record.sites and found.record.ledger["position"] == 0
    own = (real(1, T, F, seed=9)[0] @ slopes()).sum()
    assert found.record.ledger["bias"] == pytest.approx(own, rel=1e-4)


@pytest.mark.parametrize("length", [1, 2, 12])
def test_positions_of_very_short_inputs_are_positions(length: int) -> None:
    """Roles are judged from longer examples: along one token nothing varies."""
    body = """s = Shape <start=1, end=2> (x)  t = Slice(table, zero, s, one)  z = Add(x, t)
        h = ReduceSum <keepdims=0> (z, one)  y = MatMul(h, head)"""
    table = real(1, 20, F, seed=9)
    weights = {"table": table, "zero": ints(0), "one": ints(1), "head": HEAD}
    x = real(2, length, F, seed=4)
    model = opened(proto(body, {"x": x}, weights, free=(0, 1)))
    for found in explained(model, {"x": x}):
        own = table[0, :length] @ slopes()
        np.testing.assert_allclose(found.record.relevance.position, own, rtol=1e-4)
        assert found.record.ledger["bias"] == 0


# --- two towers -----------------------------------------------------------------------------------
TOWERS = """e = Gather(words, ids)  a = Add(e, places)  p = ReduceSum <keepdims=0> (a, one)
    c = Conv <kernel_shape=[2, 2], strides=[2, 2]> (x, w)  r = Reshape(c, row)
    t = Transpose <perm=[0, 2, 1]> (r)  b = Add(t, grid)  q = ReduceSum <keepdims=0> (b, one)
    k = Transpose <perm=[1, 0]> (q)  y = MatMul(p, k)  z = Transpose <perm=[1, 0]> (y)"""
PATCHES = 9


def towers(words: int) -> tuple[Model, dict[str, Array]]:
    feeds = {"ids": np.resize(IDS, (1, words)), "x": real(1, 3, 6, 6, seed=5)}
    weights = {
        "words": WORDS,
        "places": real(1, words, F, seed=6),
        "grid": real(1, PATCHES, F, seed=7),
        "w": real(F, 3, 2, 2, seed=8),
        "row": ints(0, F, -1),
        "one": ints(1),
    }
    made = proto(TOWERS, feeds, weights, outputs=("y", "z"))
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "texts"
    made.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "images"
    return opened(made), feeds


@pytest.mark.parametrize("words", [PATCHES, PATCHES + 1, 4])
def test_positions_of_one_tower_never_reach_the_other(words: int) -> None:
    model, feeds = towers(words)
    p = (WORDS[feeds["ids"][0]] + real(1, words, F, seed=6)[0]).sum(axis=0)
    (text,) = explained_pair(model, feeds, "ids")
    (image,) = explained_pair(model, feeds, "x")
    assert len(text.record.relevance.position) == words
    assert len(image.record.relevance.position) == PATCHES
    grid = real(1, PATCHES, F, seed=7)[0].astype(np.float64)
    np.testing.assert_allclose(image.record.relevance.position, grid @ p / 2, rtol=1e-3)
    kernel = real(F, 3, 2, 2, seed=8).astype(np.float64)
    pixels = feeds["x"][0].astype(np.float64).reshape(3, 3, 2, 3, 2)
    q = np.einsum("fckl,cikjl->f", kernel, pixels) + grid.sum(axis=0)
    own = real(1, words, F, seed=6)[0].astype(np.float64)
    np.testing.assert_allclose(text.record.relevance.position, own @ q / 2, rtol=1e-3)


def explained_pair(model: Model, feeds: Mapping[str, Array], name: str) -> list[Explanation]:
    sample = Sample("x", "tensors", dict(feeds), InputFacts(kind="tensors", truncated=False))
    explainer = Explainer(model.path, positions="signed", explain_input=name)
    return explainer.explain(sample, "0")


def test_one_picture_and_several_texts() -> None:
    model, feeds = towers(4)
    several = {
        **feeds,
        "ids": np.stack([feeds["ids"][0], feeds["ids"][0] + 1, feeds["ids"][0] + 2]),
    }
    rows = explained_pair(model, several, "ids")  # the output that has a row for each text
    assert [r.record.target.output for r in rows] == ["y"] * 3
    for k, row in enumerate(rows):
        (alone,) = explained_pair(model, {**feeds, "ids": several["ids"][k : k + 1]}, "ids")
        np.testing.assert_allclose(
            row.record.relevance.total, alone.record.relevance.total, rtol=1e-5
        )
    (image,) = explained_pair(model, several, "x")
    assert image.record.target.output == "z"
    assert abs(image.record.ledger["residual_relative"]) < 1e-5
    with pytest.raises(InputError, match="rows of output 'z'"):
        sample = Sample("x", "tensors", several, InputFacts(kind="tensors", truncated=False))
        Explainer(model.path, explain_input="ids", output="z").explain(sample, "0")


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("words", [PATCHES, 4])
def test_both_towers_have_a_map(words: int, engine: str) -> None:
    model, feeds = towers(words)
    ids = np.stack([feeds["ids"][0], feeds["ids"][0] + 1, feeds["ids"][0] + 2])
    sample = Sample("x", "tensors", {**feeds, "ids": ids}, InputFacts(kind="tensors"))
    explainer = Explainer(model.path, positions="relu", output="z", engine=engine)
    (both,) = (each.record for each in explainer.explain(sample, "1"))
    assert both.input_name == "x" and not both.warnings[1:]
    assert abs(both.ledger["residual_relative"]) < 1e-5
    (texts,) = both.others or []
    assert texts.input == "ids"
    assert texts.units.id == ids.ravel().tolist()
    assert texts.units.sequence == np.repeat([0, 1, 2], words).tolist()
    alone = Explainer(model.path, positions="relu", output="y", explain_input="ids", engine=engine)
    second = alone.explain(sample, "0")[1].record
    assert second.others is UNSET
    for part in ("content", "position", "total"):
        rows = np.reshape(getattr(texts.relevance, part), (3, words))
        own = getattr(second.relevance, part)
        np.testing.assert_allclose(rows[1], own, rtol=1e-4, atol=1e-6)
        assert not rows[[0, 2]].any()  # other texts have no part in this similarity
    for one, other in zip(texts.sites, second.sites, strict=True):
        sums = np.reshape(one.relevance, (3, words))
        np.testing.assert_allclose(sums[1], other.relevance, rtol=1e-4, atol=1e-6)
    entries = sum(both.ledger[name] for name in ("content", "ids"))
    assert entries == pytest.approx(sum(map(sum, (m.relevance.content for m in both.maps))))


def with_class_token(words: int) -> tuple[Model, dict[str, Array]]:
    """The two towers, with a class token before the patches, which is on no map."""
    _, feeds = towers(words)
    body = TOWERS.replace(
        "b = Add(t, grid)",
        """s = Shape <start=0, end=1> (t)  u = Concat <axis=0> (s, rest)  v = Expand(first, u)
        d = Concat <axis=1> (v, t)  b = Add(d, grid)""",
    )
    weights = {
        "words": WORDS,
        "places": real(1, words, F, seed=6),
        "grid": real(1, 1 + PATCHES, F, seed=7),
        "w": real(F, 3, 2, 2, seed=8),
        "first": real(1, 1, F, seed=9),
        "rest": ints(1, F),
        "row": ints(0, F, -1),
        "one": ints(1),
    }
    made = proto(body, feeds, weights, outputs=("y", "z"))
    for value, name in zip(made.graph.input, ("texts", "images"), strict=True):
        value.type.tensor_type.shape.dim[0].dim_param = name
    return opened(made), feeds


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_every_image_leaves_out_its_class_token(engine: str) -> None:
    model, feeds = with_class_token(4)
    images = np.concatenate([feeds["x"], 2 * feeds["x"]])
    sample = Sample("x", "tensors", {**feeds, "x": images}, InputFacts(kind="tensors"))
    explainer = Explainer(model.path, output="y", engine=engine)
    (text,) = (each.record for each in explainer.explain(sample, "1"))
    (pictures,) = text.others or []
    (image,) = explained_pair(model, {**feeds, "x": images[1:]}, "x")
    (site,), (own,) = pictures.sites, image.record.sites
    assert not any(site.relevance[:PATCHES])
    np.testing.assert_allclose(site.relevance[PATCHES:], own.relevance, rtol=1e-4, atol=1e-6)


def test_images_that_one_text_is_compared_with() -> None:
    model, feeds = towers(4)
    images = np.concatenate([feeds["x"], 2 * feeds["x"]])
    sample = Sample("x", "tensors", {**feeds, "x": images}, InputFacts(kind="tensors"))
    explainer = Explainer(model.path, output="y", positions="signed")
    (text,) = (each.record for each in explainer.explain(sample, "1"))
    assert text.input_name == "ids"
    (pictures,) = text.others or []
    assert pictures.units.grid == (2 * 3, 3)
    (image,) = explained_pair(model, {**feeds, "x": images[1:]}, "x")
    content = pictures.relevance.content
    assert not any(content[:PATCHES])
    np.testing.assert_allclose(content[PATCHES:], image.record.relevance.content, rtol=1e-4)


# --- samples that are mixed------------------------------------------------------------------------
MEETING = {
    "summed up along the batch": "c = CumSum(x, n0)  y = MatMul(c, w)",
    "summed up from the end": "c = CumSum <reverse=1> (x, n0)  y = MatMul(c, w)",
    "a convolution along the batch": """u = Unsqueeze(x, i0)  t = Transpose <perm=[0, 2, 1]> (u)
        c = Conv <kernel_shape=[3], pads=[1, 1]> (t, kernel)
        q = Transpose <perm=[0, 2, 1]> (c)  s = Squeeze(q, i0)  y = MatMul(s, w)""",
    "of one length along the batch": "c = LpNormalization <axis=0> (x)  y = MatMul(c, w)",
    "in reverse": "c = Slice(x, last, first, i0, last)  y = MatMul(c, w)",
    "a mean over everything": "m = ReduceMean(x)  c = Sub(x, m)  y = MatMul(c, w)",
    "a product of all with all": """k = Transpose <perm=[1, 0]> (x)  s = MatMul(x, k)
        y = MatMul(s, x)""",
    "a softmax along the batch": "s = Softmax <axis=0> (x)  y = MatMul(s, w)",
    "normalised along the batch": """m = ReduceMean <keepdims=1> (x, i0)  c = Sub(x, m)
        y = MatMul(c, w)""",
}


@pytest.mark.parametrize("name", MEETING)
def test_rows_that_are_combined_are_one_sample(name: str) -> None:
    known = {
        "w": real(4, 3),
        "i0": ints(0),
        "n0": np.array(0),
        "kernel": real(4, 4, 3),
        "last": ints(-1),
        "first": ints(-100),
    }
    assert_one_sample(MEETING[name], known)


@pytest.mark.parametrize(
    "body",
    [
        "c = Concat <axis=0> (x, x)  h = MatMul(c, w)  y = Slice(h, i0, i1)",
        "h = MatMul(x, w)  y = Tile(h, twice)",
        "h = MatMul(x, w)  y = Slice(h, i0, i1, i0)",
    ],
)
def test_rows_whose_number_changes_are_one_sample(body: str) -> None:
    known = {"w": real(4, 3), "i0": ints(0), "i1": ints(1), "twice": ints(2, 1)}
    assert_one_sample(body, known)


def assert_one_sample(body: str, known: Mapping[str, Array]) -> None:
    """Rows [N, F] have the map of one sample [1, N, F] of the same graph with a batch axis."""
    weights = {k: a for k, a in known.items() if f"{k})" in body or f"{k}," in body}
    for free, count in (((0,), 3), ((), 2)):
        x = real(count, 4)
        whole = opened(proto(body, {"x": x}, weights, free=free))
        inside = f"x = Squeeze(rows, zero)  {body}  out = Unsqueeze(y, zero)"
        feeds = {"rows": x[None]}
        batch = proto(inside, feeds, weights | {"zero": ints(0)}, outputs=["out"], free=())
        for engine in ("onnxruntime", "numpy"):
            (found,) = Explainer(whole.path, engine=engine).explain(_sample(x), "0,1")
            sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
            (same,) = Explainer(opened(batch).path, engine=engine).explain(sample, "0,1")
            assert len(found.record.relevance.total) == count
            assert abs(found.record.ledger["residual_relative"]) < 1e-5
            np.testing.assert_allclose(
                found.record.relevance.total, same.record.relevance.total, atol=1e-6
            )


SEQUENCE_FIRST = """q = Transpose <perm=[1, 0, 2]> (x)  k = Transpose <perm=[1, 2, 0]> (x)
    s = MatMul(q, k)  p = Softmax <axis=-1> (s)  c = MatMul(p, q)
    t = Transpose <perm=[1, 0, 2]> (c)  y = Add(t, x)"""


def test_samples_along_the_second_axis() -> None:
    model = opened(proto(SEQUENCE_FIRST, {"x": real(7, 2, 4)}, {}, free=(0, 1)))
    for tokens, samples in ((7, 1), (5, 3), (2, 2)):
        x = real(tokens, samples, 4)
        for engine in ("onnxruntime", "numpy"):
            rows = Explainer(model.path, engine=engine).explain(_sample(x), "0,1")
            assert len(rows) == samples
            for k, row in enumerate(rows):
                (alone,) = Explainer(model.path, engine=engine).explain(
                    _sample(x[:, k : k + 1]), "0,1"
                )
                assert abs(row.record.ledger["residual_relative"]) < 1e-6
                assert len(row.record.relevance.total) == tokens
                np.testing.assert_allclose(
                    row.record.relevance.total, alone.record.relevance.total, atol=1e-6
                )


def _sample(x: Array) -> Sample:
    return Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))


# --- masks ----------------------------------------------------------------------------------------
def test_the_mask_of_the_output_is_found_by_data_flow() -> None:
    """Encoder and decoder of one length: each has a mask of its own."""
    tower = """NAMEe = Gather(words, NAMEids)  NAMEf = Cast <to=1> (NAMEmask)
        NAMEg = Sub(unit, NAMEf)  NAMEo = Mul(NAMEg, low)  NAMEz = Unsqueeze(NAMEo, one)
        NAMEk = Transpose <perm=[0, 2, 1]> (NAMEe)  NAMEs = MatMul(NAMEe, NAMEk)
        NAMEa = Add(NAMEs, NAMEz)  NAMEp = Softmax <axis=-1> (NAMEa)
        NAMEh = MatMul(NAMEp, NAMEe)  """
    cross = """k = Transpose <perm=[0, 2, 1]> (encoder_h)  s = MatMul(decoder_h, k)
        a = Add(s, encoder_z)  p = Softmax <axis=-1> (a)  h = MatMul(p, encoder_h)
        r = Add(h, decoder_h)  y = MatMul(r, head)"""
    body = tower.replace("NAME", "encoder_") + tower.replace("NAME", "decoder_") + cross
    ones = np.ones((1, T), np.int64)
    feeds = {
        "encoder_mask": ones,
        "encoder_ids": IDS,
        "decoder_ids": IDS,
        "decoder_mask": np.array([[1, 1, 1, 0, 0]]),
    }
    weights = {
        "words": WORDS,
        "unit": np.array(1, np.float32),
        "low": np.array(-1e9, np.float32),
        "one": ints(1),
        "head": HEAD,
    }
    model = opened(proto(body, feeds, weights))
    planned = plan_model(model, feeds, method("pa-lrp"), explain_input=["encoder_ids"])
    assert planned.subject.mask == "decoder_mask"
    assert planned.subject.unit_mask == "encoder_mask"
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    for dtype in ("float32", "float64"):
        (found,) = Explainer(model.path, dtype=dtype).explain(sample)
        assert found.record.target.index[0] == 2


def test_equal_axes_are_one_and_others_are_not() -> None:
    model, _ = towers(PATCHES)
    layouts = analyse_model(model).layouts
    assert layouts.canonical(("ids", 1)) != layouts.canonical(("x", 2))


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_a_mask_may_hide_where_it_is_set(engine: str) -> None:
    """The last token that is kept is the default target, and padding is special, either way."""
    weights = {"words": WORDS, "low": np.float32(-1e9), "nothing": np.float32(0), "one": ints(1)}
    body = """e = Gather(words, ids)  b = Cast <to=9> (mask)  w = Unsqueeze(b, one)
        o = Where(w, SET, CLEAR)  k = Transpose <perm=[0, 2, 1]> (e)  s = MatMul(e, k)
        a = Add(s, o)  p = Softmax <axis=-1> (a)  c = MatMul(p, e)  y = Add(c, e)"""
    found = []
    for keeps, values in ((1, ("nothing", "low")), (0, ("low", "nothing"))):
        text = body.replace("SET", values[0]).replace("CLEAR", values[1])
        kept = np.array([[1, 1, 1, 0, 0]])
        feeds = {"ids": IDS, "mask": kept if keeps else 1 - kept}
        model = opened(proto(text, feeds, weights, free=(0, 1)))
        sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
        (one,) = Explainer(model.path, engine=engine).explain(sample)
        assert one.record.target.position == 2 or one.record.target.index[0] == 2  # type: ignore[index]
        assert one.record.units.special == [False, False, False, True, True]
        found.append(one.record.relevance.total)
    np.testing.assert_array_equal(*found)


def test_token_types_of_reshaped_words_are_token_types() -> None:
    """Multiple choice: [B, choices, T] becomes [B × choices, T] before the lookups."""
    weights = {
        "words": WORDS,
        "kinds": real(2, F, seed=5),
        "flat": ints(-1, T),
        "head": real(F, 1, seed=6),
        "one": ints(1),
        "back": ints(-1, 2),
    }
    body = """i = Reshape(ids, flat)  t = Reshape(types, flat)  e = Gather(words, i)
        k = Gather(kinds, t)  x = Add(e, k)  h = ReduceSum <keepdims=0> (x, one)
        s = MatMul(h, head)  y = Reshape(s, back)"""
    feeds = {"ids": np.concatenate([IDS, IDS + 1])[None], "types": np.ones((1, 2, T), np.int64)}
    (found,) = explained(opened(proto(body, feeds, weights)), feeds)
    expected = WORDS[feeds["ids"][0]] @ weights["head"][:, 0]
    expected[0] = 0  # the target is the second choice
    np.testing.assert_allclose(found.record.relevance.content, expected.ravel(), atol=1e-5)
    assert found.record.ledger["segment"] == pytest.approx(
        T * float(weights["kinds"][1] @ weights["head"][:, 0]), rel=1e-4
    )
