"""The NumPy back end: every adjoint is one, <A x, m> = <x, Aᵀ m>, with A from the onnx package."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from building import Array, real, wide
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from palrp_onnx.errors import ModelError
from palrp_onnx.tensor.language import Window
from palrp_onnx.tensor.numpy import Eager

pytestmark = pytest.mark.quick

OP = Eager(2, np.float64)
LONG = 2**63 - 1


def forward(op_type: str, *inputs: Array, **attributes: Any) -> Array:
    """One operation in onnx's own evaluator."""
    names = [f"i{k}" for k in range(len(inputs))]
    node = helper.make_node(op_type, names, ["o"], **attributes)
    values = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, inputs, strict=True)
    ]
    result = helper.make_tensor_value_info("o", TensorProto.DOUBLE, None)
    graph = helper.make_graph([node], "g", values, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return np.asarray(ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))[0])


def assert_adjoint(x: Array, go: Callable[[Array], Array], back: Callable[[Array], Array]) -> None:
    """<A x, m> = <x, Aᵀ m> for one random m, and the result has the shape of x."""
    y = go(x)
    m = np.random.default_rng(5).normal(size=y.shape)
    sent = back(m)
    assert sent.shape == x.shape
    np.testing.assert_allclose((y * m).sum(), (x * sent).sum(), rtol=1e-9, atol=1e-12)


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    rank = draw(st.integers(1, 2))

    def each(low: int, high: int, count: int = rank) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    kernel, dilations = each(1, 3), each(1, 2)
    extra = each(0, 3)
    return {
        "group": draw(st.integers(1, 3)),
        "inner": draw(st.integers(1, 2)),
        "outer": draw(st.integers(1, 2)),
        "kernel": kernel,
        "strides": each(1, 3),
        "pads": each(0, 2, 2 * rank),
        "dilations": dilations,
        "size": [(k - 1) * d + 1 + s for k, d, s in zip(kernel, dilations, extra, strict=True)],
    }


def convolve(x: Array, weight: Array, case: dict[str, Any]) -> Array:
    """The definition, with loops."""
    rank, group = len(case["kernel"]), case["group"]
    pads, strides, dilations = case["pads"], case["strides"], case["dilations"]
    around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(x, around)
    reach = [(k - 1) * d + 1 for k, d in zip(case["kernel"], dilations, strict=True)]
    size = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, strides, strict=True)]
    out = np.zeros((len(x), len(weight), *size))
    inner, outer = weight.shape[1], len(weight) // group
    for place in product(*map(range, size)):
        for o in range(len(weight)):
            first = o // outer * inner
            for tap in product(*map(range, case["kernel"])):
                at = [
                    p * s + t * d for p, s, t, d in zip(place, strides, tap, dilations, strict=True)
                ]
                taken = padded[(slice(None), slice(first, first + inner), *at)]
                out[(slice(None), o, *place)] += taken @ weight[(o, slice(None), *tap)]
    return out


@settings(max_examples=25)
@given(convolutions())
def test_conv_adjoint(case: dict[str, Any]) -> None:
    x = wide(real(2, case["group"] * case["inner"], *case["size"]))
    weight = wide(real(case["group"] * case["outer"], case["inner"], *case["kernel"], seed=8))
    steps = {k: case[k] for k in ("strides", "pads", "dilations", "group")}
    window = Window(**steps, output_padding=[0] * len(case["kernel"]))
    assert_adjoint(
        x,
        lambda v: convolve(v, weight, case),
        lambda m: OP.conv_adjoint(m, weight, x, window),
    )


@settings(max_examples=60)
@given(
    size=st.integers(1, 6),
    start=st.one_of(st.integers(-9, 9), st.sampled_from([LONG, -LONG])),
    end=st.one_of(st.integers(-9, 9), st.sampled_from([LONG, -LONG])),
    step=st.sampled_from([-3, -2, -1, 1, 2, 3]),
    axis=st.sampled_from([0, 1, -1, -2]),
)
def test_slice_adjoint(size: int, start: int, end: int, step: int, axis: int) -> None:
    x = wide(real(size, size))
    chosen = selected(start, end, step, size)
    arguments = [np.array([v], np.int64) for v in (start, end, axis, step)]
    assert_adjoint(
        x,
        lambda v: np.take(v, chosen, axis=axis),
        lambda m: OP.slice_adjoint(m, x, *arguments),
    )


def selected(start: int, end: int, step: int, size: int) -> list[int]:
    """Places as ONNX Runtime has them: negatives count from the end, then both are clamped.

    Backwards, INT64_MAX as the end means to the very first.
    """
    low, high = (0, size - 1) if step < 0 else (0, size)
    first = min(max(start + size if start < 0 else start, low), high)
    last = end + size if end < 0 else end
    last = min(max(last, -1), size - 1) if step < 0 else min(max(last, 0), size)
    last = -1 if step < 0 and end == LONG else last
    return list(range(first, last, step))


def test_slice_adjoint_of_several_axes() -> None:
    x = wide(real(4, 5, 6))
    starts, ends = np.array([3, -1]), np.array([0, -LONG])
    axes, steps = np.array([-1, 0]), np.array([-2, -1])
    assert_adjoint(
        x,
        lambda v: v[::-1, :, 3:0:-2],
        lambda m: OP.slice_adjoint(m, x, starts, ends, axes, steps),
    )
    assert_adjoint(
        x,
        lambda v: v[1:3, 0:4],
        lambda m: OP.slice_adjoint(m, x, np.array([1, 0]), np.array([3, 4]), None, None),
    )


@settings(max_examples=20)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_tile_adjoint(shape: list[int], data: st.DataObject) -> None:
    count = len(shape)
    repeats = data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    x = wide(real(*shape))
    assert_adjoint(x, lambda v: np.tile(v, repeats), lambda m: OP.tile_adjoint(m, x))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 3), min_size=0, max_size=4), st.data())
def test_sum_to_undoes_broadcasting(shape: list[int], data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(shape)))
    ones = data.draw(st.lists(st.booleans(), min_size=kept, max_size=kept))
    inner = [1 if one else dim for one, dim in zip(ones, shape[len(shape) - kept :], strict=True)]
    x = wide(real(*inner))
    assert_adjoint(x, lambda v: np.broadcast_to(v, shape), lambda m: OP.sum_to(m, x))


def test_sum_to_fills_a_multiplier_that_was_never_broadcast() -> None:
    """A multiplier may be smaller than the value: it holds for every entry."""
    assert OP.sum_to(np.ones((1, 3)), np.zeros((2, 3))).tolist() == [[1.0] * 3] * 2


@settings(max_examples=30)
@given(
    axis=st.integers(-3, 2),
    index=st.lists(st.integers(-2, 1), min_size=1, max_size=6),
    rank=st.integers(0, 2),
)
def test_gather_adjoint(axis: int, index: list[int], rank: int) -> None:
    where = np.array({0: index[0], 1: index, 2: [index, index]}[rank])
    x = wide(real(2, 2, 2))
    assert_adjoint(
        x,
        lambda v: forward("Gather", v, where, axis=axis),
        lambda m: OP.gather_adjoint(m, x, where, axis),
    )


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_gather_elements_adjoint(axis: int) -> None:
    x = wide(real(3, 4, 2))
    shape = [2, 3, 1]
    where = np.random.default_rng(2).integers(-2, 2, shape)

    def loops(v: Array) -> Array:
        out = np.empty(shape)
        for k in np.ndindex(*shape):
            place = list(k)
            place[axis] = int(where[k])
            out[k] = v[tuple(place)]
        return out

    assert_adjoint(x, loops, lambda m: OP.gather_elements_adjoint(m, x, where, axis))


@pytest.mark.parametrize(
    ("batch_dims", "shape"),
    [(0, (5, 2)), (0, (2, 2, 3)), (0, (2,)), (1, (3, 2)), (1, (3, 4, 1)), (2, (3, 4, 1))],
)
def test_gather_nd_adjoint(batch_dims: int, shape: tuple[int, ...]) -> None:
    x = wide(real(3, 4, 2))
    where = np.random.default_rng(2).integers(0, 2, shape)

    def loops(v: Array) -> Array:
        out = np.empty((*shape[:-1], *v.shape[batch_dims + shape[-1] :]))
        for k in np.ndindex(*shape[:-1]):
            out[k] = v[(*k[:batch_dims], *where[k])]
        return out

    assert_adjoint(x, loops, lambda m: OP.gather_nd_adjoint(m, x, where, batch_dims))


def test_scatter_nd_splits_what_arrives() -> None:
    data, updates = wide(real(3, 4)), wide(real(2, 4, seed=8))
    where = np.array([[2], [-3]])

    def scatter(base: Array, new: Array) -> Array:
        out = base.copy()
        out[2], out[0] = new
        return out

    assert_adjoint(
        data,
        lambda v: scatter(v, np.zeros_like(updates)),
        lambda m: OP.scatter_nd_cleared(m, where),
    )
    assert_adjoint(
        updates,
        lambda v: scatter(np.zeros_like(data), v),
        lambda m: OP.gather_nd(m, where),
    )


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cumulative_adjoint(axis: int, exclusive: bool, reverse: bool) -> None:
    x = wide(real(3, 4, 2))
    options = {"exclusive": int(exclusive), "reverse": int(reverse)}
    assert_adjoint(
        x,
        lambda v: forward("CumSum", v, np.array(axis), **options),
        lambda m: OP.cumulative_adjoint(m, axis, exclusive=exclusive, reverse=reverse),
    )


def test_pad_adjoint() -> None:
    x = wide(real(2, 3))
    assert_adjoint(
        x,
        lambda v: np.pad(v, [(0, 4), (1, 2)]),
        lambda m: OP.pad_adjoint(m, x, np.array([0, 1, 4, 2]), None),
    )
    assert_adjoint(
        x,
        lambda v: np.pad(v, [(3, 4), (1, 2)]),
        lambda m: OP.pad_adjoint(m, x, np.array([1, 3, 2, 4]), np.array([-1, 0])),
    )


def test_pad_adjoint_of_a_crop() -> None:
    x = wide(real(3, 4))
    assert_adjoint(
        x,
        lambda v: np.pad(v[1:, :3], [(0, 2), (1, 0)]),
        lambda m: OP.pad_adjoint(m, x, np.array([-1, 1, 2, -1]), None),
    )


@pytest.mark.parametrize(("k", "upper"), [(0, True), (-1, False), (2, True), (1, False)])
def test_triangle(k: int, upper: bool) -> None:
    inside = OP.triangle(np.ones((2, 4, 5)), k, upper=upper)
    for n, i, j in np.ndindex(*inside.shape):
        assert inside[n, i, j] == float(j - i >= k if upper else j - i <= k)


def test_split_like_is_the_adjoint_of_concat() -> None:
    parts = [wide(real(2, n, seed=n)) for n in (1, 3, 2)]
    m = np.random.default_rng(5).normal(size=(2, 6))
    pieces = OP.split_like(m, parts, 1)
    assert [p.shape for p in pieces] == [p.shape for p in parts]
    total = sum(float((a * b).sum()) for a, b in zip(parts, pieces, strict=True))
    assert total == pytest.approx(float((OP.concat(parts, 1) * m).sum()))


@pytest.mark.parametrize(("a", "b"), [(False, False), (True, False), (False, True), (True, True)])
def test_matmul_flags(a: bool, b: bool) -> None:
    left, right = wide(real(2, 3, 4)), wide(real(2, 4, 5))
    given_left = left.swapaxes(-1, -2) if a else left
    given_right = right.swapaxes(-1, -2) if b else right
    found = OP.matmul(given_left, given_right, transpose_a=a, transpose_b=b)
    np.testing.assert_allclose(found, left @ right)


def test_outer_first() -> None:
    a, b = wide(real(2, 3)), wide(real(2, 4))
    np.testing.assert_allclose(OP.outer_first(a, b), np.einsum("ni,nj->nij", a, b))


@pytest.mark.parametrize(
    ("shape", "batch_axis", "tokens", "features", "equation"),
    [
        ((2, 3, 4), -3, (-2,), (-1,), "btf->btf"),
        ((2, 3, 4), -3, (-2,), (), "btf->bt"),
        ((2, 5, 3, 4), -4, (-2,), (-1,), "bhtf->btf"),
        ((2, 5, 3, 4), -4, (-2,), (-3, -1), "bhtf->bthf"),
        ((2, 5, 3, 3), -4, (-1,), (), "bhij->bj"),
        ((3, 2, 4), -2, (-3,), (-1,), "tbf->btf"),
        ((2, 4, 3, 5), -4, (-2, -1), (-3,), "bfij->bijf"),
    ],
)
def test_arrange(
    shape: tuple[int, ...],
    batch_axis: int,
    tokens: tuple[int, ...],
    features: tuple[int, ...],
    equation: str,
) -> None:
    relevance = wide(real(*shape))
    found = OP.arrange(relevance, batch_axis=batch_axis, token_axes=tokens, feature_axes=features)
    size = math.prod(shape[axis] for axis in tokens)
    np.testing.assert_allclose(found, np.einsum(equation, relevance).reshape(2, size, -1))


def test_arrange_where_samples_and_tokens_share_an_axis() -> None:
    """[B·T, F] and, with heads, [B·T, H, F]."""
    relevance = wide(real(2 * 3, 4))
    found = OP.arrange(relevance, batch_axis=-2, token_axes=(-2,), feature_axes=(-1,))
    np.testing.assert_allclose(found, relevance.reshape(2, 3, 4))
    relevance = wide(real(2 * 3, 5, 4))
    found = OP.arrange(relevance, batch_axis=-3, token_axes=(-3,), feature_axes=(-1,))
    np.testing.assert_allclose(found, relevance.sum(axis=1).reshape(2, 3, 4))


def test_arrange_where_samples_and_heads_share_an_axis() -> None:
    """[B·h, T, T]: heads are summed."""
    relevance = wide(real(2 * 5, 3, 3))
    found = OP.arrange(relevance, batch_axis=-3, token_axes=(-1,), feature_axes=())
    np.testing.assert_allclose(found[..., 0], relevance.reshape(2, 5, 3, 3).sum(axis=(1, 2)))


def test_per_sample_takes_the_outermost_part_of_the_batch_axis() -> None:
    relevance = wide(real(3, 2 * 4, 5))
    expected = relevance.reshape(3, 2, 4, 5).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(OP.per_sample(relevance, -2), expected)


def test_per_sample_sums_in_double() -> None:
    rough = Eager(1, np.float32)
    relevance = np.full((1, 1 << 12), 0.1, np.float32)
    expected = float(relevance.astype(np.float64).sum())
    assert rough.per_sample(relevance, 0)[0] == pytest.approx(expected, rel=1e-12)


def test_ratio_and_relevance_are_safe() -> None:
    y, x = np.array([1.0, 2.0, 0.0]), np.array([0.0, 4.0, 0.0])
    assert OP.ratio(y, x, 7.0).tolist() == [7.0, 0.5, 7.0]
    assert OP.relevance(np.array([-np.inf, 2.0, np.nan]), np.array([0.0, 3.0, 0.0])).tolist() == [
        0.0,
        6.0,
        0.0,
    ]
    assert OP.power(np.array([0.0, -2.0]), 0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_check_names_the_place(bad: float) -> None:
    OP.check(np.ones(3), "fine")
    with pytest.raises(ModelError, match="value 'here'"):
        OP.check(np.array([1.0, bad]), "value 'here'")


def test_numbers_keep_their_type() -> None:
    rough = Eager(1, np.float32)
    one = np.ones(2, np.float32)
    for found in (
        rough.scale(one, 0.5),
        rough.shift(one, 0.5),
        rough.power(one, 0.5),
        rough.mean_weight(np.ones((2, 3)), one),
        rough.winners(one, one),
        rough.zeros_like(one.astype(np.float64)),
        rough.ratio(one, one, 0.0),
    ):
        assert found.dtype == np.float32
