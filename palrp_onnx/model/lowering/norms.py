"""Normalisation layers of ONNX Runtime, with the residual sum before them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused, rank_of
from palrp_onnx.model.lowering.table import lowers


def layer_norm(
    b: Builder, x: ir.Value, gamma: ir.Value, beta: ir.Value | None, epsilon: float
) -> ir.Value:
    """γ ∘ (x − μ)/√(σ² + ε) + β over the last axis."""
    if b.opset >= 17:
        return b.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=epsilon)
    centred = b.op("Sub", x, b.reduce("ReduceMean", x, -1))
    variance = b.reduce("ReduceMean", b.op("Mul", centred, centred), -1)
    root = b.op("Sqrt", b.op("Add", variance, b.real(epsilon, x)))
    return b.total(b.op("Mul", b.op("Div", centred, root), gamma), beta)


def rms_norm(b: Builder, x: ir.Value, gamma: ir.Value, epsilon: float) -> tuple[ir.Value, ir.Value]:
    """γ ∘ x / √(mean(x²) + ε) over the last axis, and 1 / √(mean(x²) + ε)."""
    wide = b.cast(x, ir.DataType.FLOAT)
    mean = b.reduce("ReduceMean", b.op("Mul", wide, wide), -1)
    root = b.op("Sqrt", b.op("Add", mean, b.real(epsilon, wide)))
    normed = b.cast_like(b.op("Div", wide, root), gamma)
    return b.op("Mul", normed, gamma), b.op("Reciprocal", root)


@lowers("SkipLayerNormalization")
def _skip_layer_norm(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    x = b.total(node.input(0), node.input(1), node.optional(4))
    normed = layer_norm(b, x, node.input(2), node.optional(3), node.real("epsilon", 1e-12))
    return _with_sum(node, normed, x)


@lowers("SkipSimplifiedLayerNormalization")
def _skip_rms_norm(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    x = b.total(node.input(0), node.input(1), node.optional(3))
    normed, _ = rms_norm(b, x, node.input(2), node.real("epsilon", 1e-12))
    return _with_sum(node, normed, x)


def _with_sum(node: Fused, normed: ir.Value, x: ir.Value) -> Sequence[ir.Value | None]:
    if node.wants(1) or node.wants(2):
        raise NotImplementedError("its mean and deviation are read")
    return [normed, None, None, x]


@lowers("GroupNormalization", domain="")
def _group_norm(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """γ ∘ (x − μ)/√(σ² + ε) + β with statistics over the channels of a group and all places."""
    x, groups = node.input(0), node.integer("num_groups")
    rows = b.reshape(x, 0, groups, -1)
    centred = b.op("Sub", rows, b.reduce("ReduceMean", rows, -1))
    variance = b.reduce("ReduceMean", b.op("Mul", centred, centred), -1)
    root = b.op("Sqrt", b.op("Add", variance, b.real(node.real("epsilon", 1e-5), x)))
    normed = b.op("Div", centred, root)
    gamma, beta = node.input(1), node.input(2)
    spatial = list(range(1, rank_of(x) - 1))
    if b.opset < 21:  # γ and β have one number for every group
        normed = b.op("Mul", normed, b.unsqueeze(gamma, 1))
        normed = b.op("Add", normed, b.unsqueeze(beta, 1))
        return [b.op("Reshape", normed, b.op("Shape", x))]
    whole = b.op("Reshape", normed, b.op("Shape", x))
    scaled = b.op("Mul", whole, b.unsqueeze(gamma, *spatial))
    return [b.op("Add", scaled, b.unsqueeze(beta, *spatial))]


@lowers("SimplifiedLayerNormalization", domain="")
@lowers("SimplifiedLayerNormalization")
def _rms_norm(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    if rank_of(node.input(1)) != 1:  # γ has the axes of the statistics
        raise NotImplementedError("over more than one axis")
    return rms_norm(b, node.input(0), node.input(1), node.real("epsilon", 1e-5))
