"""Rows of a packed output layer: those alone that a seed reads are dequantised.

The seed of a class is zero at all entries but one or two, so that its product with the weights
[D, classes] of the output layer needs one or two of their columns: rows of the stored numbers
[classes, D], which may be billions. Which ones is computed in the graph, so that any seed is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.low_bits import seen_as, unpacked

if TYPE_CHECKING:
    from palrp_onnx.tensor.onnx import Emit

#: Number of entries of weights that are worth it.
_LARGE = 1 << 20
_BYTE = ir.DataType.UINT8
_UNSIGNED = (_BYTE, ir.DataType.UINT4)


@dataclass(frozen=True)
class _Stored:
    """Unsigned numbers of few bits in a stored tensor."""

    tensor: ir.TensorProtocol
    bits: int

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.tensor.nbytes * 8 // self.bits)


@dataclass(frozen=True)
class _Packed:
    """Weights [rows, columns] in blocks: (numbers − zeros) · scales, all stored."""

    numbers: _Stored
    scales: ir.TensorProtocol
    zeros: _Stored
    rows: int
    blocks: int
    columns: int


def in_rows(weights: ir.Value) -> bool:
    """Whether :func:`read_rows` reads rows of these weights [D, classes]."""
    return _packed(weights) is not None


def read_rows(op: Emit, seed: ir.Value, weights: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """Entries [.., n] of a seed that are not zero in any sample, and their weights [n, D].

    Args:
        op: The language.
        seed: A multiplier [.., classes].
        weights: The weights [D, classes] of a product; ``None`` is returned where they are not
            dequantised from numbers of four bits or a byte in blocks.
    """
    packed = _packed(weights)
    if packed is None:
        return None
    rank = op.rank(seed)
    sizes = op.sum(op.absolute(seed), range(rank - 1), keepdims=False)
    rest = op.node("Slice", [sizes, op.constant([1]), op.constant([packed.rows])], 1)
    some = op.concat([op.cast_like(op.constant([1.0], np.float32), rest), rest], 0)  # never none
    found = op.node("NonZero", [some], 2, dtype=ir.DataType.INT64)
    index = op.node("Reshape", [found, op.constant([-1])], 1, dtype=ir.DataType.INT64)
    entries = op.node("Gather", [seed, index], rank, axis=-1)
    kind = packed.scales.dtype

    def rows_of(tensor: ir.TensorProtocol, own: ir.DataType, width: int) -> ir.Value:
        stored = op.stored(seen_as(tensor, own, (packed.rows, width)))
        return op.node("Gather", [stored, index], 2, axis=0, dtype=own)

    def numbers_of(stored: _Stored) -> ir.Value:
        """The numbers of these rows, as real ones."""
        read = rows_of(stored.tensor, _BYTE, stored.tensor.nbytes // packed.rows)
        places = op.node("Cast", [read], 2, to=ir.DataType.INT32, dtype=ir.DataType.INT32)
        table = unpacked(np.arange(256, dtype=np.uint8)[:, None], stored.bits)
        return op.node("Gather", [op.constant(table, kind.numpy()), places], 3, axis=0, dtype=kind)

    width = packed.numbers.count // packed.rows
    size, column = width // packed.blocks, op.constant([-1, 1])
    scales, zeros = (
        op.node("Reshape", [each, column], 2, dtype=kind)
        for each in (rows_of(packed.scales, kind, packed.blocks), numbers_of(packed.zeros))
    )
    flat = op.constant([-1, size])
    numbers = op.node("Reshape", [numbers_of(packed.numbers), flat], 2, dtype=kind)
    real = op.mul(op.sub(numbers, zeros), scales)
    whole = op.node("Reshape", [real, op.constant([-1, width])], 2, dtype=kind)
    if width != packed.columns:
        ends = op.constant([0]), op.constant([packed.columns]), op.constant([1])
        whole = op.node("Slice", [whole, *ends], 2, dtype=kind)
    return entries, whole


def _packed(weights: ir.Value) -> _Packed | None:
    """What weights [D, classes] are computed from, if they are packed rows."""
    turned = weights.producer()
    if turned is None or turned.op_type != "Transpose" or turned.inputs[0] is None:
        return None
    if list(turned.attributes.get_ints("perm", ())) != [1, 0]:
        return None
    whole = turned.inputs[0]
    if whole.shape is None or not whole.shape.is_static():
        return None
    rows, columns = whole.shape.numpy()
    maker = whole.producer()
    if maker is not None and maker.op_type == "Slice" and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    if maker is None or maker.op_type != "Reshape" or maker.inputs[0] is None:
        return None
    read = maker.inputs[0].producer()
    if read is None or read.op_type != "DequantizeLinear" or "block_size" in read.attributes:
        return None
    if read.attributes.get_int("axis", 1) != 0:
        return None
    numbers, scales, zeros = _stored(read, 0), read.inputs[1], _stored(read, 2)
    if numbers is None or zeros is None or scales is None or scales.const_value is None:
        return None
    blocks, odd = divmod(scales.const_value.size, rows)
    whole_bytes = blocks * zeros.bits % 8 == 0
    per_block = scales.const_value.size == zeros.count > 1 and numbers.count % zeros.count == 0
    if rows * columns < _LARGE or odd or not (whole_bytes and per_block):
        return None
    return _Packed(numbers, scales.const_value, zeros, rows, blocks, columns)


def _stored(node: ir.Node, index: int) -> _Stored | None:
    """What an operand is stored as, where it is unsigned numbers: see ``model/lowering``."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is not None and (tensor := value.const_value) is not None:
        return _Stored(tensor, tensor.dtype.bitwidth) if tensor.dtype in _UNSIGNED else None
    for op_type, place in (("Reshape", 0), ("Gather", 1), ("Cast", 0)):
        maker = None if value is None else value.producer()
        if maker is None or maker.op_type != op_type:
            return None
        if op_type == "Gather" and maker.inputs[0] is not None:
            table = maker.inputs[0].const_value
        value = maker.inputs[place]
    if value is None or value.const_value is None or table is None or table.dtype != _BYTE:
        return None
    return _Stored(value.const_value, 8 // int(table.size // 256))
