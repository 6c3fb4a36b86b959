"""Layers of images: convolutions fused with what follows, channels last, norms of places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.activations import activated
from palrp_onnx.model.lowering.builder import Builder, Fused, rank_of
from palrp_onnx.model.lowering.table import lowers


def channels_first(b: Builder, x: ir.Value) -> ir.Value:
    """[batch, places …, channels] → [batch, channels, places …]."""
    rank = rank_of(x)
    return b.transpose(x, 0, rank - 1, *range(1, rank - 1))


def channels_last(b: Builder, x: ir.Value, rank: int) -> ir.Value:
    """[batch, channels, places …] → [batch, places …, channels]."""
    return b.transpose(x, 0, *range(2, rank), 1)


@lowers("FusedConv")
def _fused_conv(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """f(conv(x, W) + b + z)."""
    return [convolved(b, node, node.input(0), node.input(1), node.optional(3))]


@lowers("NhwcFusedConv")
def _nhwc_fused_conv(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """The same with channels last; the weights have the layout of the standard."""
    x, rest = node.input(0), node.optional(3)
    first = None if rest is None else channels_first(b, rest)
    result = convolved(b, node, channels_first(b, x), node.input(1), first)
    return [channels_last(b, result, rank_of(x))]


def convolved(
    b: Builder, node: Fused, x: ir.Value, weights: ir.Value, rest: ir.Value | None
) -> ir.Value:
    """f(conv(x, W) + b + rest) with the bias, the windows and the activation f of ``node``."""
    windows = node.attributes("activation", "activation_params")
    result = b.op("Conv", x, weights, node.optional(2), **windows)
    given = node.node.attributes.get("activation_params")
    numbers = given.as_floats() if given is not None else ()
    return activated(b, b.total(result, rest), node.text("activation", ""), numbers)


@lowers("NhwcMaxPool")
def _nhwc_max_pool(b: Builder, node: Fused) -> Sequence[ir.Value]:
    x = node.input(0)
    pooled = b.op("MaxPool", channels_first(b, x), **node.attributes())
    return [channels_last(b, pooled, rank_of(x))]


@lowers("LRN", domain="")
def _local_response(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """x / (k + α/n Σ x²)^β, the sum over n neighbouring channels at the same place.

    Written as a quotient, whose denominator is a statistic.
    """
    x, size = node.input(0), node.integer("size")
    squares = b.unsqueeze(b.reshape(b.op("Mul", x, x), 0, 0, -1), 1)
    mean = b.op(
        "AveragePool",
        squares,
        kernel_shape=[size, 1],
        pads=[(size - 1) // 2, 0, size // 2, 0],
        count_include_pad=1,
    )
    scaled = b.scale(b.op("Reshape", mean, b.op("Shape", x)), node.real("alpha", 1e-4))
    shifted = b.op("Add", scaled, b.real(node.real("bias", 1.0), x))
    return [b.op("Div", x, b.op("Pow", shifted, b.real(node.real("beta", 0.75), x)))]


@lowers("LpPool", domain="")
def _norm_of_windows(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """(Σ |x|^p)^(1/p) over windows, as the average of |x|^p times the size of the window."""
    attributes = node.attributes("p")
    if node.integer("ceil_mode", 0) or set(attributes.get("dilations", ())) - {1}:
        raise NotImplementedError("windows with gaps, or beyond the padding")
    attributes.pop("dilations", None)
    size = 1
    for length in attributes["kernel_shape"]:
        size *= length

    def total(powers: ir.Value) -> ir.Value:
        return b.scale(b.op("AveragePool", powers, count_include_pad=1, **attributes), float(size))

    return [_norm(b, node, total)]


@lowers("GlobalLpPool", domain="")
def _norm_of_places(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """(Σ |x|^p)^(1/p) over all places of a channel."""

    def total(powers: ir.Value) -> ir.Value:
        for axis in range(2, rank_of(node.input(0))):
            powers = b.reduce("ReduceSum", powers, axis)
        return powers

    return [_norm(b, node, total)]


def _norm(b: Builder, node: Fused, total: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """``total`` of |x|^p, to the power 1/p."""
    x, p = node.input(0), node.integer("p", 2)
    if p == 2:
        return b.op("Sqrt", total(b.op("Mul", x, x)))
    powers = b.op("Abs", x)
    if p == 1:
        return total(powers)
    raised = total(b.op("Pow", powers, b.real(float(p), x)))
    return b.op("Pow", raised, b.real(1.0 / p, x))
