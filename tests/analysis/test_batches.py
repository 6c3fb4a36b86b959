"""Which axis runs over samples, and what is one sample as a whole."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from building import Array, ints, opened, proto, real
from onnx import TensorProto, helper

from palrp_onnx import Explainer, Model
from palrp_onnx.describe import Explanation
from palrp_onnx.errors import InputError, TargetError, UnsupportedError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.prepare import analyse_model
from palrp_onnx.record import InputFacts

ENGINES = ("onnxruntime", "numpy")


def explained(model: Model, feeds: Mapping[str, Array], target: str) -> list[list[Explanation]]:
    """Explanations by both engines; every ledger closes."""
    sample = Sample("x", "tensors", dict(feeds), InputFacts(kind="tensors"))
    found = [Explainer(model.path, engine=engine).explain(sample, target) for engine in ENGINES]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(
            one.record.relevance.total, other.record.relevance.total, atol=1e-5
        )
        assert abs(one.record.ledger["residual_relative"]) < 1e-5
        assert abs(other.record.ledger["residual_relative"]) < 1e-5
    return found


@pytest.mark.parametrize(
    ("body", "shape", "free", "batch"),
    [
        ("y = MatMul(x, w)", (2, 4), (0,), 0),
        ("t = Transpose <perm=[1, 0]> (x)  y = MatMul(t, w)", (4, 2), (1,), 1),
        ("s = Softmax <axis=0> (x)  y = MatMul(s, w)", (2, 3, 4), (1,), 1),
        ("s = Softmax <axis=0> (x)  y = MatMul(s, w)", (2, 4), (), None),
        ("s = ReduceSum <keepdims=0> (x, all)  y = Mul(s, scale)", (2, 3, 4), (), None),
        ("s = ReduceSum <keepdims=0> (x, none)  y = Mul(s, scale)", (2, 3, 4), (), None),
        ("s = ReduceSum (x, none)  y = Mul(s, scale)", (2, 3, 4), (), None),
        ("f = Flatten <axis=2> (x)  y = MatMul(f, w)", (2, 3, 4), (), None),
    ],
)
def test_the_batch_is_the_axis_along_which_nothing_is_combined(
    body: str, shape: tuple[int, ...], free: tuple[int, ...], batch: int | None
) -> None:
    known = {"w": real(4, 3), "all": ints(0, 1, 2), "none": ints(), "scale": np.float32(2)}
    weights = {k: a for k, a in known.items() if f"{k})" in body or f" {k}" in body}
    model = opened(proto(body, {"x": real(*shape)}, weights, free=free))
    assert analyse_model(model).input_axes("x").batch == batch


@pytest.mark.parametrize("free", [(0,), ()])
def test_weights_that_are_an_input_are_shared_by_samples(free: tuple[int, ...]) -> None:
    """Each sample is explained alone with them; if the batch has a fixed length, all as one."""
    x, w = real(3, 4), real(4, 5, seed=2)
    model = opened(proto("y = MatMul(x, w)", {"x": x, "w": w}, free=()))
    if free:
        proto_ = proto("y = MatMul(x, w)", {"x": x, "w": w}, free=())
        proto_.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "samples"
        model = opened(proto_)
    rows, _ = explained(model, {"x": x, "w": w}, "1" if free else "2,1")
    assert len(rows) == (3 if free else 1)
    half = x[2] * w[:, 1] / 2
    assert rows[-1].record.ledger["w"] == pytest.approx(half.sum(), abs=1e-5)
    got = np.ravel(rows[-1].record.relevance.content)
    np.testing.assert_allclose(got[-1] if not free else got.sum(), half.sum(), atol=1e-5)


def test_ids_without_a_batch_are_one_sample() -> None:
    weights = {"words": real(30, 6, seed=1), "head": real(6, 4, seed=2), "zero": ints(0)}
    body = """e = Gather(words, ids)  k = Transpose <perm=[1, 0]> (e)  s = MatMul(e, k)
        p = Softmax <axis=-1> (s)  c = MatMul(p, e)  h = ReduceSum <keepdims=0> (c, zero)
        y = MatMul(h, head)"""
    batched = """e = Gather(words, ids)  k = Transpose <perm=[0, 2, 1]> (e)  s = MatMul(e, k)
        p = Softmax <axis=-1> (s)  c = MatMul(p, e)  h = ReduceSum <keepdims=0> (c, one)
        y = MatMul(h, head)"""
    ids = ints(7, 20, 3, 3, 21)
    one = opened(proto(body, {"ids": ids}, weights))
    many = opened(proto(batched, {"ids": ids[None]}, weights | {"one": ints(1)}, free=(0, 1)))
    (found,), _ = explained(one, {"ids": ids}, "1")
    (expected,), _ = explained(many, {"ids": ids[None]}, "1")
    assert found.record.units.id == ids.tolist()
    np.testing.assert_allclose(
        found.record.relevance.total, expected.record.relevance.total, atol=1e-6
    )


def test_samples_inside_of_an_axis_have_ledgers_of_their_own() -> None:
    """[T, B, F] flattened to [T × B, F], as PyTorch's attention does, with a bias."""
    body = """t = Transpose <perm=[1, 0, 2]> (x)  f = Reshape(t, rows)  h = Gemm(f, w, b)
        g = Reshape(h, back)  s = ReduceSum <keepdims=0> (g, first)  y = MatMul(s, head)"""
    weights = {
        "rows": ints(-1, 4),
        "w": real(4, 4, seed=2),
        "b": real(4, seed=3),
        "back": ints(5, -1, 4),
        "first": ints(0),
        "head": real(4, 3, seed=4),
    }
    x = real(3, 5, 4)
    rows, _ = explained(opened(proto(body, {"x": x}, weights)), {"x": x}, "1")
    bias = 5 * float(weights["b"] @ weights["head"][:, 1])
    assert [row.record.ledger["bias"] for row in rows] == pytest.approx([bias] * 3, abs=1e-5)


def test_one_text_fills_up_a_batch_of_fixed_length() -> None:
    body = "e = Gather(words, ids)  h = ReduceSum <keepdims=0> (e, one)  y = MatMul(h, head)"
    weights = {"words": real(30, 6, seed=1), "head": real(6, 4, seed=2), "one": ints(1)}
    ids = ints(7, 20, 3)[None]
    fixed = opened(proto(body, {"ids": np.repeat(ids, 4, 0)}, weights, free=()))
    free = opened(proto(body, {"ids": ids}, weights))
    sample = Sample("x", "text", {"ids": ids}, InputFacts(kind="text"))
    for target, names in (("1", ["x"]), ("0,1", ["x-0", "x-1"])):
        found = Explainer(fixed.path).explain(sample, f"index:{target.replace(',', ',index:')}")
        expected = Explainer(free.path).explain(sample, f"index:{target.replace(',', ',index:')}")
        assert [each.record.id for each in found] == names
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(
                one.record.relevance.total, other.record.relevance.total, atol=1e-6
            )


def test_an_input_without_samples_does_not_change_how_many_rows_fill_a_batch() -> None:
    body = "e = Gather(words, ids)  p = Gather(places, at)  y = Add(e, p)"
    weights = {"words": real(30, 6, seed=1), "places": real(9, 6, seed=2)}
    ids, at = ints(7, 20, 3)[None], ints(0, 1, 2)
    feeds = {"ids": np.repeat(ids, 2, 0), "at": at}
    model = opened(proto(body, feeds, weights, free=()))
    sample = Sample("x", "text", {"ids": ids, "at": at}, InputFacts(kind="text"))
    (found,) = Explainer(model.path).explain(sample, "index:1")
    assert found.record.id == "x"


def test_copies_of_a_text_fill_no_batch_whose_samples_are_combined() -> None:
    body = "e = Gather(words, ids)  s = Softmax <axis=0> (e)  y = ReduceSum <keepdims=0> (s, one)"
    weights = {"words": real(30, 6, seed=1), "one": ints(1)}
    ids = ints(7, 20, 3)[None]
    model = opened(proto(body, {"ids": np.repeat(ids, 4, 0)}, weights, free=()))
    sample = Sample("x", "text", {"ids": ids}, InputFacts(kind="text"))
    with pytest.raises(InputError, match="copies of one"):
        Explainer(model.path).explain(sample)


def test_rows_that_decide_otherwise_alone_are_explained_alone() -> None:
    """A condition on the whole batch: what a row gets must not depend on the others."""
    x = real(3, 4)
    head = proto("m = ReduceMax <keepdims=0> (x)  c = Greater(m, limit)", {"x": x})
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("MatMul", ["x", weight], [f"{name}_y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
        )
        for name, weight in (("then", "w"), ("else", "v"))
    }
    nodes = [*head.graph.node, helper.make_node("If", ["c"], ["y"], **branches)]
    limit = np.float32(np.sort(x.max(1))[1] + 1e-3)  # one row alone is above it
    weights = {"w": real(4, 3, seed=2), "v": real(4, 3, seed=3), "limit": limit}
    model = proto("", {"x": x}, weights)
    model.graph.node.extend(nodes)
    rows, _ = explained(opened(model), {"x": x}, "1")
    for row, one in zip(rows, x, strict=True):
        weight = weights["w" if one.max() > limit else "v"]
        assert row.record.target.value == pytest.approx(float(one @ weight[:, 1]), rel=1e-5)


# --- masks and indices that are inputs ------------------------------------------------------------
SCORES = """k = Transpose <perm=[0, 2, 1]> (x)  s = MatMul(x, k)  a = Add(s, mask)
    p = Softmax <axis=-1> (a)  c = MatMul(p, x)  y = ReduceSum <keepdims=0> (c, one)"""


def test_the_mask_of_an_output_with_tokens_first_is_compared_along_its_own_axes() -> None:
    body = """b = Transpose <perm=[1, 0, 2]> (x)  k = Transpose <perm=[1, 2, 0]> (x)
        s = MatMul(b, k)  off = Sub(mask, unit)  much = Mul(off, big)  each = Unsqueeze(much, one)
        a = Add(s, each)  p = Softmax <axis=-1> (a)  c = MatMul(p, b)
        y = Transpose <perm=[1, 0, 2]> (c)"""
    x, mask = real(5, 3, 4), np.ones((3, 5), np.float32)
    mask[1, 3:] = 0
    weights = {"unit": np.float32(1), "big": np.float32(1e4), "one": ints(1)}
    proto_ = proto(body, {"x": x, "mask": mask}, weights)
    for value, names in zip(proto_.graph.input, (("T", "B"), ("B", "T")), strict=True):
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            dim.dim_param = name
    explainer = Explainer(opened(proto_).path, dtype="float64")
    sample = Sample("x", "tensors", {"x": x, "mask": mask}, InputFacts(kind="tensors"))
    found = explainer.explain(sample, "index:0")
    assert [row.record.target.index for row in found] == [[4, 0], [2, 0], [4, 0]]


@pytest.mark.parametrize("order", [(2, 0, 1), (2, 1, 0)])
def test_an_index_is_no_mask(order: tuple[int, ...]) -> None:
    """The position that is explained by default is the last, also where the index there is 0."""
    feeds = {"x": real(3, 4), "order": ints(*order)}
    model = opened(proto("p = Gather(x, order)  y = MatMul(p, w)", feeds, {"w": real(4, 2)}))
    for rows in explained(model, feeds, "index:0"):
        assert [row.record.target.index for row in rows] == [[2, 0]]


def test_a_mask_of_real_numbers_is_in_the_ledger() -> None:
    """A bias that is given as a mask: its relevance is not lost."""
    x, mask = real(2, 5, 4), real(2, 1, 5, seed=3)
    feeds = {"x": x, "mask": mask}
    model = opened(proto(SCORES, feeds, {"one": ints(1)}))
    assert analyse_model(model).inputs.facts["mask"].role == "mask"
    rows, _ = explained(model, feeds, "1")
    assert all(row.record.ledger["other"] != 0 for row in rows)


def test_a_mask_may_hold_infinity_and_nothing_else_may() -> None:
    x, mask = real(1, 5, 4), np.zeros((1, 1, 5), np.float32)
    mask[..., 3:] = -np.inf
    model = opened(proto(SCORES, {"x": x, "mask": mask}, {"one": ints(1)}))
    explained(model, {"x": x, "mask": mask}, "1")
    for bad in ({"x": x * np.inf, "mask": mask}, {"x": x, "mask": mask * np.nan}):
        sample = Sample("x", "tensors", bad, InputFacts(kind="tensors"))
        with pytest.raises(InputError, match="NaN or infinity"):
            Explainer(model.path).explain(sample, "1")


def test_axes_that_an_input_gives_are_no_constants() -> None:
    feeds = {"x": real(2, 3, 4), "axes": ints(1)}
    model = opened(proto("s = ReduceSum(x, axes)  y = Neg(s)", feeds, free=()))
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors"))
    for engine in ENGINES:
        with pytest.raises(UnsupportedError, match="not constant"):
            Explainer(model.path, engine=engine).explain(sample, "0,0,0")


def test_rows_that_an_input_selects_among_all_samples_are_refused() -> None:
    """Flat indices say which samples the rows are of; one sample alone is explained."""
    weights = {"flat": ints(-1, 4), "w": real(4, 3, seed=2)}
    feeds = {"x": real(3, 5, 4), "at": ints(4, 3, 2)}
    model = proto("f = Reshape(x, flat)  g = Gather(f, at)  y = MatMul(g, w)", feeds, weights)
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "rows"
    path = opened(model).path
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors"))
    for engine in ENGINES:
        with pytest.raises(InputError, match="which rows are selected"):
            Explainer(path, engine=engine).explain(sample, "1")


def test_a_target_that_is_no_number_is_refused() -> None:
    model = opened(proto("y = Log(x)", {"x": real(1, 4)}))
    sample = Sample("x", "tensors", {"x": -np.ones((1, 4), np.float32)}, InputFacts(kind="tensors"))
    for engine in ENGINES:
        with pytest.raises(TargetError, match="nan"):
            Explainer(model.path, engine=engine).explain(sample, "1")


def test_a_type_that_another_value_gives_carries_nothing() -> None:
    body = "half = Constant <value_float=0.5> ()  h = CastLike(half, x)  y = Mul(x, h)"
    x = real(2, 4)
    rows, _ = explained(opened(proto(body, {"x": x})), {"x": x}, "1")
    assert [row.record.ledger["content"] for row in rows] == pytest.approx(x[:, 1] / 2)


#: Samples are along the second axis of ``t``, and entries along others are moved.
MOVED = {
    "rows written": "u = Gather <axis=0> (t, from)  r = ScatterND (t, to, u)",
    "rows added": 'u = Gather <axis=0> (t, from)  r = ScatterND <reduction="add"> (t, to, u)',
    "entries written": """u = Gather <axis=0> (t, from)  k = Shape(u)  i = Expand(rows, k)
        r = ScatterElements <axis=0> (t, i, u)""",
    "entries selected": "k = Shape(t)  i = Expand(five, k)  r = GatherElements <axis=0> (t, i)",
    "rows selected, each by its index": """k = Shape(t)  n = Slice(k, zero, two)
        j = Expand(last, n)  i = Unsqueeze(j, two)  g = GatherND <batch_dims=2> (t, i)
        v = Unsqueeze(g, two)  r = Mul(v, t)""",
}


@pytest.mark.quick
@pytest.mark.parametrize("body", MOVED.values(), ids=MOVED)
def test_samples_stay_separate_where_entries_move_along_other_axes(body: str) -> None:
    """Two rows of a batch are explained as each alone, and not as one sample."""
    known = {
        "from": ints(4, 0),
        "to": ints([1], [3]),
        "rows": ints([[1]], [[3]]),
        "five": ints([[4]], [[2]], [[0]], [[1]], [[1]]),
        "last": ints([3]),
        "zero": ints(0),
        "two": ints(2),
    }
    whole = f"""t = Transpose <perm=[1, 0, 2]> (x)  {body}
        q = MatMul(r, w)  b = Transpose <perm=[1, 0, 2]> (q)  s = Softmax <axis=1> (b)
        p = Mul(s, b)  m = ReduceSum <keepdims=0> (p, one)  y = MatMul(m, head)"""
    weights = {"w": real(4, 4, seed=1), "head": real(4, 3, seed=2), "one": ints(1)}
    weights |= {k: v for k, v in known.items() if f"{k}," in whole or f"{k})" in whole}
    x = real(2, 5, 4)
    model = opened(proto(whole, {"x": x}, weights))
    for rows, *singles in zip(
        explained(model, {"x": x}, "1"),
        *(explained(model, {"x": one[None]}, "1") for one in x),
        strict=True,
    ):
        assert len(rows) == 2
        for found, (expected,) in zip(rows, singles, strict=True):
            np.testing.assert_allclose(
                found.record.relevance.total, expected.record.relevance.total, atol=1e-5
            )


@pytest.mark.parametrize("engine", ENGINES)
def test_an_input_without_entries_is_refused(engine: str) -> None:
    body = "e = Gather(words, ids)  h = ReduceSum <keepdims=0> (e, one)  y = MatMul(h, head)"
    weights = {"words": real(30, 6, seed=1), "head": real(6, 4, seed=2), "one": ints(1)}
    ids = np.zeros((1, 0), np.int64)
    model = opened(proto(body, {"ids": ids}, weights, free=(0, 1)))
    sample = Sample("x", "tensors", {"ids": ids}, InputFacts(kind="tensors"))
    with pytest.raises(InputError, match="nothing to explain"):
        Explainer(model, engine=engine).explain(sample, "1")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_further_input_may_be_an_empty_cache(engine: str) -> None:
    body = """e = Gather(words, ids)  k = Concat <axis=1> (past, e)
        h = ReduceSum <keepdims=0> (k, one)  y = MatMul(h, head)"""
    weights = {"words": real(30, 6, seed=1), "head": real(6, 4, seed=2), "one": ints(1)}
    feeds = {"ids": ints([3, 5, 7])[None].reshape(1, 3), "past": np.zeros((1, 0, 6), np.float32)}
    model = opened(proto(body, feeds, weights, free=(0, 1)))
    (found,) = Explainer(model, engine=engine).explain(
        Sample("x", "tensors", feeds, InputFacts(kind="tensors")), "1"
    )
    expected = weights["words"][[3, 5, 7]] @ weights["head"][:, 1]
    np.testing.assert_allclose(found.record.relevance.total, expected, rtol=1e-5, atol=1e-6)
    assert abs(found.record.ledger["residual_relative"]) < 1e-5
