"""Word, position and segment tables, their sum and its norm, in one operation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from palrp_onnx.graph.lowering.builder import Builder, Fused
from palrp_onnx.graph.lowering.norms import layer_norm
from palrp_onnx.graph.lowering.rotary import counted
from palrp_onnx.graph.lowering.table import lowers


@lowers("EmbedLayerNormalization")
def _embed_layer_norm(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    ids = node.input(0)
    words = b.op("Gather", node.input(2), ids, axis=0)
    positions = node.optional(8)
    if positions is None:
        rows = b.op("Gather", node.input(3), counted(b, b.integer(0), b.size(ids, 1)), axis=0)
        places = b.unsqueeze(rows, 0)
    else:
        places = b.op("Gather", node.input(3), positions, axis=0)
    segments = node.optional(1)
    table = node.optional(4)
    kinds = None
    if segments is not None and table is not None:
        kinds = b.op("Gather", table, segments, axis=0)
    x = b.total(words, places, kinds)
    normed = layer_norm(b, x, node.input(5), node.input(6), node.real("epsilon", 1e-12))
    return [normed, lengths(b, node) if node.wants(1) else None, x]


def lengths(b: Builder, node: Fused) -> ir.Value:
    """How many tokens of every row are not masked [B]; 0 where there is no mask."""
    mask = node.optional(7)
    if mask is None:
        batch = b.slice(b.op("Shape", node.input(0)), 0, 1, 0)
        return b.op("Expand", b.array(np.zeros(1, np.int32)), batch)
    total = b.reduce("ReduceSum", b.cast(mask, ir.DataType.INT32), 1, keepdims=False)
    return b.cast(total, ir.DataType.INT32)
