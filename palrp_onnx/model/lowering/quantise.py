"""Quantised numbers as real values that hold the same integers.

Computed values become real; initializers stay quantised, and ``DequantizeLinear`` reads them. The
type of a value shows which of the two it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused, dtype_of, rank_of, type_of
from palrp_onnx.model.lowering.table import MICROSOFT, lowers
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import constant

#: Key in the ``meta`` of a node that adds a zero point: that zero point.
_ZERO = "zero"
_BOUNDS = {
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT4: (-8, 7),
}


_REAL = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
)


#: Operations that give the entries of one operand other places.
_MOVING = Trait.RESHAPE | Trait.RANK | Trait.PERMUTE | Trait.REPEAT | Trait.REORDER


def is_stored(value: ir.Value) -> bool:
    """Whether a quantised value still has a quantised (integer or 8-bit float) type."""
    return type_of(value) not in _REAL


def quantised(
    b: Builder, x: ir.Value, scale: ir.Value, zero: ir.Value | None, kind: ir.DataType | None = None
) -> ir.Value:
    """round(x / s) + z within the bounds of the type, as real numbers.

    Raises:
        NotImplementedError: There is a scale for every slice of an axis, or the type is no integer
            type.
    """
    if entries(scale) != 1:
        raise NotImplementedError("activations with a scale for every slice")
    return rounded_to(b, b.op("Div", b.cast_like(x, scale), scale), zero, kind)


def rounded_to(
    b: Builder,
    steps: ir.Value,
    zero: ir.Value | None,
    kind: ir.DataType | None = None,
    *,
    of_product: bool = False,
) -> ir.Value:
    """round(steps) + z within the bounds of the type, as real numbers.

    Args:
        b: The builder.
        steps: The numbers to round.
        zero: The zero point.
        kind: The type; that of the zero point by default.
        of_product: Whether one kernel of the file computes all of this from integers.

    Raises:
        NotImplementedError: There is a zero point for every slice, or the type is no integer type.
    """
    kind = (type_of(zero) if zero is not None else ir.DataType.UINT8) if kind is None else kind
    if kind not in _BOUNDS:
        raise NotImplementedError(f"to {kind.name}")
    if zero is not None and entries(zero) != 1:
        raise NotImplementedError("activations with a zero point for every slice")
    low, high = _BOUNDS[kind]
    rounded = b.op("Round", steps)
    stored = constant(zero)
    if zero is None or (stored is not None and not stored.any()):
        clipped = b.op("Clip", rounded, b.real(low, rounded), b.real(high, rounded))
        return _of_kernel(b, clipped) if of_product else clipped
    shift = _real(b, zero, rounded)
    below, above = (b.op("Sub", b.real(end, rounded), shift) for end in (low, high))
    clipped = b.op("Clip", rounded, below, above)
    whole = b.op("Add", _of_kernel(b, clipped) if of_product else clipped, shift)
    producer = whole.producer()
    assert producer is not None
    producer.meta[_ZERO] = zero
    return whole


def _of_kernel(b: Builder, exact: ir.Value) -> ir.Value:
    """A separate node for the result of the file's kernel, which replaces the exact numbers later.

    So rules of the nodes before it read the exact numbers.
    """
    return b.product("Cast", exact, to=int(type_of(exact)))


def centred(b: Builder, q: ir.Value, zero: ir.Value | None, axis: int = -1) -> ir.Value:
    """q − z, as real numbers.

    Args:
        b: The builder.
        q: Quantised numbers, stored or computed.
        zero: Zero point, one number or one for every slice of ``axis``.
        axis: Axis of the slices.
    """
    if is_stored(q):
        return dequantised(b, q, None, zero, axis)
    stored = constant(zero)
    if zero is None or (stored is not None and not stored.any()):
        return q
    producer = q.producer()
    if producer is not None and _same(producer.meta.get(_ZERO), zero):
        before = producer.inputs[0]
        assert before is not None
        return before
    return b.op("Sub", q, along(b, _real(b, zero, q), q, axis))


def dequantised(
    b: Builder, q: ir.Value, scale: ir.Value | None, zero: ir.Value | None, axis: int = -1
) -> ir.Value:
    """(q − z) s; without a scale, q − z.

    Args:
        b: The builder.
        q: Quantised numbers, stored or computed.
        scale: Scale, one number or one for every slice of ``axis``.
        zero: Zero point, likewise.
        axis: Axis of the slices.
    """
    if not is_stored(q):
        whole = centred(b, q, zero, axis)
        return whole if scale is None else b.op("Mul", whole, along(b, scale, q, axis))
    if scale is None:
        count = 1 if zero is None else entries(zero)
        ones = np.ones(() if count == 1 else count, np.float32)
        scale = b.array(ones)
    if not _has_primitive(b, q, scale, zero):
        return _written_out(b, q, scale, zero, axis)
    if b.opset < 19 and scale.dtype != ir.DataType.FLOAT:  # the only type of scales before 19
        wide = dequantised(b, q, b.cast(scale, ir.DataType.FLOAT), zero, axis)
        return b.cast_like(wide, scale)
    if zero is not None and zero.shape != scale.shape:
        zero = b.op("Expand", zero, b.op("Shape", scale))
    several = entries(scale) != 1
    rank = rank_of(q) if several else 1
    where = {"axis": axis % rank} if several and b.opset >= 13 else {}
    return b.op("DequantizeLinear", q, scale, zero, **where)


def _has_primitive(b: Builder, q: ir.Value, scale: ir.Value, zero: ir.Value | None) -> bool:
    """Whether ``DequantizeLinear`` in the graph's opset supports these types and scales."""
    if zero is not None and not is_stored(zero):
        return False
    return b.opset >= 21 or (
        type_of(q) in (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32)
        and (b.opset >= 13 or entries(scale) == 1)
    )


def _written_out(
    b: Builder, q: ir.Value, scale: ir.Value, zero: ir.Value | None, axis: int
) -> ir.Value:
    whole = as_real(b, q, scale)
    if zero is not None:
        whole = b.op("Sub", whole, along(b, _real(b, zero, scale), q, axis))
    return b.op("Mul", whole, along(b, scale, q, axis))


def as_real(b: Builder, q: ir.Value, like: ir.Value) -> ir.Value:
    """Stored numbers as real numbers of the type of ``like``."""
    if type_of(q).bitwidth == 8:
        return b.cast_like(q, like)
    # No operation but this one reads numbers of fewer bits and has an operand of more.
    return b.op("DequantizeLinear", q, b.shared(np.ones(1, dtype_of(like))))


def _real(b: Builder, zero: ir.Value, like: ir.Value) -> ir.Value:
    """A zero point as real numbers."""
    stored = constant(zero)
    if stored is None or zero.dtype == like.dtype:
        return b.cast_like(zero, like)
    return b.array(np.asarray(stored, dtype_of(like)))


def along(b: Builder, numbers: ir.Value, like: ir.Value, axis: int) -> ir.Value:
    """One number for every slice of an axis, reshaped so that it broadcasts."""
    if entries(numbers) == 1:
        return numbers
    following = rank_of(like) - 1 - axis % rank_of(like)
    return b.reshape(numbers, -1, *[1] * following)


def entries(value: ir.Value) -> int:
    """Number of entries of a scale or zero point; 1 where it has no axes, 0 where unknown."""
    if value.const_value is not None:
        return int(value.const_value.size)
    if value.shape is None:
        return 1  # measured from activations: one number
    return int(np.prod([d if isinstance(d, int) else 0 for d in value.shape]))


def _same(first: Any, second: ir.Value) -> bool:
    if not isinstance(first, ir.Value):
        return False
    one, other = constant(first), constant(second)
    return first is second or (one is not None and other is not None and np.array_equal(one, other))


@lowers("QuantizeLinear", domain="")
@lowers("QuantizeLinear", domain=MICROSOFT)
def _quantize_linear(b: Builder, node: Fused) -> Sequence[ir.Value]:
    if node.integer("block_size", 0):
        raise NotImplementedError("in blocks")
    kind = node.integer("output_dtype", 0)
    wanted = ir.DataType(kind) if kind else None
    return [quantised(b, node.input(0), node.input(1), node.optional(2), wanted)]


@lowers("DequantizeLinear", domain="")
@lowers("DequantizeLinear", domain=MICROSOFT)
def _dequantize_linear(b: Builder, node: Fused) -> Sequence[ir.Value] | None:
    q = node.input(0)
    if is_stored(q) and not node.node.domain:
        moved = _moved_rows(b, node)
        return None if moved is None else [moved]
    if node.integer("block_size", 0):
        raise NotImplementedError("in blocks, of what was computed")
    if node.integer("output_dtype", 0):
        raise NotImplementedError("to a type of its own")
    return [dequantised(b, q, node.input(1), node.optional(2), node.integer("axis", 1))]


def _moved_rows(b: Builder, node: Fused) -> ir.Value | None:
    """Rows of a quantised table that were moved, dequantised first; ``None`` for other numbers.

    So the rows of a lookup are real numbers where they are looked up.
    """
    q, moves = node.input(0), list[ir.Node]()
    while (mover := q.producer()) is not None and has(mover, _MOVING) and mover.inputs[0]:
        moves.append(mover)
        q = mover.inputs[0]
    if not moves or mover is None or entries(node.input(1)) != 1:
        return None
    value = b.op("DequantizeLinear", q, *node.node.inputs[1:])
    for mover in reversed(moves):
        value = b.op(
            mover.op_type,
            value,
            *mover.inputs[1:],
            **{k: v.value for k, v in mover.attributes.items()},
        )
    return value


@lowers("DynamicQuantizeLinear", domain="")
def _dynamic_quantize_linear(b: Builder, node: Fused) -> Sequence[ir.Value] | None:
    """Scale and zero point stay results of the operation itself; only the numbers are rewritten."""
    if not node.wants(0):
        return None
    scale, zero = measured(b, node.input(0))
    return [quantised(b, node.input(0), scale, zero), scale, zero]


def measured(b: Builder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Scale and zero point that ``DynamicQuantizeLinear`` measures for ``x``."""
    _, scale, zero = b.ops("DynamicQuantizeLinear", 3, x)
    return scale, zero
