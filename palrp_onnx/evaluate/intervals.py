"""Intervals of 95 % by bootstrap: the samples are drawn again, with replacement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from palrp_onnx.evaluate.perturbation import RESAMPLES
from palrp_onnx.types import Array


def interval(
    samples: Array, statistic: Callable[[Array], Array], *, seed: int = 0
) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of a statistic over sets drawn from ``samples``.

    Args:
        samples: What every sample contributes [samples, …]; a set's contributions are averaged.
        statistic: Averages [sets, …] → one number a set.
        seed: Of the drawing.
    """
    averages = np.tensordot(_drawn(len(samples), np.random.default_rng(seed)), samples, axes=1)
    return _ends(statistic(averages))


def crossed_interval(values: Array, *, seed: int = 0) -> tuple[float, float]:
    """The same of the mean of ``values`` [draws, samples], where both are drawn again.

    For numbers that depend on a sample and on a random draw that all samples share. Of one draw
    nothing is known but the samples.
    """
    generator = np.random.default_rng(seed)
    samples, draws = (_drawn(size, generator) for size in values.shape[::-1])
    return _ends(np.einsum("rd,ds,rs->r", draws, values, samples, optimize=True))


def _drawn(count: int, generator: np.random.Generator) -> Array:
    """What each of ``count`` weighs in each set, so that a set's average is a row times them."""
    often = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.asarray(often / count)


def _ends(statistics: Array) -> tuple[float, float]:
    low, high = np.quantile(statistics, (0.025, 0.975)).tolist()
    return low, high
