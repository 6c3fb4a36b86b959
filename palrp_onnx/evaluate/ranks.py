"""Maps held against maps by the order of their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from palrp_onnx.attribution import TargetFacts
from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines import Baseline, Competitor
from palrp_onnx.evaluate.intervals import interval
from palrp_onnx.inputs.sample import Sample

Array = NDArray[Any]


class Correlation(Struct, frozen=True, kw_only=True):
    """Mean rank correlation over the samples, with its 95 % interval by bootstrap."""

    value: float
    low: float
    high: float


def spearman(first: Array, second: Array) -> float:
    """Rank correlation of two maps [units]: Pearson's r of their ranks; ties share the mean rank.

    A map whose units are all equal orders nothing; its correlation with any other is 0.
    """
    one, other = (_centred(each) for each in (first, second))
    scale = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / scale if scale else 0.0


def _centred(values: Array) -> Array:
    """Ranks less their mean."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[where.ravel()]
    return np.asarray(ranks - (len(values) + 1) / 2)


def mean_correlation(values: Sequence[float], *, seed: int = 0) -> Correlation:
    """Mean of one number a sample."""
    numbers = np.asarray(values, np.float64)
    low, high = interval(numbers, lambda means: means, seed=seed)
    return Correlation(value=float(numbers.mean()), low=low, high=high)


def explained(
    competitor: Competitor,
    sample: Sample,
    target: str,
    labels: Mapping[int, str] | None = None,
) -> tuple[str, Array]:
    """The target, spelled out so that any model takes the same, and the map [units] of it.

    Raises:
        UsageError: The input holds several rows.
    """
    if isinstance(competitor, Baseline):
        found = competitor.explain(sample, target, labels)
    else:
        records = [each.record for each in competitor.explain(sample, target, labels)]
        found = [(record.target, np.array(record.relevance.total)) for record in records]
    if len(found) != 1:
        raise UsageError(
            f"Each input holds one sample, not {len(found)}",
            place=sample.id,
            hint="Give every row a file of its own.",
        )
    facts, relevance = found[0]
    return _spelled(facts, target), relevance


def _spelled(facts: TargetFacts, asked: str) -> str:
    if facts.kind == "token":
        return f"token:{facts.position}:{facts.index}"
    return str(facts.index) if isinstance(facts.index, int) else asked
