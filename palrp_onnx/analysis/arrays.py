"""Properties of arrays of a trial run: masks, variation along tokens, NaN."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.axes import TOKEN
from palrp_onnx.analysis.layout import Axes
from palrp_onnx.types import Array

#: An entry below this switches a score off instead of shifting it.
MASKED = -50.0


def is_mask(array: Array) -> bool:
    """Whether an additive operand only switches scores off: zeros and very negative entries."""
    if not (array < MASKED).any():
        return False
    return not ((array >= MASKED) & (array != 0)).any()


def varying_axes(array: Array, flags: Axes) -> tuple[int, ...]:
    """Token axes (negative, from the right) along which the operand is not constant."""
    found = []
    for axis in range(-min(array.ndim, len(flags)), 0):
        if flags[axis] & TOKEN and array.shape[axis] > 1:
            first = np.take(array, [0], axis=axis)
            if not np.array_equal(np.broadcast_to(first, array.shape), array, equal_nan=True):
                found.append(axis)
    return tuple(found)


def not_a_number(value: ir.Value, trial: Mapping[str, Array]) -> bool:
    """Whether all entries of a value are NaN, as where a quantiser made scales infinite."""
    array = trial.get(value.name or "")
    return array is not None and array.size > 0 and bool(np.isnan(array).all())
