"""Intervals of 95 % by bootstrap: the samples are drawn again, with replacement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.evaluate.perturbation import RESAMPLES

Array = NDArray[Any]


def interval(
    samples: Array, statistic: Callable[[Array], Array], *, seed: int = 0
) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of a statistic over sets drawn from ``samples``.

    Args:
        samples: What every sample contributes [samples, …]; a set's contributions are averaged.
        statistic: Averages [sets, …] → one number a set.
        seed: Of the drawing.
    """
    count = len(samples)
    generator = np.random.default_rng(seed)
    # How often each sample is in each set, so that a set's average is a row times the samples.
    often = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    averages = np.tensordot(often / count, samples, axes=1)
    low, high = np.quantile(statistic(averages), (0.025, 0.975)).tolist()
    return low, high
