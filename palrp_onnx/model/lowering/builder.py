"""Tools of lowerings: reading a node, and writing the primitive operations that replace it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.declared import declared_length
from palrp_onnx.model.lowering.types import infer

#: The end of an axis, for slices.
END = int(np.iinfo(np.int64).max)


def product_name(result: str) -> str:
    """Name of the product in the lowered form of an operation whose result has this name."""
    return f"{result}/lowered/product"


class Builder:
    """Makes nodes of the standard domain in the opset of the graph.

    Args:
        graph: The graph of the node.
        node: The node before which nodes are inserted.
        opset: Opset of the graph.
        fresh: Makes a name unique, where names of other nodes may be the same.
    """

    def __init__(
        self,
        graph: ir.Graph,
        node: ir.Node,
        opset: int,
        fresh: Callable[[str], str] = lambda name: name,
    ) -> None:
        self.graph = graph
        self._node = node
        named = next((v.name for v in node.outputs if v.name), node.name)
        self._stem = f"{named}/lowered"
        self._count = 0
        self._fresh = fresh
        self._free: set[ir.Value] = set()
        self.opset = opset

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The result of an operation with one output."""
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(
        self, op_type: str, count: int, *inputs: ir.Value | None, **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """The results of an operation with ``count`` outputs."""
        outputs = [ir.Value(name=self._name()) for _ in range(count)]
        node = ir.node(op_type, inputs, attributes, outputs=outputs, name=outputs[0].name)
        self.graph.insert_before(self._node, node)
        self._free.update(outputs)
        infer(node, self.opset)
        return tuple(outputs)

    def product(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The product that the kernel of a quantised operation computes, without a bias.

        It is found later by its name, or by the name of the result if it is the whole result.
        """
        value = self.op(op_type, *inputs, **attributes)
        value.name = product_name(self._node.outputs[0].name or "")
        return value

    def insert(self, nodes: Sequence[ir.Node]) -> None:
        """Write nodes; their results are free to be renamed."""
        self.graph.insert_before(self._node, nodes)
        self._free.update(v for node in nodes for v in node.outputs)

    def own(self, value: ir.Value) -> ir.Value:
        """A value free to be renamed: ``value`` if it was made here, the first time, or a copy."""
        if value not in self._free:
            value = self.op("Identity", value)
        self._free.discard(value)
        return value

    def _name(self) -> str:
        self._count += 1
        return self._fresh(f"{self._stem}/{self._count}")

    # --- constants --------------------------------------------------------------------------------
    def array(self, data: np.ndarray[Any, Any], dtype: ir.DataType | None = None) -> ir.Value:
        """An initializer; an array of objects holds text."""
        return self.initializer(
            ir.Tensor(data, dtype=dtype) if data.dtype != object else _text(data)
        )

    def initializer(self, tensor: ir.TensorProtocol, name: str = "") -> ir.Value:
        """An initializer of the graph."""
        tensor.name = name or self._name()
        value = ir.Value(
            name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
        )
        value.const_value = tensor
        self.graph.register_initializer(value)
        return value

    def shared(self, data: np.ndarray[Any, Any]) -> ir.Value:
        """An initializer that all nodes of the graph with the same numbers share."""
        digest = hashlib.sha256(data.tobytes()).hexdigest()
        name = self._fresh(f"lowered/{data.dtype}{list(data.shape)}/{digest}")
        known = self.graph.initializers.get(name)
        return self.initializer(ir.Tensor(data), name) if known is None else known

    def integers(self, *numbers: int) -> ir.Value:
        """A vector of 64-bit integers."""
        return self.array(np.array(numbers, np.int64))

    def integer(self, number: int) -> ir.Value:
        """A 64-bit integer scalar."""
        return self.array(np.array(number, np.int64))

    def real(self, number: float, like: ir.Value) -> ir.Value:
        """A scalar of the type of ``like``."""
        with np.errstate(over="ignore"):  # in half precision the most negative numbers are −∞
            return self.array(np.array(number, dtype_of(like)))

    # --- operations whose form depends on the opset -----------------------------------------------
    def reduce(self, op_type: str, x: ir.Value, axis: int, *, keepdims: bool = True) -> ir.Value:
        """``ReduceMean`` or a similar reduction over one axis."""
        as_input = self.opset >= (13 if op_type == "ReduceSum" else 18)
        if as_input:
            return self.op(op_type, x, self.integers(axis), keepdims=int(keepdims))
        return self.op(op_type, x, axes=[axis], keepdims=int(keepdims))

    def unsqueeze(self, x: ir.Value, *axes: int) -> ir.Value:
        """``x`` with new axes of length 1, numbered as in the result."""
        if self.opset >= 13:
            return self.op("Unsqueeze", x, self.integers(*axes))
        return self.op("Unsqueeze", x, axes=list(axes))

    def squeeze(self, x: ir.Value, axis: int) -> ir.Value:
        """``x`` without an axis of length 1."""
        if self.opset >= 13:
            return self.op("Squeeze", x, self.integers(axis))
        return self.op("Squeeze", x, axes=[axis])

    # --- shorthands -------------------------------------------------------------------------------
    def slice(self, x: ir.Value, start: int, end: int, axis: int) -> ir.Value:
        """``x[start:end]`` along ``axis``."""
        if self.opset < 10:
            return self.op("Slice", x, starts=[start], ends=[end], axes=[axis])
        return self.op("Slice", x, self.integers(start), self.integers(end), self.integers(axis))

    def split(self, x: ir.Value, sizes: Sequence[int], axis: int) -> list[ir.Value]:
        """Pieces of known lengths along ``axis``."""
        ends = [int(n) for n in np.cumsum(sizes)]
        starts = [0, *ends[:-1]]
        return [self.slice(x, a, b, axis) for a, b in zip(starts, ends, strict=True)]

    def entries(self, x: ir.Value, count: int, axis: int) -> list[ir.Value]:
        """The entries along an axis of this length, which they do not have any more."""
        if count == 0:
            return []
        if self.opset >= 13:
            cut = self.ops("Split", count, x, self.integers(*[1] * count), axis=axis)
        else:
            cut = self.ops("Split", count, x, split=[1] * count, axis=axis)
        return [self.squeeze(piece, axis) for piece in cut]

    def stack(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """Values along a new axis, numbered as in the result."""
        rows = [self.unsqueeze(x, axis) for x in values]
        return rows[0] if len(rows) == 1 else self.op("Concat", *rows, axis=axis)

    def reshape(self, x: ir.Value, *sizes: int) -> ir.Value:
        """``x`` with axes of these lengths: 0 is that of ``x``, −1 the remaining entries."""
        return self.op("Reshape", x, self.integers(*sizes))

    def transpose(self, x: ir.Value, *perm: int) -> ir.Value:
        """``x`` with its axes in another order."""
        return self.op("Transpose", x, perm=list(perm))

    def size(self, x: ir.Value, axis: int) -> ir.Value:
        """Length of an axis as a scalar; the axis is counted from the front."""
        return self.op("Gather", self.op("Shape", x), self.integer(axis), axis=0)

    def cast(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``x`` cast to a type; ``x`` itself if it has that type."""
        return x if x.dtype == dtype else self.op("Cast", x, to=int(dtype))

    def cast_like(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """``x`` cast to the type of ``like``."""
        return self.cast(x, type_of(like))

    def scale(self, x: ir.Value, factor: float) -> ir.Value:
        """``x`` times a number; ``x`` itself if that is 1."""
        return x if factor == 1.0 else self.op("Mul", x, self.real(factor, x))

    def total(self, *terms: ir.Value | None) -> ir.Value:
        """The sum of the terms that are not ``None``."""
        present = [t for t in terms if t is not None]
        result = present[0]
        for term in present[1:]:
            result = self.op("Add", result, term)
        return result


class Fused:
    """The node that is lowered."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.op_type = node.op_type

    def input(self, index: int) -> ir.Value:
        """An input.

        Raises:
            NotImplementedError: It is left out.
        """
        value = self.optional(index)
        if value is None:
            raise NotImplementedError(f"without input {index}")
        return value

    def optional(self, index: int) -> ir.Value | None:
        """An input, or ``None`` if it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def wants(self, index: int) -> bool:
        """Whether the node has an output and something reads it."""
        if index >= len(self.node.outputs):
            return False
        value = self.node.outputs[index]
        return bool(value.uses()) or value.is_graph_output()

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute.

        Raises:
            NotImplementedError: It is not there and has no default.
        """
        attribute = self.node.attributes.get(name)
        if attribute is not None:
            return attribute.as_int()
        if default is None:
            raise NotImplementedError(f"without attribute {name}")
        return default

    def real(self, name: str, default: float) -> float:
        """A real attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_float()

    def text(self, name: str, default: str) -> str:
        """A text attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def attributes(self, *without: str) -> dict[str, Any]:
        """All attributes but those of these names."""
        return {k: v.value for k, v in self.node.attributes.items() if k not in without}


def _text(data: np.ndarray[Any, Any]) -> ir.StringTensor:
    return ir.StringTensor([str(each).encode() for each in data], shape=ir.Shape(data.shape))


def type_of(value: ir.Value) -> ir.DataType:
    """Type of a value.

    Raises:
        NotImplementedError: It is not known.
    """
    if value.dtype is None:
        raise NotImplementedError(f"the type of {value.name!r} is not known")
    return value.dtype


def dtype_of(value: ir.Value) -> np.dtype[Any]:
    """NumPy type of a value."""
    return np.dtype(type_of(value).numpy())


def rank_of(value: ir.Value) -> int:
    """Number of axes of a value.

    Raises:
        NotImplementedError: It is not known.
    """
    if value.shape is None:
        raise NotImplementedError(f"the number of axes of {value.name!r} is not known")
    return value.shape.rank()


def length_of(value: ir.Value, axis: int) -> int:
    """Length of an axis that is fixed, or declared to be fixed in the file.

    Raises:
        NotImplementedError: It is not known.
    """
    length = value.shape[axis] if value.shape is not None else None
    if not isinstance(length, int):
        length = declared_length(value, axis)  # the fidelity check shows whether it is true
    if not isinstance(length, int):
        raise NotImplementedError(f"the length of axis {axis} of {value.name!r} is not fixed")
    return length
