"""Relevance of attention, weighed by its gradient (Chefer et al. 2021, beyond visualisation)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palrp_onnx.evaluate.baselines.attention import Attention, identity
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.relevance.methods import METHODS
from palrp_onnx.types import Array

#: α1-rule at layers, normalised sums, halves at products; relevance passes the softmax.
_RULES = replace(METHODS["attnlrp"], name="tibav", rules=("alpha",))


def tibav(given: BaselineInput) -> Array:
    """Ā_L … Ā_1 with Ā = I + mean over the heads of (∇A ∘ R_A)⁺, R_A = A ∘ m its relevance.

    The map [B, units] is the row of the explained position (:meth:`Attention.of_target`).

    Raises:
        UsageError: The model has no attention between all tokens.
        UnsupportedError: Samples share an axis with tokens, or a rule does not cover an operation.
    """
    attention = Attention(given)
    names = [attention.name(place) for place in range(len(attention.operands))]
    multipliers = given.multipliers_under(_RULES, names)
    joint = identity(attention.probabilities[0])
    for place, name in enumerate(names):
        heads = attention.probabilities[place]
        found = multipliers.get(name)
        multiplier = np.zeros(heads.shape) if found is None else attention.square(place, found)
        weighed = np.maximum(attention.slopes[place] * heads * multiplier, 0.0)
        joint = joint + weighed.mean(axis=1, dtype=np.float64) @ joint
    return attention.of_target(joint)
