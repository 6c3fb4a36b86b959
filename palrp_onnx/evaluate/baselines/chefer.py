"""Gradient-weighted attention (Chefer et al. 2021, generic explainability, self-attention)."""

from __future__ import annotations

import numpy as np

from palrp_onnx.evaluate.baselines.attention import Attention, identity
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.types import Array


def chefer(given: BaselineInput) -> Array:
    """R ← R + Ā R from R = I, layer after layer, with Ā the mean over heads of (∇A ∘ A)⁺.

    The map [B, units] is the row of the explained position (:meth:`Attention.of_target`).

    Raises:
        UsageError: The model has no attention between all tokens.
    """
    attention = Attention(given)
    relevance = identity(attention.probabilities[0])
    for heads, slopes in zip(attention.probabilities, attention.slopes, strict=True):
        weighed = np.maximum(heads * slopes, 0.0).mean(axis=1, dtype=np.float64)
        relevance = relevance + weighed @ relevance
    return attention.of_target(relevance)
