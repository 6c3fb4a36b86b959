"""Numbers of few bits that stay as the file has them: several in a byte, where the file has them.

No weight is read when a graph is rewritten. Its bytes are an initializer of another type or shape
at the same place of the file, and nodes make numbers of them where they are needed.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder
from palrp_onnx.model.values import constant
from palrp_onnx.types import Array

#: Opset from which tensors of 4-bit numbers exist.
_FOUR_BITS = 21


def stored(value: ir.Value | None, what: str) -> Array:
    """The entries of a constant.

    Raises:
        NotImplementedError: The value is computed.
    """
    array = constant(value)
    if array is None:
        raise NotImplementedError(f"with {what} that are not stored")
    return array


def unpacked(packed: Array, bits: int) -> Array:
    """Bytes [.., n] → numbers of ``bits`` bits [.., n · 8 / bits], the lowest bits first."""
    if bits == 8:
        return packed
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    numbers = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return numbers.reshape(*packed.shape[:-1], -1)


def low_bits(b: Builder, value: ir.Value, bits: int, *shape: int) -> ir.Value:
    """The numbers of ``bits`` bits in the bytes of a constant, the lowest bits first.

    Raises:
        NotImplementedError: The value is computed, or has fewer or more numbers.
    """
    count = int(np.prod(shape))
    if bits not in (1, 2, 4, 8):
        raise NotImplementedError(f"with numbers of {bits} bits")
    if value.const_value is None:
        raise NotImplementedError("with numbers of few bits that are not stored")
    if value.const_value.nbytes * 8 != count * bits:
        raise NotImplementedError(f"with {value.const_value.nbytes} bytes for {count} numbers")
    if bits == 8:
        return same_bytes(b, value, ir.DataType.UINT8, shape)
    if bits == 4 and b.opset >= _FOUR_BITS:
        return same_bytes(b, value, ir.DataType.UINT4, shape)
    return b.reshape(spread(b, same_bytes(b, value, ir.DataType.UINT8, (-1,)), bits), *shape)


def spread(b: Builder, packed: ir.Value, bits: int, *, signed: bool = False) -> ir.Value:
    """Bytes [..] → the numbers of ``bits`` bits [.., 8 / bits] in each, the lowest bits first."""
    table = unpacked(np.arange(256, dtype=np.uint8)[:, None], bits)
    if signed:
        half = 1 << bits - 1
        table = ((table ^ half).astype(np.int16) - half).astype(np.int8)
    return b.op("Gather", b.shared(table), b.cast(packed, ir.DataType.INT32), axis=0)


def few_bits(b: Builder, numbers: Array, bits: int) -> ir.Value:
    """Unsigned numbers in the type that :func:`low_bits` yields; equal ones are shared."""
    small = bits == 4 and b.opset >= _FOUR_BITS
    return b.shared(numbers.astype(ml_dtypes.uint4) if small else numbers)


def same_bytes(b: Builder, value: ir.Value, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
    """An initializer with the bytes of another; external data stay where they are.

    One length may be −1.
    """
    tensor = value.const_value
    assert tensor is not None
    if -1 in shape:
        known = -int(np.prod(shape))
        rest = tensor.nbytes * 8 // dtype.bitwidth // known
        shape = tuple(rest if size == -1 else size for size in shape)
    if tensor.dtype == dtype and tuple(tensor.shape.numpy()) == shape:
        return value
    return b.initializer(seen_as(tensor, dtype, shape))


def seen_as(
    tensor: ir.TensorProtocol, dtype: ir.DataType, shape: tuple[int, ...]
) -> ir.TensorProtocol:
    """The bytes of a tensor in another type or shape; external data stay where they are."""
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            dtype,
            shape=ir.Shape(shape),
            name="",
            base_dir=tensor.base_dir,
        )
    data = np.frombuffer(tensor.tobytes(), np.uint8)
    if dtype.bitwidth < 8:
        return ir.PackedTensor(data, dtype, shape=shape)
    return ir.Tensor(data.view(dtype.numpy()).reshape(shape), dtype=dtype)
