"""Operations on quantised tensors: dequantise, compute with real numbers, quantise again.

Sums of products stay integers and are scaled once, as in the kernels. With any other order of
scaling a few of a million results would round to the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused, rank_of
from palrp_onnx.model.lowering.images import channels_first, channels_last
from palrp_onnx.model.lowering.quantise import (
    along,
    centred,
    dequantised,
    entries,
    quantised,
    rounded_to,
)
from palrp_onnx.model.lowering.table import MICROSOFT, lowers
from palrp_onnx.model.values import constant


def _read(b: Builder, node: Fused, first: int, axis: int = -1) -> ir.Value:
    """The operand at input ``first``, dequantised; its scale and zero point follow it."""
    return dequantised(b, node.input(first), node.input(first + 1), node.optional(first + 2), axis)


def _centred(b: Builder, node: Fused, first: int, axis: int = -1) -> ir.Value:
    """The operand at input ``first`` minus its zero point, as integers."""
    return centred(b, node.input(first), node.optional(first + 2), axis)


def _written(b: Builder, node: Fused, x: ir.Value, scale: int) -> list[ir.Value]:
    """``x``, quantised with the scale at input ``scale`` and the zero point after it."""
    return [quantised(b, x, node.input(scale), node.optional(scale + 1))]


def _scaled(
    b: Builder, node: Fused, sums: ir.Value, scale: int, *, axis: int, alpha: float = 1.0
) -> list[ir.Value]:
    """Integer sums times α sₓ s_w / s_y, rounded; s_y is input ``scale``, its zero point follows.

    The weights have one scale, or one for every slice of ``axis`` of the sums.
    """
    first, second, last = (node.input(k) for k in (1, 4, scale))
    factor = b.op("Div", b.op("Mul", b.scale(first, alpha), second), last)
    steps = b.op("Mul", sums, along(b, factor, sums, axis))
    return [rounded_to(b, steps, node.optional(scale + 1), of_product=True)]


@lowers("QLinearMatMul", domain="")
@lowers("QLinearMatMul", domain=MICROSOFT)
def _matmul(b: Builder, node: Fused) -> Sequence[ir.Value]:
    if entries(node.input(1)) != 1:
        raise NotImplementedError("with a scale for every row")
    sums = b.op("MatMul", _centred(b, node, 0), _centred(b, node, 3, -1))
    return _scaled(b, node, sums, 6, axis=-1)


@lowers("QLinearConv", domain="")
@lowers("QLinearConv", domain=MICROSOFT)
def _conv(b: Builder, node: Fused) -> Sequence[ir.Value]:
    last = node.integer("channels_last", 0) != 0
    image, kernel = _centred(b, node, 0), _centred(b, node, 3, 0)
    bias = node.optional(8)
    bias = None if bias is None else centred(b, bias, None)
    first = channels_first(b, image) if last else image
    sums = b.op("Conv", first, kernel, bias, **node.attributes("channels_last"))
    sums = channels_last(b, sums, rank_of(image)) if last else sums
    return _scaled(b, node, sums, 6, axis=-1 if last else 1)


@lowers("QGemm")
def _gemm(b: Builder, node: Fused) -> Sequence[ir.Value]:
    across = node.integer("transB", 0)
    offset = node.optional(6)
    left, right = _centred(b, node, 0), _centred(b, node, 3, 0 if across else 1)
    sums = b.op("Gemm", left, right, **node.attributes("alpha"))
    sums = b.total(sums, None if offset is None else centred(b, offset, None))
    alpha = node.real("alpha", 1.0)
    if node.optional(7) is not None:
        return _scaled(b, node, sums, 7, axis=-1, alpha=alpha)
    factor = b.op("Mul", b.scale(node.input(1), alpha), node.input(4))
    return [b.op("Mul", sums, factor)]


def _two(op_type: str) -> Callable[[Builder, Fused], Sequence[ir.Value]]:
    def lowering(b: Builder, node: Fused) -> Sequence[ir.Value]:
        return _written(b, node, b.op(op_type, _read(b, node, 0), _read(b, node, 3)), 6)

    return lowering


def _one(op_type: str, *without: str) -> Callable[[Builder, Fused], Sequence[ir.Value]]:
    def lowering(b: Builder, node: Fused) -> Sequence[ir.Value]:
        x, last = _read(b, node, 0), node.integer("channels_last", 0) != 0
        result = b.op(
            op_type,
            channels_first(b, x) if last else x,
            **node.attributes("channels_last", *without),
        )
        return _written(b, node, channels_last(b, result, rank_of(x)) if last else result, 3)

    return lowering


for _name, _op in (("QLinearAdd", "Add"), ("QLinearMul", "Mul")):
    lowers(_name)(_two(_op))
for _name, _op in (
    ("QLinearAveragePool", "AveragePool"),
    ("QLinearGlobalAveragePool", "GlobalAveragePool"),
    ("QLinearLeakyRelu", "LeakyRelu"),
    ("QLinearSigmoid", "Sigmoid"),
):
    lowers(_name)(_one(_op))


@lowers("QLinearSoftmax")
def _softmax(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """The kernel multiplies by the integer ⌊1/s⌋ instead of dividing by s."""
    steps = constant(node.input(3))
    if steps is None:
        raise NotImplementedError("with a scale that is not stored")
    weights = b.op("Softmax", _read(b, node, 0), **node.attributes("opset"))
    scale = b.real(1.0 / np.floor(1.0 / np.float32(steps.item())), weights)
    return [quantised(b, weights, scale, node.optional(4))]


@lowers("QLinearConcat")
def _concat(b: Builder, node: Fused) -> Sequence[ir.Value]:
    parts = [_read(b, node, first) for first in range(2, len(node.node.inputs), 3)]
    return _written(b, node, b.op("Concat", *parts, **node.attributes()), 0)


@lowers("QLinearWhere")
def _where(b: Builder, node: Fused) -> Sequence[ir.Value]:
    chosen = b.op("Where", node.input(0), _read(b, node, 1), _read(b, node, 4))
    return _written(b, node, chosen, 7)


@lowers("QLinearReduceMean")
def _reduce_mean(b: Builder, node: Fused) -> Sequence[ir.Value]:
    axes = node.node.attributes.get("axes")
    if axes is None:
        raise NotImplementedError("over all axes")
    x = _read(b, node, 0)
    for axis in sorted(axes.as_ints(), key=lambda a: a % rank_of(x), reverse=True):
        x = b.reduce("ReduceMean", x, axis, keepdims=bool(node.integer("keepdims", 1)))
    return _written(b, node, x, 3)
