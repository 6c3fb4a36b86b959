"""Low-bit weights in blocks, each block with its own scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused, dtype_of, type_of
from palrp_onnx.model.lowering.low_bits import few_bits, low_bits, same_bytes, stored, unpacked
from palrp_onnx.model.lowering.quantise import as_real, dequantised
from palrp_onnx.model.lowering.table import lowers


@lowers("MatMulNBits")
def _matmul_nbits(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """x Wᵀ + c with W [N, K], dequantised block by block from the bytes of the file.

    ``accuracy_level`` is how exact a kernel has to be at least; this is exact. The result of a
    kernel that rounds activations is put in its place later (``model/native.py``).
    """
    bits, size = node.integer("bits", 4), node.integer("block_size")
    rows, columns = node.integer("N"), node.integer("K")
    x, blocks = node.input(0), -(-columns // size)
    scales = b.cast_like(_flat(b, node.input(2), "scales"), x)
    zeros = _zeros(b, node.optional(3), bits, rows, blocks)
    if (order := node.optional(4)) is not None:
        if node.optional(3) is not None and type_of(node.input(3)) == ir.DataType.UINT8:
            raise NotImplementedError("with columns in another order, and packed zero points")
        numbers = low_bits(b, node.input(1), bits, rows, blocks * size)
        real = as_real(b, numbers, x)
        whole = real if columns == blocks * size else b.slice(real, 0, columns, 1)
        parts = (b.reshape(b.cast_like(each, x), rows, blocks) for each in (scales, zeros))
        weights = _by_column(b, whole, order, *parts)
    else:
        numbers = low_bits(b, node.input(1), bits, rows * blocks, size)
        read = dequantised(b, numbers, scales, zeros, 0)
        weights = b.reshape(read, rows, blocks * size)
        if columns != blocks * size:
            weights = b.slice(weights, 0, columns, 1)
    product = b.product("MatMul", x, b.transpose(weights, 1, 0))
    return [b.total(product, node.optional(5))]


def _flat(b: Builder, value: ir.Value, what: str) -> ir.Value:
    """A constant with one axis.

    Raises:
        NotImplementedError: The value is computed.
    """
    if value.const_value is None:
        raise NotImplementedError(f"with {what} that are not stored")
    return same_bytes(b, value, type_of(value), (-1,))


def _zeros(b: Builder, value: ir.Value | None, bits: int, rows: int, blocks: int) -> ir.Value:
    """The zero point of every block [N · blocks], of the type of the numbers or real."""
    if value is None:
        return few_bits(b, np.full(rows * blocks, 1 << (bits - 1), np.uint8), bits)
    if type_of(value) != ir.DataType.UINT8:
        return _flat(b, value, "zero points")
    if blocks * bits % 8 == 0:
        return low_bits(b, value, bits, rows * blocks)
    numbers = unpacked(stored(value, "zero points").reshape(rows, -1), bits)
    return few_bits(b, numbers[:, :blocks].reshape(-1), bits)


#: The real numbers of 4-bit numbers, by ``quant_type``: FP4, and the quantiles of NF4.
_FP4 = (0.0, 0.0052083333, 2 / 3, 1.0, 1 / 3, 0.5, 1 / 6, 0.25)
_NF4 = (
    *(-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0.0),
    *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
)
_REALS = ((*_FP4, *(-each for each in _FP4)), _NF4)


@lowers("MatMulBnb4")
def _matmul_bnb4(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """x Wᵀ with W [N, K] looked up in a table of 16 numbers, times the largest of its block."""
    rows, columns, size = (node.integer(name) for name in ("N", "K", "block_size"))
    x, packed = node.input(0), stored(node.input(1), "weights")
    numbers = np.stack([packed >> 4, packed & 15], -1).reshape(-1)  # the first is in the high bits
    if rows * columns % size:
        raise NotImplementedError("with a last block that is not full")
    index = b.cast(b.array(numbers[: rows * columns].reshape(-1, size)), ir.DataType.INT32)
    table = b.array(np.array(_REALS[node.integer("quant_type")], dtype_of(x)))
    largest = b.unsqueeze(node.input(2), 1)
    weights = b.reshape(b.op("Mul", b.op("Gather", table, index), largest), rows, columns)
    return [b.op("MatMul", x, b.transpose(weights, 1, 0) if node.integer("transB", 1) else weights)]


@lowers("GatherBlockQuantized")
def _gather_block_quantized(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """Rows of a low-bit table: numbers, scales and zero points are looked up in the same way."""
    data = stored(node.input(0), "tables")
    last = data.ndim - 1
    if node.integer("gather_axis", 0) != 0 or node.integer("quantize_axis", 1) % data.ndim != last:
        raise NotImplementedError("along other axes than rows, in blocks of columns")
    kind = node.input(0).dtype
    signed = kind == ir.DataType.INT4
    if kind == ir.DataType.UINT8:
        data = unpacked(data, node.integer("bits", 4))
    numbers = np.asarray(data).astype(np.int8 if signed else np.uint8)
    ids = node.input(1)
    zeros, size = node.optional(3), node.integer("block_size", 128)
    read = [b.array(numbers), node.input(2)]
    if zeros is not None:
        offsets = stored(zeros, "zero points")
        if kind == ir.DataType.UINT8:
            blocks = -(-numbers.shape[-1] // size)  # the last byte of a row may have room for more
            offsets = unpacked(offsets, node.integer("bits", 4))[..., :blocks]
        read.append(b.array(np.asarray(offsets).astype(numbers.dtype)))
    elif kind == ir.DataType.UINT8:
        scales = stored(node.input(2), "scales")
        middle = 1 << (node.integer("bits", 4) - 1)
        read.append(b.array(np.full(scales.shape, middle, numbers.dtype)))
    found = [b.op("Gather", each, ids, axis=0) for each in read]
    if b.opset >= 21:
        return [b.op("DequantizeLinear", *found, axis=-1, block_size=size)]
    columns = b.array(np.arange(numbers.shape[last]) // size)
    return [_by_column(b, found[0], columns, *found[1:])]


def _by_column(
    b: Builder,
    numbers: ir.Value,
    blocks: ir.Value,
    scales: ir.Value,
    zeros: ir.Value | None = None,
) -> ir.Value:
    """(q − z) s, where ``blocks`` holds for every column the block of its zero point and scale."""
    whole = b.cast_like(numbers, scales)
    if zeros is not None:
        offsets = b.op("Gather", b.cast_like(zeros, scales), blocks, axis=-1)
        whole = b.op("Sub", whole, offsets)
    return b.op("Mul", whole, b.op("Gather", scales, blocks, axis=-1))
