"""Statistics of evaluations: correlations, and intervals of 95 % by bootstrap.

An interval holds the middle 95 % of what a statistic is over sets of samples that are drawn from
the samples again, with replacement, as many as there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from palrp_onnx.types import Array

#: How many sets are drawn.
RESAMPLES = 1000


class Estimate(Struct, frozen=True, kw_only=True):
    """A figure over a data set, with its 95 % interval by bootstrap."""

    value: float
    low: float
    high: float


class Area(Struct, frozen=True, kw_only=True):
    """Area under the mean of a curve over the samples, with its 95 % interval by bootstrap."""

    area: float
    low: float
    high: float
    curve: list[float]

    @classmethod
    def of(cls, curves: Array, areas: Array, interval: tuple[float, float]) -> Area:
        """From curves [samples, steps], the areas under them [samples] and the interval."""
        low, high = interval
        curve = curves.mean(axis=0).tolist()
        return cls(area=float(areas.mean()), low=low, high=high, curve=curve)


def interval(
    samples: Array, statistic: Callable[[Array], Array], *, seed: int = 0
) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of a statistic over sets drawn from ``samples``.

    Args:
        samples: What every sample contributes [samples, …]; a set's contributions are averaged.
        statistic: Averages [sets, …] → one number a set.
        seed: Of the drawing.
    """
    averages = np.tensordot(_weights(len(samples), np.random.default_rng(seed)), samples, axes=1)
    return _ends(statistic(averages))


def crossed_interval(values: Array, *, seed: int = 0) -> tuple[float, float]:
    """The same of the mean of ``values`` [draws, samples], where both are drawn again.

    For numbers that depend on a sample and on a random draw that all samples share. Of one draw
    nothing is known but the samples.
    """
    generator = np.random.default_rng(seed)
    samples, draws = (_weights(size, generator) for size in values.shape[::-1])
    return _ends(np.einsum("rd,ds,rs->r", draws, values, samples, optimize=True))


def mean_interval(values: Array, *, seed: int = 0) -> tuple[float, float]:
    """The same of the mean of ``values`` [samples], drawn one by one.

    `interval` would draw other sets, and move the last digits of figures that are published.
    """
    generator = np.random.default_rng(seed)
    return _ends(generator.choice(values, size=(RESAMPLES, len(values))).mean(axis=1))


def _weights(count: int, generator: np.random.Generator) -> Array:
    """What each of ``count`` weighs in each set, so that a set's average is a row times them."""
    often = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.asarray(often / count)


def _ends(statistics: Array) -> tuple[float, float]:
    low, high = np.quantile(statistics, (0.025, 0.975)).tolist()
    return low, high


def crossed_mean(values: Array, *, seed: int = 0) -> Estimate:
    """Mean of one number a draw and sample [draws, samples]; both are drawn again."""
    low, high = crossed_interval(values, seed=seed)
    return Estimate(value=float(values.mean()), low=low, high=high)


def quartiles(numbers: Sequence[float] | Array) -> tuple[float, float, float]:
    """The 25 %, 50 % and 75 % quantiles."""
    low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def ranks(values: Array) -> Array:
    """Ranks [n] from 1 on; equal values share the mean of theirs."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where.ravel()], np.float64)


def pearson(a: Array, b: Array) -> float | None:
    """Σ(a − ā)(b − b̄) / √(Σ(a − ā)² Σ(b − b̄)²); ``None`` where one does not vary."""
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    # Scaled first, so that squares of very small or large relevance stay numbers.
    a, b = ((each - each.mean()) / np.ptp(each) for each in (a, b))
    value = float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    return min(1.0, max(-1.0, value))


def spearman(a: Array, b: Array) -> float | None:
    """Rank correlation of two maps [units]: Pearson's r of their ranks.

    ``None`` where one orders nothing, as all its units are equal.
    """
    return pearson(ranks(a), ranks(b))
