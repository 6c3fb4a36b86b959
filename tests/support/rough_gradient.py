"""The gradient through ONNX Runtime, for operations that the onnx package does not compute."""

from __future__ import annotations

import numpy as np
from building import Array, Walk


def rough_gradient(found: Walk, step: float = 1.0) -> Array:
    """Central difference of Σ seed ∘ y in float32; linear operations bear a large step."""
    slopes = np.empty(found.x.shape)
    for k in np.ndindex(*found.x.shape):
        above, below = found.x.copy(), found.x.copy()
        above[k] += step
        below[k] -= step
        rise = found.output(above).astype(np.float64) - found.output(below)
        slopes[k] = (rise * found.seed).sum() / (2 * step)
    return slopes
