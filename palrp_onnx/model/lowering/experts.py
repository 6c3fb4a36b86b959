"""Mixtures of experts of ONNX Runtime: a router, and experts of two layers each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.activations import tanh_gelu
from palrp_onnx.model.lowering.builder import END, Builder, Fused, length_of, type_of
from palrp_onnx.model.lowering.low_bits import few_bits, low_bits, same_bytes
from palrp_onnx.model.lowering.quantise import dequantised
from palrp_onnx.model.lowering.table import lowers

_Dense = tuple[ir.Value, "ir.Value | None"]


@lowers("MoE")
def _experts(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """Σ_e g_e (W₂ₑ f(W₁ₑ x + b₁ₑ) + b₂ₑ) over the k most probable experts e."""
    if node.optional(6) is not None:
        raise NotImplementedError("with a third layer, which has no kernel on CPUs")
    layers = (node.input(2), node.optional(3)), (node.input(4), node.optional(5))
    normalised = node.integer("normalize_routing_weights", 0) != 0
    return [_mixture(b, node, *layers, normalised=normalised)]


@lowers("QMoE")
def _quantised_experts(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """The same with weights of few bits, each row or block of which has a scale.

    The kernel on CPUs divides the probabilities by their sum whatever the attribute says.
    """
    if any(node.optional(k) is not None for k in range(8, len(node.node.inputs))):
        raise NotImplementedError("with a third layer, zero points, or weights of the router")
    if node.text("quant_type", "int") != "int":
        raise NotImplementedError("with weights that are no integers")
    first = _dequantised(b, node, 2), node.optional(4)
    second = _dequantised(b, node, 5), node.optional(7)
    return [_mixture(b, node, first, second, normalised=True)]


def _dequantised(b: Builder, node: Fused, index: int) -> ir.Value:
    """Weights [experts, rows, columns] from their numbers and the scales after them."""
    bits = node.integer("expert_weight_bits", 4)
    packed, scales = node.input(index).const_value, node.input(index + 1)
    if packed is None or scales.const_value is None:
        raise NotImplementedError("with weights or scales that are not stored")
    if bits == 8 and scales.const_value.shape.rank() == 3:
        raise NotImplementedError("8-bit weights in blocks, which the kernel rounds once more")
    *outer, last = packed.shape.numpy()
    shape, count = (*outer, last * 8 // bits), scales.const_value.size
    numbers = low_bits(b, node.input(index), bits, count, int(np.prod(shape)) // count)
    zeros = few_bits(b, np.full(count, 1 << (bits - 1), np.uint8), bits)
    flat = same_bytes(b, scales, type_of(scales), (count,))
    factors = b.cast_like(flat, node.input(0))
    return b.reshape(dequantised(b, numbers, factors, zeros, 0), *shape)


def _mixture(
    b: Builder, node: Fused, first: _Dense, second: _Dense, *, normalised: bool
) -> ir.Value:
    """All experts [experts, tokens, features], weighted by a table that is zero for most."""
    if node.integer("use_sparse_mixer", 0):
        raise NotImplementedError("with a sparse mixer")
    x = node.input(0)
    rows = b.unsqueeze(b.reshape(x, -1, length_of(first[0], 2)), 0)
    hidden = _activated(b, node, _dense(b, rows, first))
    results = _dense(b, hidden, second)
    weights = b.unsqueeze(b.transpose(_gates(b, node, normalised=normalised), 1, 0), 2)
    total = b.reduce("ReduceSum", b.op("Mul", results, weights), 0, keepdims=False)
    return b.op("Reshape", total, b.op("Shape", x))


def _gates(b: Builder, node: Fused, *, normalised: bool) -> ir.Value:
    """Probabilities [tokens, experts] of the ``k`` most probable experts, zero elsewhere."""
    scores = node.input(1)
    probable, chosen = b.ops(
        "TopK", 2, b.op("Softmax", scores, axis=1), b.integers(node.integer("k", 1)), axis=1
    )
    if normalised:
        probable = b.op("Div", probable, b.reduce("ReduceSum", probable, 1))
    none = b.op("Expand", b.real(0.0, scores), b.op("Shape", scores))
    return b.op("ScatterElements", none, chosen, probable, axis=1)


def _dense(b: Builder, x: ir.Value, layer: _Dense) -> ir.Value:
    """x Wᵀ + b of every expert: x [1 or experts, tokens, in], W [experts, out, in]."""
    weights, bias = layer
    product = b.op("MatMul", x, b.transpose(weights, 0, 2, 1))
    return product if bias is None else b.op("Add", product, b.unsqueeze(bias, 1))


def _activated(b: Builder, node: Fused, x: ir.Value) -> ir.Value:
    kind = node.text("activation_type", "relu")
    match kind:
        case "relu":
            return b.op("Relu", x)
        case "identity":
            return x
        case "gelu":
            return tanh_gelu(b, x)
        case "silu":
            return b.op("Mul", x, b.op("Sigmoid", x))
        case "swiglu":
            return _swiglu(b, node, x)
    raise NotImplementedError(f"the activation {kind}")


def _swiglu(b: Builder, node: Fused, x: ir.Value) -> ir.Value:
    """g σ(α g) (l + β) with g and l, the even and the odd columns, within limits."""
    if node.integer("swiglu_fusion", 0) != 1:
        raise NotImplementedError("gates that do not alternate with values: no kernel on CPUs")
    step, last, end = b.integers(2), b.integers(-1), b.integers(END)
    gate, value = (b.op("Slice", x, b.integers(k), end, last, step) for k in (0, 1))
    limit = node.real("swiglu_limit", float("inf"))
    if np.isfinite(limit):
        gate = b.op("Clip", gate, None, b.real(limit, x))
        value = b.op("Clip", value, b.real(-limit, x), b.real(limit, x))
    alpha, beta = node.real("activation_alpha", 1.0), node.real("activation_beta", 0.0)
    opened = b.op("Mul", gate, b.op("Sigmoid", b.scale(gate, alpha)))
    return b.op("Mul", opened, b.op("Add", value, b.real(beta, x)) if beta else value)
