"""Value zeroing (Mohebbi et al. 2023): how a layer's results turn without one token's values."""

from __future__ import annotations

import numpy as np

from palrp_onnx.evaluate.baselines.attention import Attention
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.evaluate.baselines.layers import AttentionLayer, find_layers, rolled
from palrp_onnx.types import Array


def value_zeroing(given: BaselineInput) -> Array:
    """Rollout of C with C_ij = 1 − cos(z_i, z_i without the values of j), z the end of a layer.

    The map [B, units] is the row of the explained position (:meth:`Attention.of_target`), the same
    for every class. It takes one pass for every token and layer.

    Raises:
        UsageError: The model has no attention between all tokens, layer after layer.
    """
    attention = Attention(given)
    return rolled(attention, [_turns(given, each) for each in find_layers(given, attention)])


def _turns(given: BaselineInput, layer: AttentionLayer) -> Array:
    """C [B, queries, keys] of one layer."""
    name, end = layer.values.name or "", layer.end.name or ""
    forward = given.engine.forward_from([name], [end])
    values = given.values_of([name])[name]
    whole = forward({**given.feeds, name: values})[end]
    columns = []
    for key in range(values.shape[layer.key]):
        without = values.copy()
        without[(slice(None),) * layer.key + (key,)] = 0.0
        columns.append(_distance(whole, forward({**given.feeds, name: without})[end]))
    return np.stack(columns, axis=-1)


def _distance(one: Array, other: Array) -> Array:
    """1 − cosine along the last axis; 0 where one of both has no length."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    products = (one * other).sum(axis=-1)
    cosines = np.divide(products, lengths, out=np.ones(lengths.shape), where=lengths > 0)
    return np.asarray(np.maximum(1.0 - cosines, 0.0))
