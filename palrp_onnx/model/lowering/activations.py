"""Activation functions of ONNX Runtime, with a bias added before or an approximation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused, length_of, rank_of, type_of
from palrp_onnx.model.lowering.table import lowers


def gelu(b: Builder, x: ir.Value) -> ir.Value:
    """x · ½ (1 + erf(x / √2))."""
    if b.opset >= 20:
        return b.op("Gelu", x)
    erf = b.op("Erf", b.scale(x, 1.0 / math.sqrt(2.0)))
    return b.op("Mul", x, b.scale(b.op("Add", erf, b.real(1.0, x)), 0.5))


def tanh_gelu(b: Builder, x: ir.Value) -> ir.Value:
    """x · ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    if b.opset >= 20:
        return b.op("Gelu", x, approximate="tanh")
    cube = b.op("Mul", x, b.op("Mul", x, x))
    inner = b.scale(b.op("Add", x, b.scale(cube, 0.044715)), math.sqrt(2.0 / math.pi))
    return b.op("Mul", x, b.scale(b.op("Add", b.op("Tanh", inner), b.real(1.0, x)), 0.5))


#: Activation of a fused layer → the attributes that hold its parameters, in order.
PARAMETERS = {"Elu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "LeakyRelu": ("alpha",)}


def activated(b: Builder, x: ir.Value, kind: str, numbers: Sequence[float]) -> ir.Value:
    """The activation ``kind`` of a fused layer with its parameters; ``x`` where there is none."""
    if not kind:
        return x
    if kind == "Clip" and b.opset >= 11:
        return b.op("Clip", x, *(b.real(number, x) for number in numbers))
    names = ("min", "max") if kind == "Clip" else PARAMETERS.get(kind, ())
    return b.op(kind, x, **dict(zip(names, numbers, strict=True)))


@lowers("Hardmax", domain="")
def _hardmax(b: Builder, node: Fused) -> Sequence[ir.Value] | None:
    """Before opset 13 all axes from ``axis`` on compete with each other."""
    x, axis = node.input(0), node.integer("axis", 1 if b.opset < 13 else -1)
    if b.opset >= 13 or axis in (-1, rank_of(x) - 1):
        return None
    rows = b.op("Hardmax", b.op("Flatten", x, axis=axis), axis=1)
    return [b.op("Reshape", rows, b.op("Shape", x))]


@lowers("CastLike", domain="")
def _cast_like(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """The second operand gives nothing but its type."""
    return [b.op("Cast", node.input(0), to=int(type_of(node.input(1))))]


@lowers("Gelu", "BiasGelu")
def _gelu(b: Builder, node: Fused) -> Sequence[ir.Value]:
    return [gelu(b, b.total(node.input(0), node.optional(1)))]


@lowers("FastGelu")
def _fast_gelu(b: Builder, node: Fused) -> Sequence[ir.Value]:
    return [tanh_gelu(b, b.total(node.input(0), node.optional(1)))]


@lowers("QuickGelu")
def _quick_gelu(b: Builder, node: Fused) -> Sequence[ir.Value]:
    x = node.input(0)
    gate = b.op("Sigmoid", b.scale(x, node.real("alpha", 1.702)))
    return [b.op("Mul", x, gate)]


@lowers("BiasSplitGelu")
def _bias_split_gelu(b: Builder, node: Fused) -> Sequence[ir.Value]:
    x = b.total(node.input(0), node.input(1))
    half = length_of(node.input(1), 0) // 2
    left, right = b.split(x, [half, half], -1)
    return [b.op("Mul", left, gelu(b, right))]
