"""Integer products, and fused operations that dequantise their result."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.attention import attention_of
from palrp_onnx.model.lowering.builder import Builder, Fused, length_of
from palrp_onnx.model.lowering.embedding import lengths
from palrp_onnx.model.lowering.norms import layer_norm
from palrp_onnx.model.lowering.quantise import centred, dequantised, measured, quantised
from palrp_onnx.model.lowering.rotary import integers_from
from palrp_onnx.model.lowering.table import lowers


@lowers("MatMulInteger", domain="")
def _matmul_integer(b: Builder, node: Fused) -> Sequence[ir.Value]:
    left = centred(b, node.input(0), node.optional(2), -2)
    return [b.op("MatMul", left, centred(b, node.input(1), node.optional(3), -1))]


@lowers("ConvInteger", domain="")
def _conv_integer(b: Builder, node: Fused) -> Sequence[ir.Value]:
    attributes = {name: each.value for name, each in node.node.attributes.items()}
    image = centred(b, node.input(0), node.optional(2))
    return [b.op("Conv", image, centred(b, node.input(1), node.optional(3), 0), **attributes)]


@lowers("MatMulIntegerToFloat")
def _matmul_integer_to_float(b: Builder, node: Fused) -> Sequence[ir.Value]:
    left = dequantised(b, node.input(0), node.input(2), node.optional(4), -2)
    right = dequantised(b, node.input(1), node.input(3), node.optional(5), -1)
    return [b.total(b.product("MatMul", left, right), node.optional(6))]


@lowers("DynamicQuantizeMatMul")
def _dynamic_quantize_matmul(b: Builder, node: Fused) -> Sequence[ir.Value]:
    x = node.input(0)
    scale, zero = measured(b, x)
    left = dequantised(b, quantised(b, x, scale, zero), scale, zero)
    right = dequantised(b, node.input(1), node.input(2), node.optional(3), -1)
    return [b.total(b.product("MatMul", left, right), node.optional(4))]


@lowers("QAttention")
def _q_attention(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    if node.integer("do_rotary", 0):
        raise NotImplementedError("with rotations inside")
    x = dequantised(b, node.input(0), node.input(3), node.optional(6))
    weights = dequantised(b, node.input(1), node.input(4), node.optional(7), 1)
    packed = b.total(b.product("MatMul", x, weights), node.input(2))
    parts = [length_of(node.input(1), 1) // 3] * 3
    return attention_of(b, node, packed, parts, mask=5, past=8, bias=None)


@lowers("QEmbedLayerNormalization")
def _q_embed_layer_norm(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    def read(index: int, rows: ir.Value | None = None) -> ir.Value:
        """A quantised operand, or some of its rows, dequantised."""
        stored = node.input(index)
        found = stored if rows is None else b.op("Gather", stored, rows, axis=0)
        return dequantised(b, found, node.input(index + 6), node.input(index + 11))

    ids, segments = node.input(0), node.optional(1)
    places = b.unsqueeze(read(3, integers_from(b, b.integer(0), b.size(ids, 1))), 0)
    kinds = None if segments is None else read(4, segments)
    x = b.total(read(2, ids), places, kinds)
    normed = layer_norm(b, x, read(5), read(6), node.real("epsilon", 1e-12))
    return [normed, lengths(b, node) if node.wants(1) else None]
