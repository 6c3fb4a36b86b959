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
    return b.total(b.op("Mul", _standard(b, x, epsilon), gamma), beta)


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
    """γ ∘ (x − μ)/√(σ² + ε) + β; before opset 21, γ and β have one number for every group."""
    x, gamma, beta = node.input(0), node.input(1), node.input(2)
    groups, epsilon = node.integer("num_groups"), node.real("epsilon", 1e-5)
    if b.opset >= 21:
        return [_scaled(b, _grouped(b, x, groups, epsilon), gamma, beta)]
    rows = b.reshape(x, 0, groups, -1)
    return [b.op("Reshape", _scaled(b, _standard(b, rows, epsilon), gamma, beta), b.op("Shape", x))]


@lowers("GroupNorm", "SkipGroupNorm")
def _grouped_images(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    """The same in ONNX Runtime: one γ and β a channel, channels last or first, f behind it."""
    x, rank = node.input(0), rank_of(node.input(0))
    last = node.integer("channels_last", 1) != 0
    front, back = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
    if node.op_type == "SkipGroupNorm":
        x = b.total(x, _each_place(b, node.input(3), rank, last=last), node.optional(4))
        if node.optional(4) is not None and not last:
            raise NotImplementedError("with a bias of channels that are not last")
    groups, epsilon = node.integer("groups"), node.real("epsilon", 1e-5)
    normed = _grouped(b, b.transpose(x, *front) if last else x, groups, epsilon)
    scaled = _scaled(b, normed, b.cast_like(node.input(1), x), b.cast_like(node.input(2), x))
    if node.integer("activation", 0):
        scaled = b.op("Mul", scaled, b.op("Sigmoid", scaled))
    return [b.transpose(scaled, *back) if last else scaled, x]


def _each_place(b: Builder, skip: ir.Value, rank: int, *, last: bool) -> ir.Value:
    """Numbers for every place, or for every channel [N, C], which are the same at every place."""
    if rank_of(skip) == rank:
        return skip
    if rank_of(skip) != 2:
        raise NotImplementedError("a residual that is neither for places nor for channels")
    return b.unsqueeze(skip, *(range(1, rank - 1) if last else range(2, rank)))


def _grouped(b: Builder, x: ir.Value, groups: int, epsilon: float) -> ir.Value:
    """(x − μ)/√(σ² + ε) with statistics over the channels of a group and all places."""
    rows = _standard(b, b.reshape(x, 0, groups, -1), epsilon)
    return b.op("Reshape", rows, b.op("Shape", x))


def _standard(b: Builder, rows: ir.Value, epsilon: float) -> ir.Value:
    """(x − μ)/√(σ² + ε) over the last axis."""
    centred = b.op("Sub", rows, b.reduce("ReduceMean", rows, -1))
    variance = b.reduce("ReduceMean", b.op("Mul", centred, centred), -1)
    root = b.op("Sqrt", b.op("Add", variance, b.real(epsilon, rows)))
    return b.op("Div", centred, root)


def _scaled(b: Builder, x: ir.Value, gamma: ir.Value, beta: ir.Value) -> ir.Value:
    """γ ∘ x + β with one number of each for every entry of the second axis."""
    places = list(range(1, rank_of(x) - 1))
    scaled = b.op("Mul", x, b.unsqueeze(gamma, *places) if places else gamma)
    return b.op("Add", scaled, b.unsqueeze(beta, *places) if places else beta)


@lowers("SimplifiedLayerNormalization", domain="")
@lowers("SimplifiedLayerNormalization")
def _rms_norm(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    if rank_of(node.input(1)) != 1:  # γ has the axes of the statistics
        raise NotImplementedError("over more than one axis")
    return rms_norm(b, node.input(0), node.input(1), node.real("epsilon", 1e-5))
