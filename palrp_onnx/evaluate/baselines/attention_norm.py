"""Attention weighed by the norm of what it moves (Kobayashi et al. 2020)."""

from __future__ import annotations

import numpy as np

from palrp_onnx.evaluate.baselines.attention import Attention
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.evaluate.baselines.layers import AttentionLayer, find_layers, rolled
from palrp_onnx.types import Array


def attention_norm(given: BaselineInput) -> Array:
    """Rollout of N with N_ij = ‖Σ_heads A_ij f(x_j)‖, f the values and the layer after them.

    The vectors of one key are the layer's result with all other values set to zero, less its bias.
    The map [B, units] is the row of the explained position (:meth:`Attention.of_target`), the same
    for every class; as in rollout half of every layer is the identity.

    Raises:
        UsageError: The model has no attention between all tokens, layer after layer.
    """
    attention = Attention(given)
    return rolled(attention, [_norms(given, each) for each in find_layers(given, attention)])


def _norms(given: BaselineInput, layer: AttentionLayer) -> Array:
    """N [B, queries, keys] of one layer."""
    name, result = layer.values.name or "", layer.added.name or ""
    forward = given.engine.forward_from([name], [result])
    values = given.values_of([name])[name]
    nothing = forward({**given.feeds, name: np.zeros_like(values)})[result]
    columns = []
    for key in range(values.shape[layer.key]):
        kept = np.zeros_like(values)
        at = (slice(None),) * layer.key + (key,)
        kept[at] = values[at]
        moved = forward({**given.feeds, name: kept})[result] - nothing
        columns.append(np.linalg.norm(moved.astype(np.float64), axis=-1))
    return np.stack(columns, axis=-1)
