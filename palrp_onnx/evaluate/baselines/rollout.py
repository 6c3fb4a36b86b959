"""Attention rollout (Abnar & Zuidema 2020)."""

from __future__ import annotations

import numpy as np

from palrp_onnx.evaluate.baselines.attention import Attention, identity
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.types import Array


def rollout(given: BaselineInput) -> Array:
    """Ã_L … Ã_1 with Ã = ½ A + ½ I, rows normalised to the sum 1, A the mean over the heads.

    The map [B, units] is the row of the explained position (:meth:`Attention.of_target`). It is the
    same for every class.

    Raises:
        UsageError: The model has no attention between all tokens.
    """
    attention = Attention(given)
    joint = identity(attention.probabilities[0])
    for heads in attention.probabilities:
        mixed = 0.5 * heads.mean(axis=1, dtype=np.float64) + 0.5 * identity(heads)
        joint = mixed / mixed.sum(axis=-1, keepdims=True) @ joint
    return attention.of_target(joint)
