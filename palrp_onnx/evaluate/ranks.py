"""Maps held against maps by the order of their units."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from palrp_onnx.evaluate.intervals import crossed_interval
from palrp_onnx.types import Array


class Correlation(Struct, frozen=True, kw_only=True):
    """Mean rank correlation, with its 95 % interval by bootstrap."""

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


def mean_correlation(values: Array, *, seed: int = 0) -> Correlation:
    """Mean of one number a draw and sample [draws, samples]; both are drawn again."""
    low, high = crossed_interval(values, seed=seed)
    return Correlation(value=float(values.mean()), low=low, high=high)
