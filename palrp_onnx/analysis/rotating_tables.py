"""Tables whose columns turn with their rows: sinusoids and rotations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-3
#: Rows at the end of a trial run's tables that padding may have changed.
PADDED = 2


def turns(table: NDArray[Any]) -> bool:
    """Whether every column of ``table`` [rows, columns] is a sinusoid of its row.

    A sinusoid obeys f(t+1) + f(t−1) = 2 cos(ω) f(t). So does a ramp, with ω = 0, and slow sinusoids
    come close to one; at least one column must therefore turn noticeably.
    """
    rows = table[: len(table) - PADDED] if len(table) > PADDED + 3 else table
    if len(rows) < 4:
        return False
    middle = rows[1:-1].astype(np.float64)
    around = rows[2:].astype(np.float64) + rows[:-2].astype(np.float64)
    power = (middle**2).sum(axis=0)
    scale = np.sqrt(power.max())
    if scale == 0:
        return False
    factor = np.divide(
        (around * middle).sum(axis=0), power, out=np.zeros_like(power), where=power > 0
    )
    misfit = np.sqrt(((around - factor * middle) ** 2).sum(axis=0))
    if misfit.max() > _TOLERANCE * scale or np.abs(factor).max() > 2 + _TOLERANCE:
        return False
    large = power > (_TOLERANCE * scale) ** 2
    return bool((np.abs(factor[large]) < 2 - _TOLERANCE).any())
