"""Statistics of evaluations: correlations, and 95 % intervals by bootstrap.

An interval holds the central 95 % of a statistic over resampled sets, each of as many samples as
there are, drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from palrp_onnx.types import Array

#: Number of resampled sets.
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
        samples: Contribution of every sample [samples, …]; those of a set are averaged.
        statistic: Averages [sets, …] → one number per set.
        seed: Seed of the random sets.
    """
    return _ends(statistic(resampled(samples, seed=seed)))


def resampled(samples: Array, *, seed: int = 0) -> Array:
    """Averages [sets, …] over sets drawn from ``samples`` [samples, …]."""
    weights = _weights(len(samples), np.random.default_rng(seed))
    return np.asarray(np.tensordot(weights, samples, axes=1))


def crossed_interval(values: Array, *, seed: int = 0) -> tuple[float, float]:
    """The interval of the mean of ``values`` [draws, samples]; draws and samples are resampled.

    For numbers that depend on a sample and on a random draw that all samples share. With a single
    draw the interval covers the samples alone.
    """
    generator = np.random.default_rng(seed)
    samples, draws = (_weights(size, generator) for size in values.shape[::-1])
    return _ends(np.einsum("rd,ds,rs->r", draws, values, samples, optimize=True))


def mean_interval(values: Array, *, seed: int = 0) -> tuple[float, float]:
    """The interval of the mean of ``values`` [samples], drawn one by one.

    `interval` would draw other sets, which would change the last digits of published figures.
    """
    generator = np.random.default_rng(seed)
    return _ends(generator.choice(values, size=(RESAMPLES, len(values))).mean(axis=1))


def _weights(count: int, generator: np.random.Generator) -> Array:
    """Weights [sets, count] of samples in resampled sets: a row times the samples is an average."""
    often = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.asarray(often / count)


def _ends(statistics: Array) -> tuple[float, float]:
    low, high = np.quantile(statistics, (0.025, 0.975)).tolist()
    return low, high


def crossed_mean(values: Array, *, seed: int = 0) -> Estimate:
    """Mean of ``values`` [draws, samples] with its interval; draws and samples are resampled."""
    low, high = crossed_interval(values, seed=seed)
    return Estimate(value=float(values.mean()), low=low, high=high)


def quartiles(numbers: Sequence[float] | Array) -> tuple[float, float, float]:
    """The 25 %, 50 % and 75 % quantiles."""
    low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def ranks(values: Array) -> Array:
    """Ranks [n], starting with 1; equal values have the mean of their ranks."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[where.ravel()], np.float64)


def pearson(a: Array, b: Array) -> float | None:
    """Σ(a − ā)(b − b̄) / √(Σ(a − ā)² Σ(b − b̄)²); ``None`` if one of them is constant."""
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    # Scaled first, so that squares of very small or large relevance do not under- or overflow.
    a, b = ((each - each.mean()) / np.ptp(each) for each in (a, b))
    value = float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    return min(1.0, max(-1.0, value))


def spearman(a: Array, b: Array) -> float | None:
    """Rank correlation of two maps [units]: Pearson's r of their ranks.

    ``None`` if one of them is constant.
    """
    return pearson(ranks(a), ranks(b))
