"""Which axes run over samples and tokens, through the reshapes of attention."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import pytest
from building import Array, ints, opened, proto, real
from hypothesis import given, settings
from hypothesis import strategies as st

from palrp_onnx.analysis.axes import BATCH, TOKEN
from palrp_onnx.analysis.layout import Axes, regroup
from palrp_onnx.prepare import analyse_model

pytestmark = pytest.mark.quick

B, T = BATCH, TOKEN
BT = BATCH | TOKEN


@pytest.mark.parametrize(
    ("flags", "before", "after", "expected"),
    [
        pytest.param((B, T, 0), (2, 6, 8), (2, 6, 2, 4), (B, T, 0, 0), id="split heads"),
        pytest.param((B, T, 0), (1, 6, 8), (1, 6, 2, 4), (B, T, 0, 0), id="split heads, batch 1"),
        pytest.param((B, T, 0, 0), (2, 6, 2, 4), (2, 6, 8), (B, T, 0), id="merge heads"),
        pytest.param((B, T, 0, 0), (1, 1, 2, 4), (1, 1, 8), (B, T, 0), id="one token, batch 1"),
        pytest.param((B, 0, T, 0), (2, 4, 6, 8), (8, 6, 8), (B, T, 0), id="batch · heads"),
        pytest.param((B, 0, T, 0), (1, 4, 6, 8), (4, 6, 8), (B, T, 0), id="batch 1 · heads"),
        pytest.param((B, T, 0), (8, 6, 8), (2, 4, 6, 8), (B, 0, T, 0), id="heads back"),
        pytest.param((B, T, 0), (2, 6, 8), (12, 8), (BT, 0), id="batch · tokens"),
        pytest.param((B, T, 0), (1, 6, 8), (6, 8), (BT, 0), id="batch 1 · tokens"),
        pytest.param((BT, 0), (12, 8), (2, 6, 8), (B, T, 0), id="tokens back"),
        pytest.param((BT, 0), (6, 8), (1, 6, 8), (B, T, 0), id="tokens back, batch 1"),
        pytest.param((B, 0, T, T), (2, 8, 3, 3), (2, 8, 9), (B, 0, T), id="patches to a row"),
        pytest.param((B, 0, T), (2, 8, 9), (2, 8, 3, 3), (B, 0, T, T), id="a row to patches"),
        pytest.param((B, T, 0), (2, 16, 8), (2, 4, 4, 8), (B, T, T, 0), id="tokens to a grid"),
        pytest.param(
            (B, T, T, 0),
            (2, 4, 4, 8),
            (2, 2, 2, 2, 2, 8),
            (B, T, T, T, T, 0),
            id="windows cut",
        ),
        pytest.param(
            (B, T, T, T, T, 0), (2, 2, 2, 2, 2, 8), (8, 4, 8), (BT, T, 0), id="windows to the batch"
        ),
        pytest.param((B, T, 0), (2, 6, 8), (2, 6, 1, 8), (B, T, 0, 0), id="unsqueeze"),
        pytest.param((B, T, 0), (2, 6, 8), (2, 1, 6, 8), (B, 0, T, 0), id="unsqueeze in front"),
        pytest.param((B, 0, T, 0), (2, 1, 6, 8), (2, 6, 8), (B, T, 0), id="squeeze"),
        pytest.param((B, T, 0), (2, 6, 1), (2, 6), (B, T), id="squeeze features"),
        pytest.param((B, T, 0), (2, 6, 8), (2, 48), (B, T), id="flatten"),
    ],
)
def test_regroup(
    flags: Axes, before: tuple[int, ...], after: tuple[int, ...], expected: Axes
) -> None:
    assert regroup(flags, before, after) == expected


@settings(max_examples=60)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_regroup_keeps_every_flag_somewhere(shape: list[int], data: st.DataObject) -> None:
    """The batch remains on one axis, for other shapes of the same size in any order."""
    flags = (B, *data.draw(st.tuples(*[st.sampled_from([0, T])] * (len(shape) - 1))))
    cut = data.draw(st.integers(1, len(shape)))
    after = [*shape[: cut - 1], prod(shape[cut - 1 :])]
    found = regroup(flags, tuple(shape), tuple(after))
    assert len(found) == len(after)
    assert found[0] & B and not any(f & B for f in found[1:])
    alive = any(f & T and n > 1 for f, n in zip(flags, shape, strict=True))
    if alive:
        assert any(f & T for f in found)
    assert regroup(flags, tuple(shape), tuple(shape)) == flags


def flags_of(body: str, x: Array, weights: Mapping[str, Array], names: str) -> list[Axes]:
    """Flags of the named values after a real analysis."""
    axes = analyse_model(opened(proto(body, {"x": x}, weights)), {"x": x}).axes
    known = {value.name: flags for value, flags in axes.items()}
    return [known[name] for name in names.split()]


X = real(2, 6, 8)
ATTENTION = """
    q0 = Reshape(x, cut)  q = Transpose<perm=[0, 2, 1, 3]>(q0)  k = Transpose<perm=[0, 2, 3, 1]>(q0)
    a = MatMul(q, k)  p = Softmax(a)  c = MatMul(p, q)  t = Transpose<perm=[0, 2, 1, 3]>(c)
    m = Reshape(t, join)  y = Add(m, x)
"""


@pytest.mark.parametrize("batch", [1, 2])
def test_attention(batch: int) -> None:
    weights = {"cut": ints(0, 0, 2, 4), "join": ints(0, 0, 8)}
    found = flags_of(ATTENTION, X[:batch], weights, "q0 q k a p c t m y")
    assert found == [
        (B, T, 0, 0),
        (B, 0, T, 0),
        (B, 0, 0, T),
        (B, 0, T, T),
        (B, 0, T, T),
        (B, 0, T, 0),
        (B, T, 0, 0),
        (B, T, 0),
        (B, T, 0),
    ]


@pytest.mark.parametrize("batch", [1, 2])
def test_attention_with_heads_in_the_batch(batch: int) -> None:
    body = """
        q0 = Reshape(x, cut)  q1 = Transpose<perm=[0, 2, 1, 3]>(q0)  q = Reshape(q1, merge)
        k = Transpose<perm=[0, 2, 1]>(q)  a = MatMul(q, k)  p = Softmax(a)  c = MatMul(p, q)
        c1 = Reshape(c, back)  t = Transpose<perm=[0, 2, 1, 3]>(c1)  y = Reshape(t, join)
    """
    weights = {
        "cut": ints(0, 0, 2, 4),
        "merge": ints(-1, 6, 4),
        "back": ints(-1, 2, 6, 4),
        "join": ints(0, 0, 8),
    }
    found = flags_of(body, X[:batch], weights, "q a p c c1 y")
    assert found == [(B, T, 0), (B, T, T), (B, T, T), (B, T, 0), (B, 0, T, 0), (B, T, 0)]


@pytest.mark.parametrize("batch", [1, 2])
def test_projection_with_samples_and_tokens_flattened(batch: int) -> None:
    body = "f = Reshape(x, rows)  h = Gemm(f, w, b)  y = Reshape(h, back)"
    weights = {"rows": ints(-1, 8), "w": real(8, 5), "b": real(5), "back": ints(-1, 6, 5)}
    assert flags_of(body, X[:batch], weights, "f h y") == [(BT, 0), (BT, 0), (B, T, 0)]


def test_windows() -> None:
    """Swin: tokens to a grid, windows cut out, attention inside, and back."""
    body = """
        g = Reshape(x, grid)  w0 = Reshape(g, cut)  w1 = Transpose<perm=[0, 1, 3, 2, 4, 5]>(w0)
        w = Reshape(w1, windows)  k = Transpose<perm=[0, 2, 1]>(w)  a = MatMul(w, k)
        p = Softmax(a)  c = MatMul(p, w)  y = Reshape(c, whole)
    """
    weights = {
        "grid": ints(-1, 4, 4, 8),
        "cut": ints(-1, 2, 2, 2, 2, 8),
        "windows": ints(-1, 4, 8),
        "whole": ints(-1, 16, 8),
    }
    found = flags_of(body, real(2, 16, 8), weights, "g w1 w a y")
    assert found == [(B, T, T, 0), (B, T, T, T, T, 0), (BT, T, 0), (BT, T, T), (B, T, 0)]


def test_patches_of_an_image() -> None:
    body = """
        h = Conv<strides=[2, 2]>(x, w)  r = Reshape(h, row)  t = Transpose<perm=[0, 2, 1]>(r)
        n = Shape<start=0, end=1>(x)  z = Concat<axis=0>(n, one)  c = Expand(cls, z)
        s = Concat<axis=1>(c, t)  f = Gather<axis=1>(s, first)  y = Neg(f)
    """
    weights = {
        "w": real(8, 3, 2, 2),
        "row": ints(0, 8, -1),
        "cls": real(1, 1, 8),
        "one": ints(1, 8),
        "first": ints(0).reshape(()),
    }
    found = flags_of(body, real(2, 3, 6, 6), weights, "x h r t s y")
    assert found == [(B, 0, T, T), (B, 0, T, T), (B, 0, T), (B, T, 0), (B, T, 0), (B, 0)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = ReduceMean(x, one)", (B, T, 0)),
        ("y = ReduceMean<keepdims=0>(x, one)", (B, 0)),
        ("y = Gather<axis=1>(x, first)", (B, 0)),
        ("y = Gather<axis=1>(x, row)", (B, T, 0)),
        ("y = Gather<axis=2>(x, first)", (B, T)),
        ("y = Squeeze(x1, two) x1 = ReduceMax(x, two)", (B, T)),
        ("y = MatMul(x, w)", (B, T, 0)),
        ("y = MatMul(x, column)", (B, T)),
        ("y = Slice(x, first1, one, one)", (B, T, 0)),
        ('y = Einsum<equation="bij,jk->bki">(x, w)', (B, 0, T)),
        ('y = Einsum<equation="bif,bjf->bij">(x, x)', (B, T, T)),
    ],
)
def test_one_operation(body: str, expected: Axes) -> None:
    known = {
        "one": ints(1),
        "two": ints(2),
        "first": ints(0).reshape(()),
        "first1": ints(0),
        "row": ints(0, 2, 4),
        "w": real(8, 5),
        "column": real(8),
    }
    weights = {k: v for k, v in known.items() if f"{k}," in body or f"{k})" in body}
    assert flags_of(body, X, weights, "y") == [expected]


def test_reduced_features_leave_the_tokens() -> None:
    assert flags_of("y = ReduceMean<keepdims=0>(x, two)", X, {"two": ints(2)}, "y") == [(B, T)]


def test_einsum_with_an_ellipsis_keeps_the_tokens() -> None:
    body = 'y = Einsum<equation="...j,jk->...k">(x, w)'
    assert flags_of(body, X, {"w": real(8, 5)}, "y") == [(B, T, 0)]
