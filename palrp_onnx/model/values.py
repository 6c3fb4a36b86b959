"""Properties of single values and operands of a graph."""

from __future__ import annotations

import onnx_ir as ir

from palrp_onnx.types import Array


def is_float(value: ir.Value) -> bool:
    """Whether a value holds real numbers.

    The result of an operation that type inference does not know counts as real. So such an
    operation is refused on the path of relevance, instead of ending the path without a notice.
    """
    return value.dtype is None or value.dtype.is_floating_point()


def constant(value: ir.Value | None) -> Array | None:
    """The entries of an initializer; ``None`` for a computed value, or none."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def constant_axes(node: ir.Node, index: int = 1) -> tuple[int, ...] | None:
    """The attribute ``axes``, or the constant input that replaces it in later opsets."""
    if "axes" in node.attributes:
        return tuple(node.attributes.get_ints("axes", ()))
    axes = constant(node.inputs[index]) if index < len(node.inputs) else None
    return None if axes is None else tuple(int(axis) for axis in axes.ravel())
