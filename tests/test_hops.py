"""Mass of a span on its way to the prompt, against an enumeration of all paths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from recorded import MODEL, RUN

from palrp_onnx.errors import UsageError
from palrp_onnx.explanations import Generated
from palrp_onnx.hops import trace
from palrp_onnx.matrix import Matrix, TokenRows
from palrp_onnx.record import InputFacts, TargetFacts, Units

pytestmark = pytest.mark.quick


def matrix(read: Sequence[Sequence[float]], own: Sequence[Sequence[float]]) -> Matrix:
    """A continued text with these scores, and others under every other name."""

    def rows(scores: Sequence[Sequence[float]]) -> TokenRows:
        kept = [list(row) for row in scores]
        other = [[-1.0] * len(row) for row in kept]
        return TokenRows(content=other, position=other, total=other, score=kept)

    begun = len(own[0])
    return Matrix(
        id="s",
        model=MODEL,
        run=RUN,
        input=InputFacts(kind="text", text="t"),
        prompt=Units(kind="token", text=["u"] * len(read[0])),
        produced=Units(kind="token", text=["p"] * len(read)),
        targets=[TargetFacts(output="y", kind="token", index=0, value=1.0)] * len(read),
        relevance=rows(read),
        earlier=rows(own),
        ledgers=[{"target": 1.0}] * len(read),
        warnings=[],
        start=Units(kind="token", text=["<s>"] * begun) if begun else UNSET,
    )


def random(seed: int, units: int, count: int, begun: int) -> Matrix:
    draw = np.random.default_rng(seed)
    read = draw.normal(size=(count, units)).tolist()
    return matrix(read, [draw.normal(size=begun + k).tolist() for k in range(count)])


def paths(found: Matrix, token: int, hop: int) -> list[tuple[int, str, int, float]]:
    """Every way of the mass of a token: (hop of arrival, where, index, mass)."""
    begun = len(found.earlier.score[0])
    scores = [*found.relevance.score[token], *found.earlier.score[token]]
    positive = [max(score, 0.0) for score in scores]
    whole, units = sum(positive), len(found.relevance.score[token])
    if whole == 0:
        return [(hop, "lost", 0, 1.0)]
    ways = []
    for index, share in enumerate(positive):
        place, part = index, share / whole
        if index < units:
            ways.append((hop, "prompt", place, part))
        elif index < units + begun:
            ways.append((hop, "start", place - units, part))
        else:
            ways += [
                (h, w, i, part * m) for h, w, i, m in paths(found, index - units - begun, hop + 1)
            ]
    return ways


SIZES = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2))


@given(seed=st.integers(0, 1000), sizes=SIZES, ends=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_mass_goes_every_way_that_it_can(
    seed: int, sizes: tuple[int, int, int], ends: tuple[int, int]
) -> None:
    found = random(seed, *sizes)
    first, last = sorted(end % sizes[1] for end in ends)
    ours = trace(found, first, last)
    expected = {name: np.zeros_like(getattr(ours, name)) for name in ("prompt", "start", "lost")}
    for token in range(first, last + 1):
        for hop, where, index, mass in paths(found, token, 0):
            if mass:
                place = hop if where == "lost" else (hop, index)
                expected[where][place] += mass / (last - first + 1)
    for name, array in expected.items():
        np.testing.assert_allclose(getattr(ours, name), array, atol=1e-12)
    np.testing.assert_allclose(ours.total, expected["prompt"].sum(axis=0), atol=1e-12)


@given(seed=st.integers(0, 1000), sizes=SIZES, hops=st.integers(1, 8))
def test_the_mass_of_every_hop_is_one(seed: int, sizes: tuple[int, int, int], hops: int) -> None:
    found = trace(random(seed, *sizes), 0, sizes[1] - 1, hops=hops)
    assert len(found.prompt) == hops
    arrived = (
        each.reshape(hops, -1).sum(axis=1) for each in (found.prompt, found.start, found.lost)
    )
    settled = np.cumsum(sum(arrived))
    np.testing.assert_allclose(settled + found.between.sum(axis=1), 1.0, rtol=1e-12)


def test_reasoning_leads_to_the_prompt() -> None:
    """The answer reads the reasoning alone, which reads the second word: two hops."""
    found = matrix([[0, 3, 0], [0.5, 0, -2]], [[], [4.5]])
    one, all_ = (trace(found, 1, 1, hops=hops) for hops in (1, None))
    np.testing.assert_allclose(one.total, [0.1, 0, 0])
    np.testing.assert_allclose(one.between, [[0.9, 0]])
    np.testing.assert_allclose(all_.total, [0.1, 0.9, 0])
    np.testing.assert_allclose(Generated([], found).trace(1, 1).total, all_.total)


def test_what_is_no_span() -> None:
    found = random(0, 2, 3, 0)
    for first, last in ((2, 1), (-1, 1), (0, 3)):
        with pytest.raises(UsageError, match="no span of the produced tokens"):
            trace(found, first, last)
    with pytest.raises(UsageError, match="hops = 0"):
        trace(found, 0, 1, hops=0)
