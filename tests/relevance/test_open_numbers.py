"""Open numbers of methods over their whole range: books that close, linearity, both engines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from both_engines import check_engines
from building import Array, again, floats, ints, opened, proto, real, walk
from hypothesis import given, settings
from hypothesis import strategies as st

from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.methods import METHODS

#: Layers before, in and behind attention, a convolution along the tokens among them.
BODY = """
    h = MatMul(x, w)  hb = Add(h, b)  g = Relu(hb)
    q = MatMul(g, wq)  k0 = MatMul(g, wk)  k = Transpose<perm = [0, 2, 1]>(k0)  a = MatMul(q, k)
    s = Softmax<axis = -1>(a)  v = MatMul(g, wv)  o = MatMul(s, v)  r = Add(g, o)
    t = Transpose<perm = [0, 2, 1]>(r)  c = Conv<pads = [1, 1]>(t, kernel, kb)  e = Tanh(c)
    y0 = ReduceMean<keepdims = 0>(e, axis)  y = Mul(y0, three)
"""
WEIGHTS: Mapping[str, Array] = {
    **{name: real(4, 4, seed=k) for k, name in enumerate(("w", "wq", "wk", "wv"), 20)},
    "b": real(4, seed=30),
    "kernel": real(3, 4, 3, seed=31),
    "kb": real(3, seed=32),
    "axis": ints(2),
    "three": floats(3.0),
}
X = real(2, 5, 4, seed=3)
FEEDS = {"x": X}
OPEN = sorted(name for name, each in METHODS.items() if each.parameters)
#: Numbers that name a token; the model here has none.
IDS = {"baseline"}
#: Between the ends of every range, each end included: 0 is the least, 1 the most.
PLACES = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


def at(name: str, places: Mapping[str, float]) -> Method:
    """A method with its numbers at these places of their ranges, in equal ratios."""
    numbers = {}
    for key, each in METHODS[name].parameters.items():
        if key in IDS:
            continue
        low = max(each.low, each.high * 1e-6)
        number = low * (each.high / low) ** places[key]
        numbers[key] = each.low if places[key] == 0 else min(number, each.high)
    return METHODS[name].having(**numbers)


@st.composite
def methods(draw: st.DrawFn) -> Method:
    name = draw(st.sampled_from(OPEN))
    return at(name, {key: draw(PLACES) for key in METHODS[name].parameters})


@pytest.mark.parametrize("name", OPEN)
def test_ends_are_reached(name: str) -> None:
    for place, end in ((0.0, "low"), (1.0, "high")):
        found = at(name, dict.fromkeys(METHODS[name].parameters, place))
        for key, number in found.numbers.items():
            assert key in IDS or number == getattr(found.parameters[key], end)


@given(asked=methods(), seed=st.integers(0, 10_000), factor=st.floats(-3, 3))
def test_books_close_and_relevance_is_linear_in_the_seed(
    asked: Method, seed: int, factor: float
) -> None:
    found = walk(opened(proto(BODY, FEEDS, WEIGHTS)), FEEDS, method=asked)
    assert found.residual < 1e-10
    other = np.random.default_rng(seed).normal(size=found.seed.shape)
    parts = found.content, again(found.engine, FEEDS, other).content
    whole = again(found.engine, FEEDS, found.seed + factor * other)
    scale = sum(np.abs(part).max() for part in parts)
    np.testing.assert_allclose(
        whole.content, parts[0] + factor * parts[1], rtol=1e-9, atol=1e-9 * scale
    )
    assert whole.residual < 1e-10


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("place", [0.0, 1.0])
def test_both_engines_agree_at_the_ends(name: str, place: float) -> None:
    check_engines(
        opened(proto(BODY, FEEDS, WEIGHTS)),
        FEEDS,
        at(name, dict.fromkeys(METHODS[name].parameters, place)),
    )


@settings(max_examples=15)
@given(asked=methods())
def test_both_engines_agree_between(asked: Method) -> None:
    check_engines(opened(proto(BODY, FEEDS, WEIGHTS)), FEEDS, asked)
