"""From a span of a continued text back to its prompt, over the tokens that were produced between.

A produced token can rest on what the model has written before: its own reasoning. Each hop passes
the mass that arrived at produced tokens on to what these tokens rest on, as their rows of the
matrix say, until all of it is in the prompt.

Source: FlashTrace (Pan et al. 2026, arXiv 2602.01914): attribution of a whole span, and recursion
over the generated tokens, here on the rows of any method instead of information flow routes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palrp_onnx.errors import UsageError
from palrp_onnx.matrix import Matrix
from palrp_onnx.types import Array


@dataclass(frozen=True)
class Trace:
    """Where the mass 1 of a span is after some hops.

    After every hop, what all hops so far brought to ``prompt``, ``start`` and ``lost`` and what the
    last of them left ``between`` make 1.

    Attributes:
        prompt: Mass that each hop brings to the units of the prompt [hops, units].
        start: The same for what the decoder of an encoder begins with [hops, start].
        between: Mass that each hop leaves at produced tokens, for the next one [hops, produced].
        lost: Mass of tokens that rest on nothing, by hop [hops].
    """

    prompt: Array
    start: Array
    between: Array
    lost: Array

    @property
    def total(self) -> Array:
        """Mass of the units of the prompt after all hops [units]."""
        return np.asarray(self.prompt.sum(axis=0))


def trace(matrix: Matrix, first: int, last: int, *, hops: int | None = None) -> Trace:
    """Pass the mass of produced tokens on to what they rest on.

    With A the positive part of the scores, its rows divided by their sums, and w₀ = 1/n at the n
    tokens of the span, hop k has w_k = w_{k−1} A: what arrives at the prompt stays, what arrives at
    produced tokens is passed on by the next hop. A token rests on earlier ones alone, so that
    nothing is left after as many hops as there are tokens.

    Args:
        matrix: A continued text.
        first: First produced token of the span, counted from 0.
        last: Last one.
        hops: Number of times that mass is passed on; 1 for the span's own rows. As many as change
            anything by default.

    Raises:
        UsageError: The span is not within the produced tokens, or there are no hops.
    """
    count = len(matrix.targets)
    if not 0 <= first <= last < count:
        raise UsageError(
            f"{first}-{last} is no span of the produced tokens", hint=f"0-{count - 1} are all."
        )
    if hops is not None and hops < 1:
        raise UsageError(f"hops = {hops} follows nothing", hint="1 for the span's own rows.")
    shares, before = _shares(matrix)
    units = len(shares[0]) - before - count
    mass = np.zeros(count)
    mass[first : last + 1] = 1.0 / (last - first + 1)
    arrived, lost = [], []
    for _ in range(last + 1 if hops is None else hops):
        lost.append(mass[~shares.any(axis=1)].sum())
        arrived.append(mass @ shares)
        mass = arrived[-1][units + before :]
        if hops is None and not mass.any():
            break
    found = np.array(arrived)
    prompt, start, between = np.split(found, [units, units + before], axis=1)
    return Trace(prompt, start, between, np.array(lost))


def _shares(matrix: Matrix) -> tuple[Array, int]:
    """Rows of the sum 1, or of zeros: [produced, prompt, start and produced]; length of start."""
    count = len(matrix.targets)
    read = np.maximum(np.array(matrix.relevance.score, np.float64).reshape(count, -1), 0.0)
    before = len(matrix.earlier.score[0])
    own = np.zeros((count, before + count))
    for row, scores in zip(own, matrix.earlier.score, strict=True):
        row[: len(scores)] = np.maximum(scores, 0.0)
    rows = np.concatenate([read, own], axis=1)
    sums = rows.sum(axis=1, keepdims=True)
    return np.divide(rows, sums, out=np.zeros_like(rows), where=sums > 0), before
