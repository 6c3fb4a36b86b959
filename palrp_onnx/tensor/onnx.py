"""The ONNX back end: every operation appends nodes to a graph.

Shapes are computed when the graph runs, so that one graph serves every batch size and length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.errors import LaterOpsetError
from palrp_onnx.tensor.language import (
    Interpolation,
    Movement,
    Pooling,
    RecurrenceStep,
    Window,
)
from palrp_onnx.tensor.seed_rows import read_rows
from palrp_onnx.types import Shape

Value = ir.Value
#: Real types in which multipliers may overflow or vanish.
NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class Emit:
    """Operations of :class:`~palrp_onnx.tensor.language.Language` as nodes.

    Args:
        graph: Where nodes are appended.
        batch: Number of samples, an int64 tensor [1].
        shapes: Shapes of the existing values in a trial run.
        opset: Opset of the graph.
        portable: Use operations of the ONNX standard only.
        fixed: Whether these shapes are those of every run.
        bounded: Whether what could run early waits where that saves memory.

    Attributes:
        made: The appended nodes.
        seed: A multiplier that is zero at most entries of its last axis.
    """

    seed: Value | None = None

    def __init__(
        self,
        graph: ir.Graph,
        batch: Value,
        shapes: Mapping[Value, Shape],
        *,
        opset: int,
        portable: bool = False,
        fixed: bool = False,
        bounded: bool = False,
    ) -> None:
        self._opset = opset
        self._fixed, self._bounded = fixed, bounded
        self._graph = self._home = graph  # where nodes and where initializers are put
        self._stem = "relevance"
        self._lengths = shapes
        self._ranks = {value: len(shape) for value, shape in shapes.items()}
        self._portable = portable
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._shapes: dict[Value, Value] = {}
        self.batch = batch
        self.made: list[ir.Node] = []
        self._scalings: dict[ir.Node | None, tuple[Value, float]] = {}

    # --- building -------------------------------------------------------------------------------
    def node(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        rank: int,
        *,
        domain: str = "",
        dtype: ir.DataType | None = None,
        **attributes: Any,
    ) -> Value:
        """Append a node with one output of ``rank`` axes, of the type of its first real input."""
        made = ir.node(op_type, inputs, attributes or None, domain=domain)
        output = made.outputs[0]
        output.name = f"{self._stem}/{len(self.made)}"
        output.dtype = dtype or self.kind(*inputs)
        self._append(made)
        self._ranks[output] = rank
        return output

    def again(self, node: ir.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
        """Append a copy of a node on other operands; its results."""
        made = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            overload=node.overload,
            num_outputs=len(node.outputs),
        )
        for index, (old, new) in enumerate(zip(node.outputs, made.outputs, strict=True)):
            new.type, new.name = old.type, old.name and f"{self._stem}/{len(self.made)}/{index}"
            if old in self._ranks:
                self._ranks[new] = self._ranks[old]
        self._append(made)
        return made.outputs

    def _append(self, node: ir.Node) -> None:
        self._graph.append(node)
        self.made.append(node)

    def declare(self, value: Value, rank: int) -> None:
        """Register a value that was not made here, with its number of axes."""
        self._ranks[value] = rank

    def flags(self, op_type: str, a: Value, b: Value) -> Value:
        """Append a node that compares two values."""
        return self.node(op_type, [a, b], max(self.rank(a), self.rank(b)), dtype=ir.DataType.BOOL)

    def known_rank(self, value: Value) -> bool:
        """Whether the number of axes of a value is known."""
        return value in self._ranks or value.shape is not None

    def rank(self, value: Value) -> int:
        """Number of axes of a value."""
        if value not in self._ranks:
            if value.shape is None:
                raise NotImplementedError(f"a value of unknown rank, {value.name!r}")
            self._ranks[value] = value.shape.rank()
        return self._ranks[value]

    def stored(self, tensor: ir.TensorProtocol) -> Value:
        """An initializer."""
        name = f"{self._stem}/stored/{len(self.made)}"
        tensor.name = name
        value = ir.val(name, const_value=tensor)
        self._home.register_initializer(value)
        self._ranks[value] = tensor.shape.rank()
        return value

    def constant(self, numbers: Any, dtype: Any = np.int64) -> Value:
        """An initializer; equal numbers share one."""
        array: NDArray[Any] = np.asarray(numbers, dtype)
        key = (array.shape, str(array.dtype), array.tobytes())
        if key not in self._constants:
            name = f"relevance/constant/{len(self._constants)}"
            value = ir.val(name, const_value=ir.tensor(array, name=name))
            self._home.register_initializer(value)
            self._ranks[value] = array.ndim
            self._constants[key] = value
        return self._constants[key]

    def real(self, number: float, *like: Value) -> Value:
        """A scalar of the real type of ``like``."""
        return self.constant(number, self.kind(*like).numpy())

    def kind(self, *values: Value | None) -> ir.DataType:
        """Real type of the first real value."""
        known = (v.dtype for v in values if v is not None and v.dtype is not None)
        return next((d for d in known if d.is_floating_point()), ir.DataType.FLOAT)

    def cast(self, a: Value, kind: ir.DataType) -> Value:
        """The same numbers as another type."""
        return a if self.kind(a) == kind else self._number(a, kind)

    def cast_like(self, a: Value, like: Value) -> Value:
        return self.cast(a, self.kind(like))

    def wide(self, a: Value) -> Value:
        return self.cast(a, ir.DataType.FLOAT) if self.kind(a) in NARROW else a

    def _alike(self, *values: Value) -> tuple[Value, ...]:
        """All in the widest type."""
        kinds = {self.kind(v) for v in values}
        if len(kinds) == 1:
            return values
        widest = ir.DataType.DOUBLE if ir.DataType.DOUBLE in kinds else ir.DataType.FLOAT
        return tuple(self.cast(v, widest) for v in values)

    def integers(self, op_type: str, *inputs: Value, **attributes: Any) -> Value:
        """Append a node on integer vectors."""
        return self.node(op_type, inputs, 1, dtype=ir.DataType.INT64, **attributes)

    def counting(self, count: Value) -> Value:
        """0, 1, … count − 1."""
        return self.integers("Range", self.constant(0), count, self.constant(1))

    def _flat(self, integers: Value) -> Value:
        """Integers of any shape as a vector."""
        return self.integers("Reshape", integers, self.constant([-1]))

    def shape(self, value: Value) -> Value:
        """Shape of a value [rank]."""
        if self._fixed and value in self._lengths:
            return self.constant(self._lengths[value])
        if value not in self._shapes:
            self._shapes[value] = self.integers("Shape", value)
        return self._shapes[value]

    def dims(self, value: Value, axes: Sequence[int]) -> Value:
        """Lengths of some axes [len(axes)]."""
        rank = self.rank(value)
        return self.integers("Gather", self.shape(value), self.constant([a % rank for a in axes]))

    # --- order ----------------------------------------------------------------------------------
    def zero_of(self, values: Sequence[Value]) -> Value:
        """Zero [1], computed from a number of each real value; no optimiser knows that it is zero.

        What it is added to waits for all the values.
        """
        firsts = []
        for value in values:
            flat = self.node("Reshape", [value, self.constant([-1])], 1, dtype=value.dtype)
            ends = self.constant([0]), self.constant([1])
            first = self.node("Slice", [flat, *ends], 1, dtype=value.dtype)
            firsts.append(self.cast(first, ir.DataType.FLOAT))
        numbers = firsts[0] if len(firsts) == 1 else self.concat(firsts, 0)
        flags = self.integers("Cast", self.flags("Less", numbers, numbers), to=ir.DataType.INT64)
        return self.integers("ReduceSum", flags, self.constant([0]), keepdims=1)

    def behind(self, a: Value, zero: Value) -> Value:
        """The same tensor, not there before ``zero`` of :meth:`zero_of`; without a copy."""
        shape = self.integers("Add", self.integers("Shape", a), zero)
        moved = self.node("Reshape", [a, shape], self.rank(a), dtype=a.dtype)
        moved.shape = a.shape
        return moved

    # --- arithmetic -----------------------------------------------------------------------------
    def _binary(self, op_type: str, a: Value, b: Value) -> Value:
        a, b = self._alike(a, b)
        return self.node(op_type, [a, b], max(self.rank(a), self.rank(b)))

    def add(self, a: Value, b: Value) -> Value:
        return self._binary("Add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        return self._binary("Sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        product = self._binary("Mul", a, b)
        for scaled, number in ((a, b), (b, a)):
            constant = number.const_value
            if constant is not None and constant.size == 1 and self.rank(number) <= 1:
                node = product.producer()
                if node is not None and self.kind(product) == self.kind(scaled):
                    self._scalings[node] = scaled, float(constant.numpy().item())
        return product

    def div(self, a: Value, b: Value) -> Value:
        return self._binary("Div", a, b)

    def scale(self, a: Value, factor: float) -> Value:
        if factor == 1.0:
            return a
        if factor == -1.0:
            return self.node("Neg", [a], self.rank(a))
        return self.mul(a, self.real(factor, a))

    def shift(self, a: Value, offset: float) -> Value:
        return self.add(a, self.real(offset, a))

    def power(self, a: Value, exponent: float) -> Value:
        if exponent == 1.0:
            return a
        if exponent == 0.5:
            return self.node("Sqrt", [a], self.rank(a))
        if exponent == 2.0:
            return self.mul(a, a)
        return self._binary("Pow", a, self.real(exponent, a))

    def relu(self, a: Value) -> Value:
        return self.node("Relu", [a], self.rank(a))

    def absolute(self, a: Value) -> Value:
        return self.node("Abs", [a], self.rank(a))

    def sign(self, a: Value) -> Value:
        return self.node("Sign", [a], self.rank(a))

    def gated(self, m: Value, y: Value) -> Value:
        # Truth values are a quarter of y, which need not be kept.
        condition = self.flags("Greater", y, self.real(0.0, y))
        if self._bounded:  # else they were there as numbers, for all layers, before m is
            condition = self.behind(condition, self.zero_of([m]))
        return self.select(m, condition, True)

    def exp(self, a: Value) -> Value:
        return self.node("Exp", [a], self.rank(a))

    def function(self, op_type: str, a: Value, *numbers: float, **attributes: float) -> Value:
        operands = [self.real(number, a) for number in numbers]
        named: dict[str, Any] = attributes
        return self.node(op_type, [a, *operands], self.rank(a), **named)

    def ratio(self, y: Value, x: Value, at_zero: float) -> Value:
        zero = self.flags("Equal", x, self.real(0.0, x))
        safe = self.choose(zero, self.real(1.0, x), x)
        return self.choose(zero, self.real(at_zero, x), self.div(y, safe))

    def relevance(self, x: Value, m: Value) -> Value:
        x, m = self.wide(x), self.wide(m)
        # Infinite mask entries become finite, so that a multiplier of 0 gives 0 and not NaN.
        largest = float(np.finfo(self.kind(x).numpy()).max)
        bounds = [self.real(-largest, x), self.real(largest, x)]
        return self.mul(self.node("Clip", [x, *bounds], self.rank(x)), m)

    def choose(self, condition: Value, a: Value, b: Value) -> Value:
        a, b = self._alike(a, b)
        rank = max(map(self.rank, (condition, a, b)))
        return self.node("Where", [condition, a, b], rank, dtype=self.kind(a))

    def select(self, m: Value, condition: Value, truth: bool) -> Value:
        # ONNX Runtime's Where runs on one core; a product does not.
        if not truth:
            condition = self.node("Not", [condition], self.rank(condition), dtype=ir.DataType.BOOL)
        return self.mul(m, self._number(condition, self.kind(m)))

    def winners(self, x: Value, y: Value) -> Value:
        return self._number(self.flags("Equal", x, y), self.kind(x))

    def _number(self, value: Value, kind: ir.DataType) -> Value:
        return self.node("Cast", [value], self.rank(value), to=kind, dtype=kind)

    def zeros_like(self, like: Value) -> Value:
        return self._zeros(self.shape(like), self.rank(like), self.kind(like))

    # --- linear algebra -------------------------------------------------------------------------
    def matmul(
        self, a: Value, b: Value, *, transpose_a: bool = False, transpose_b: bool = False
    ) -> Value:
        rank = max(self.rank(a), self.rank(b))
        if a is self.seed and transpose_b and (rows := read_rows(self, a, b)) is not None:
            a, b, transpose_b = *rows, False
        if self._portable:
            left = self._swapped(a) if transpose_a else a
            right = self._swapped(b) if transpose_b else b
            return self.node("MatMul", [left, right], rank)
        a, first = self._unscaled(a)
        b, second = self._unscaled(b)
        if not (transpose_a or transpose_b) and first * second == 1.0:
            return self.node("MatMul", [a, b], rank)
        return self.node(
            "FusedMatMul",
            [a, b],
            rank,
            domain="com.microsoft",
            transA=int(transpose_a),
            transB=int(transpose_b),
            alpha=first * second,
        )

    def _unscaled(self, a: Value) -> tuple[Value, float]:
        """The operand of the scalings that led to ``a``, and the product of their factors.

        ``FusedMatMul`` applies the factor itself, which saves a pass over attention scores.
        """
        factor = 1.0
        while (node := a.producer()) in self._scalings:
            assert node is not None
            a, number = self._scalings[node]
            factor *= number
        return a, factor

    def drop_unused(self) -> None:
        """Remove appended nodes that lead to no output."""
        for node in reversed(self.made):
            if not any(v.uses() or v.is_graph_output() for v in node.outputs):
                self._graph.remove(node, safe=True)

    def _swapped(self, a: Value) -> Value:
        axes = list(range(self.rank(a)))
        return self.transpose(a, [*axes[:-2], axes[-1], axes[-2]])

    def outer_first(self, a: Value, b: Value) -> Value:
        return self.mul(self.unsqueeze(a, [-1]), self.unsqueeze(b, [-2]))

    def einsum(self, equation: str, operands: Sequence[Value]) -> Value:
        rank = len(equation.partition("->")[2])
        return self.node("Einsum", list(operands), rank, equation=equation)

    def conv_adjoint(self, m: Value, weight: Value, like: Value, window: Window) -> Value:
        kernel = _static(weight)
        pads = None if kernel is None else _turned_pads(window, kernel[2:])
        if kernel is not None and pads is not None:
            turned = self._turned(weight, kernel, window.group)
            named = {**_attributes(window), "pads": pads}
            return self.node("Conv", [m, turned], self.rank(like), **named)
        whole = self.node("ConvTranspose", [m, weight], self.rank(like), **_attributes(window))
        begins = self._begins(window, weight, m, like)
        # Padding is cut off; places at the end that no window covers get zeros.
        return self._framed(whole, self.integers("Neg", begins), self.shape(like))

    def _turned(self, weight: Value, shape: Shape, group: int) -> Value:
        """The kernel of the adjoint of a convolution whose windows begin at every place.

        In each group it has inputs and outputs swapped, and its places in reverse order.
        """
        outputs, inputs, *places = shape
        rank, plane = len(shape), range(2, len(shape))
        back = self.constant([-1] * len(plane))
        past = self.constant([np.iinfo(np.int64).min] * len(plane))
        turned = self.node("Slice", [weight, back, past, self.constant([*plane]), back], rank)
        split = self.constant([group, outputs // group, inputs, *places])
        parts = self.reshape(turned, split, rank + 1)
        swapped = self.transpose(parts, [0, 2, 1, *range(3, rank + 1)])
        joined = self.constant([group * inputs, outputs // group, *places])
        return self.reshape(swapped, joined, rank)

    def conv(self, image: Value, weight: Value, like: Value, window: Window) -> Value:
        begins = self._begins(window, weight, like, image)
        needed = self._needed(window, weight, like)
        shape = self.integers("Concat", self.dims(image, [0, 1]), needed, axis=0)
        framed = self._framed(image, begins, shape)
        return self.node("Conv", [framed, weight], self.rank(image), **_attributes(window))

    def _framed(self, image: Value, begins: Value, shape: Value) -> Value:
        """An image with zeros at the start of its spatial axes, or cut, extended to ``shape``."""
        first = self.integers("Concat", self.constant([0, 0]), begins, axis=0)
        room = self.integers("Sub", shape, self.shape(image))
        pads = self.integers("Concat", first, self.integers("Sub", room, first), axis=0)
        return self.node("Pad", [image, pads], self.rank(image))

    def _needed(self, window: Window, weight: Value, small: Value) -> Value:
        """Places of an image that windows cover, one window for every place of ``small``."""
        plane = range(2, self.rank(small))
        last = [
            self.integers("Sub", self.dims(v, plane), self.constant(1)) for v in (small, weight)
        ]
        steps = (window.strides, window.dilations)
        offsets = [
            self.integers("Mul", number, self.constant(list(step)))
            for number, step in zip(last, steps, strict=True)
        ]
        return self.integers("Add", self.integers("Add", *offsets), self.constant(1))

    def _begins(self, window: Window, weight: Value, small: Value, large: Value) -> Value:
        """Zeros at the start of each spatial axis of an image ``large``."""
        if not isinstance(window.pads, str):
            return self.constant(list(window.pads[: len(window.strides)]))
        needed = self._needed(window, weight, small)
        wanted = self.integers("Add", needed, self.constant(list(window.output_padding)))
        lacking = self.integers("Sub", wanted, self.dims(large, range(2, self.rank(large))))
        lacking = self.integers("Max", lacking, self.constant(0))
        if window.pads == "SAME_LOWER":
            lacking = self.integers("Add", lacking, self.constant(1))
        return self.integers("Div", lacking, self.constant(2))

    def interpolation(
        self, x: Value, y: Value, axis: int, scale: float | None, interpolation: Interpolation
    ) -> Value:
        before, after = self.dims(x, [axis]), self.dims(y, [axis])
        sizes = self.integers("Concat", self.constant([1, 1]), after, before, axis=0)
        operands: list[Value | None] = [None, None, sizes]
        if scale is not None:
            operands = [None, self.constant([1, 1, scale, 1], np.float32)]
        return self._of_identity("Resize", x, axis, operands, interpolation)

    def averaging(self, x: Value, axis: int, pooling: Pooling) -> Value:
        return self._of_identity("AveragePool", x, axis, [], pooling)

    def _of_identity(
        self,
        op_type: str,
        x: Value,
        axis: int,
        operands: Sequence[Value | None],
        attributes: Mapping[str, Any],
    ) -> Value:
        """The matrix of a linear operation along one axis: what it makes of an identity matrix."""
        size = self.dims(x, [axis])
        square = self.integers("Concat", size, size, axis=0)
        eye = self.node("EyeLike", [self.node("ConstantOfShape", [square], 2)], 2)
        made = self.node(op_type, [self.unsqueeze(eye, [0, 1]), *operands], 4, **attributes)
        matrix = self.node("Squeeze", [made, self.constant([0, 1])], 2)
        return self.cast_like(matrix, x)

    def max_pool_adjoint(self, m: Value, x: Value, pooling: Pooling) -> Value:
        attributes: Mapping[str, Any] = pooling
        made = ir.node("MaxPool", [x], attributes, num_outputs=2)
        for output, kind in zip(made.outputs, (self.kind(x), ir.DataType.INT64), strict=True):
            output.name, output.dtype = f"relevance/{len(self.made)}/{kind.name}", kind
            self._ranks[output] = self.rank(x)
        self._append(made)
        size = self._flat(self.integers("Size", x))
        sent = self.reshape(m, self.constant([-1]), 1)
        zeros = self._zeros(size, 1, self.kind(m))
        return self.reshape_like(self._added(zeros, self._flat(made.outputs[1]), sent, 0), x)

    def _added(self, zeros: Value, index: Value, m: Value, axis: int) -> Value:
        """``m`` added to ``zeros`` at ``index``, as ``ScatterElements`` reads it."""
        self._require_adding()
        inputs = [zeros, index, m]
        rank = self.rank(zeros)
        return self.node("ScatterElements", inputs, rank, axis=axis, reduction="add")

    def _require_adding(self) -> None:
        if self._opset < 16:
            raise LaterOpsetError(16, "Adding up at indices")

    # --- reductions -----------------------------------------------------------------------------
    def sum(self, a: Value, axes: Sequence[int], *, keepdims: bool = True) -> Value:
        if not axes:
            return a
        rank = self.rank(a) - (0 if keepdims else len(axes))
        return self.node("ReduceSum", [a, self.constant(list(axes))], rank, keepdims=int(keepdims))

    def mean(self, a: Value, axes: Sequence[int]) -> Value:
        if self._opset < 18:
            return self.node("ReduceMean", [a], self.rank(a), axes=list(axes), keepdims=1)
        return self.node("ReduceMean", [a, self.constant(list(axes))], self.rank(a), keepdims=1)

    def sum_to(self, a: Value, like: Value) -> Value:
        extra = self.rank(a) - self.rank(like)
        a = self.sum(a, range(extra), keepdims=False)
        ones = self._ones(like)
        if ones is not None:
            return self.sum(a, ones)
        differs = self.node(
            "Not",
            [self.node("Equal", [self.shape(a), self.shape(like)], 1, dtype=ir.DataType.BOOL)],
            1,
            dtype=ir.DataType.BOOL,
        )
        found = self.node("NonZero", [differs], 2, dtype=ir.DataType.INT64)
        axes = self._flat(found)
        return self.node(
            "ReduceSum", [a, axes], self.rank(like), keepdims=1, noop_with_empty_axes=1
        )

    def mean_weight(self, like: Value, reduced: Value) -> Value:
        sizes = [self.node("Size", [v], 0, dtype=ir.DataType.INT64) for v in (reduced, like)]
        share = self.div(*(self._number(n, ir.DataType.FLOAT) for n in sizes))
        return self.cast_like(share, reduced)

    def _ones(self, value: Value) -> list[int] | None:
        """Axes of length 1; ``None`` where the length of one is not known.

        An axis of free length that was longer in the trial run is not one that is broadcast, if
        another axis is.
        """
        tried = self._lengths.get(value)
        if tried is None or (value.shape is None and not self._fixed):
            return None
        fixed = [self._fixed or isinstance(length, int) for length in value.shape or tried]
        if any(length == 1 and not known for length, known in zip(tried, fixed, strict=True)):
            return None
        ones = [axis for axis, length in enumerate(tried) if length == 1]
        return ones if ones or all(fixed) else None

    def cumulative_adjoint(self, m: Value, axis: int, *, exclusive: bool, reverse: bool) -> Value:
        place = self.constant(axis)
        rank = self.rank(m)
        return self.node(
            "CumSum", [m, place], rank, exclusive=int(exclusive), reverse=int(not reverse)
        )

    # --- recurrences ----------------------------------------------------------------------------
    def scan(
        self,
        step: RecurrenceStep,
        states: Sequence[Value],
        along: Sequence[Value],
        *,
        reverse: bool,
    ) -> tuple[Sequence[Value], Sequence[Value]]:
        inner = self._inside()
        own = [inner._argument(v, self.rank(v), k) for k, v in enumerate(states)]
        entries = [
            inner._argument(v, self.rank(v) - 1, k) for k, v in enumerate(along, len(states))
        ]
        after, results = step(inner, own, entries)
        outputs = inner._own_outputs([*after, *results])
        ranks = [inner.rank(v) + (k >= len(own)) for k, v in enumerate(outputs)]
        inner._graph.inputs.extend([*own, *entries])
        inner._graph.outputs.extend(outputs)
        for value in inner._graph.outputs:  # the runtime needs their ranks
            value.shape = ir.Shape([None] * inner.rank(value))
        attributes: dict[str, Any] = {"body": inner._graph, "num_scan_inputs": len(along)}
        if reverse:
            attributes["scan_input_directions"] = [1] * len(along)
            attributes["scan_output_directions"] = [1] * len(results)
        made = ir.node("Scan", [*states, *along], attributes, num_outputs=len(ranks))
        found = self._several(made, ranks, self.kind(*states))
        return found[: len(own)], found[len(own) :]

    def loop(
        self,
        count: Value,
        states: Sequence[Value],
        step: Callable[[Emit, Value, Sequence[Value]], Sequence[Value]],
    ) -> Sequence[Value]:
        """States after ``count`` steps; a step may change their lengths.

        Args:
            count: A single integer.
            states: The states before the first step.
            step: Yields the states after a step, from its number and the states before it.
        """
        inner = self._inside()
        number = ir.Value(name=f"{inner._stem}/number", type=ir.TensorType(ir.DataType.INT64))
        going = ir.Value(name=f"{inner._stem}/going", type=ir.TensorType(ir.DataType.BOOL))
        number.shape = going.shape = ir.Shape([])
        inner._ranks.update({number: 0, going: 0})
        own = [inner._argument(v, self.rank(v), k) for k, v in enumerate(states)]
        after = inner._own_outputs([going, *step(inner, number, own)])
        after[0].dtype = ir.DataType.BOOL
        inner._graph.inputs.extend([number, going, *own])
        inner._graph.outputs.extend(after)
        for value in after:
            value.shape = ir.Shape([None] * inner.rank(value))
        body = {"body": inner._graph}
        made = ir.node("Loop", [count, None, *states], body, num_outputs=len(states))
        return self._several(made, [self.rank(v) for v in states], self.kind(*states))

    def _inside(self) -> Emit:
        """The same language, writing the body of a node; it shares initializers."""
        inner = copy(self)
        inner._stem = f"{self._stem}/{len(self.made)}"
        inner._graph = ir.Graph([], [], nodes=[], name=inner._stem)
        inner.made, inner._scalings, inner._shapes = [], {}, dict(self._shapes)
        return inner

    def _own_outputs(self, values: Sequence[Value]) -> list[Value]:
        """The values as outputs of a body: made inside of it, each listed once."""
        found: dict[Value, None] = {}
        for value in values:
            maker = value.producer()
            inside = maker is not None and maker.graph is self._graph and value not in found
            found[value if inside else self.node("Identity", [value], self.rank(value))] = None
        return list(found)

    def _argument(self, like: Value, rank: int, index: int) -> Value:
        """An argument of a body."""
        kind = like.dtype or self.kind(like)
        value = ir.Value(name=f"{self._stem}/argument/{index}", type=ir.TensorType(kind))
        self._ranks[value] = rank
        return value

    def within(self, lengths: Value, like: Value) -> Value:
        steps = self.counting(self.integers("Squeeze", self.dims(like, [0])))
        columns = self.integers("Unsqueeze", steps, self.constant([1, 2, 3]))
        wide = self.integers("Cast", lengths, to=ir.DataType.INT64)
        rows = self.integers("Unsqueeze", wide, self.constant([0, 1, 3]))
        held = self.node("Less", [columns, rows], 4, dtype=ir.DataType.BOOL)
        return self._number(held, self.kind(like))

    # --- movement -------------------------------------------------------------------------------
    def transpose(self, a: Value, perm: Sequence[int]) -> Value:
        if list(perm) == list(range(len(perm))):
            return a
        return self.node("Transpose", [a], len(perm), perm=list(perm), dtype=a.dtype)

    def unsqueeze(self, a: Value, axes: Sequence[int]) -> Value:
        if not axes:
            return a
        rank = self.rank(a) + len(axes)
        return self.node("Unsqueeze", [a, self.constant(list(axes))], rank, dtype=a.dtype)

    def reshape_like(self, a: Value, like: Value) -> Value:
        return self.reshape(a, self.shape(like), self.rank(like))

    def reshape(self, a: Value, shape: Value, rank: int) -> Value:
        """Reshape to lengths that are a tensor; zero is a length, of rows that nothing picked."""
        if self._opset < 14:
            return self.node("Reshape", [a, shape], rank)
        return self.node("Reshape", [a, shape], rank, allowzero=1)

    def expand_like(self, a: Value, like: Value) -> Value:
        return self.node("Expand", [a, self.shape(like)], self.rank(like))

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        return self.node("Concat", list(self._alike(*parts)), self.rank(parts[0]), axis=axis)

    def split_like(self, a: Value, likes: Sequence[Value], axis: int) -> tuple[Value, ...]:
        sizes = self.integers("Concat", *(self.dims(v, [axis]) for v in likes), axis=0)
        rank = self.rank(a)
        made = ir.node("Split", [a, sizes], {"axis": axis}, num_outputs=len(likes))
        return self._several(made, [rank] * len(likes), self.kind(a))

    def _several(self, made: ir.Node, ranks: Sequence[int], kind: ir.DataType) -> tuple[Value, ...]:
        """Append a node with several outputs of one type."""
        for index, (output, rank) in enumerate(zip(made.outputs, ranks, strict=True)):
            output.name = f"{self._stem}/{len(self.made)}/{index}"
            output.dtype = kind
            self._ranks[output] = rank
        self._append(made)
        return tuple(made.outputs)

    def turn(self, a: Value) -> Value:
        back = self.constant([-1])
        past = self.constant([np.iinfo(np.int64).min])
        return self.node("Slice", [a, back, past, self.constant([0]), back], self.rank(a))

    def chunks(self, a: Value, count: int, axis: int) -> tuple[Value, ...]:
        if count == 1:
            return (a,)
        attributes = {"axis": axis, **({"num_outputs": count} if self._opset >= 18 else {})}
        made = ir.node("Split", [a], attributes, num_outputs=count)
        return self._several(made, [self.rank(a)] * count, self.kind(a))

    def slice_adjoint(
        self,
        m: Value,
        like: Value,
        starts: Value,
        ends: Value,
        axes: Value | None,
        steps: Value | None,
    ) -> Value:
        chosen = self._known(axes) if axes is not None else None
        if chosen is None:
            chosen = list(range(self._length(starts)))
        if steps is None or self._known(steps) == [1] * len(chosen):
            size = self.dims(like, chosen)
            return self._placed(m, like, chosen, self._clamped(starts, size))
        whole = [self.integers("Cast", v, to=ir.DataType.INT64) for v in (starts, ends, steps)]
        operands = [*whole[:2], self.constant(chosen), whole[2]]
        return self.moved_adjoint(m, like, Movement("Slice", self._opset, {}), operands)

    def _placed(self, m: Value, like: Value, axes: Sequence[int], begins: Value) -> Value:
        """Zeros shaped like ``like``, with ``m`` from ``begins`` on along ``axes``."""
        rank = self.rank(like)
        places = self.constant([axis % rank for axis in axes])
        first = self.integers("ScatterElements", self.constant([0] * rank), places, begins, axis=0)
        room = self.integers("Sub", self.shape(like), self.shape(m))
        rest = self.integers("Sub", room, first)
        return self.node("Pad", [m, self.integers("Concat", first, rest, axis=0)], rank)

    def _clamped(self, starts: Value, size: Value) -> Value:
        """Start indices as counted from the front, inside the axis."""
        wide = self.integers("Cast", starts, to=ir.DataType.INT64)
        negative = self.node("Less", [wide, self.constant(0)], 1, dtype=ir.DataType.BOOL)
        index = self.integers("Where", negative, self.integers("Add", wide, size), wide)
        return self.integers("Max", self.integers("Min", index, size), self.constant(0))

    def _known(self, value: Value) -> list[int] | None:
        if value.const_value is None:
            return None
        return [int(v) for v in value.const_value.numpy().ravel()]

    def _length(self, value: Value) -> int:
        known = self._known(value)
        if known is None:
            raise NotImplementedError("a slice whose axes are not constant")
        return len(known)

    def _zeros(self, shape: Value, rank: int, kind: ir.DataType) -> Value:
        zero = ir.tensor(np.zeros(1, kind.numpy()))
        return self.node("ConstantOfShape", [shape], rank, value=zero, dtype=kind)

    def pad_adjoint(self, m: Value, like: Value, pads: Value, axes: Value | None) -> Value:
        inputs: list[Value | None] = [m, self.integers("Neg", pads)]
        if axes is not None:
            inputs += [None, axes]
        return self.node("Pad", inputs, self.rank(like))

    def tile_adjoint(self, m: Value, like: Value) -> Value:
        rank = self.rank(like)
        copies = self.integers("Div", self.shape(m), self.shape(like))
        columns = [
            self.node("Unsqueeze", [v, self.constant([1])], 2, dtype=ir.DataType.INT64)
            for v in (copies, self.shape(like))
        ]
        pairs = self.node("Concat", columns, 2, dtype=ir.DataType.INT64, axis=1)
        flat = self._flat(pairs)
        split = self.reshape(m, flat, 2 * rank)
        return self.sum(split, range(0, 2 * rank, 2), keepdims=False)

    def gather_adjoint(self, m: Value, like: Value, index: Value, axis: int) -> Value:
        rank, picked = self.rank(like), self.rank(index)
        axis %= rank
        size = self.dims(like, [axis])
        if picked == 0:
            begin = self._clamped(self._flat(index), size)
            return self._placed(self.unsqueeze(m, [axis]), like, [axis], begin)
        # With one-hot rows the sum is a matrix product.
        order = [axis, *(a for a in range(rank) if a != axis)]
        middle = list(range(axis, axis + picked))
        moved = self.transpose(m, [*middle, *(a for a in range(self.rank(m)) if a not in middle)])
        count = self._flat(self.integers("Size", index))
        width = self.integers("ReduceProd", self.dims(like, order[1:]), keepdims=1)
        rows = self.reshape(moved, self.integers("Concat", count, width, axis=0), 2)
        hot = self.one_hot(self._flat(index), size, m)
        summed = self.matmul(hot, rows, transpose_a=True)
        shape = self.dims(like, order)
        back = self.reshape(summed, shape, rank)
        return self.transpose(back, sorted(range(rank), key=lambda k: order[k]))

    def one_hot(self, index: Value, depth: Value, like: Value) -> Value:
        """Rows of zeros with a one at ``index``; negative indices count from the end."""
        # ONNX Runtime has no OneHot for double.
        values = self.constant([0, 1], np.float32)
        hot = self.node("OneHot", [index, depth, values], self.rank(index) + 1, axis=-1)
        return self.cast_like(hot, like)

    def gather_elements_adjoint(self, m: Value, like: Value, index: Value, axis: int) -> Value:
        zeros = self._zeros(self.shape(like), self.rank(like), self.kind(m))
        return self._added(zeros, index, m, axis)

    def gather_nd_adjoint(self, m: Value, like: Value, index: Value, batch_dims: int) -> Value:
        self._require_adding()
        inputs = [self.zeros_like(like), self._whole_index(index, batch_dims), m]
        return self.node("ScatterND", inputs, self.rank(like), reduction="add")

    def _whole_index(self, index: Value, batch_dims: int) -> Value:
        """An index [.., k] with the coordinates of its first ``batch_dims`` axes put in front."""
        rank = self.rank(index)
        one = self.constant([1])
        shape = self.integers("Concat", self.dims(index, range(rank - 1)), one, axis=0)
        columns = []
        for axis in range(batch_dims):
            count = self.integers("Squeeze", self.dims(index, [axis]))
            numbers = self.counting(count)
            others = self.constant([a for a in range(rank) if a != axis])
            columns.append(
                self.integers("Expand", self.integers("Unsqueeze", numbers, others), shape)
            )
        if not columns:
            return index
        wide = self.integers("Cast", index, to=ir.DataType.INT64)
        return self.integers("Concat", *columns, wide, axis=rank - 1)

    def scatter_nd_cleared(self, m: Value, index: Value) -> Value:
        taken = self.gather_nd(m, index)
        zeros = self.mul(taken, self.real(0.0, taken))
        return self.node("ScatterND", [m, index, zeros], self.rank(m))

    def gather_nd(self, a: Value, index: Value) -> Value:
        depth = index.shape[-1] if index.shape is not None else None
        if not isinstance(depth, int):
            raise NotImplementedError("ScatterND whose index has no fixed depth")
        return self.node("GatherND", [a, index], self.rank(index) - 1 + self.rank(a) - depth)

    def scatter_elements_cleared(self, m: Value, index: Value, axis: int) -> Value:
        taken = self.gather_elements(m, index, axis)
        zeros = self.mul(taken, self.real(0.0, taken))
        return self.node("ScatterElements", [m, index, zeros], self.rank(m), axis=axis)

    def gather_elements(self, a: Value, index: Value, axis: int) -> Value:
        return self.node("GatherElements", [a, index], self.rank(a), axis=axis)

    def moved_adjoint(
        self,
        m: Value,
        like: Value,
        movement: Movement,
        operands: Sequence[Value | None],
    ) -> Value:
        count = self.integers("Add", self.integers("Size", like), self.constant(1))
        numbers = self.integers("Range", self.constant(1), count, self.constant(1))
        # Double holds every number exactly, and every operation that moves supports it.
        whole = self.reshape_like(self._number(numbers, ir.DataType.DOUBLE), like)
        moved = self.node(
            movement.op_type,
            [whole, *operands],
            self.rank(m),
            dtype=ir.DataType.DOUBLE,
            **movement.attributes,
        )
        index = self._flat(self._number(moved, ir.DataType.INT64))
        sent = self.reshape(m, self.constant([-1]), 1)
        zeros = self._zeros(self._flat(count), 1, self.kind(m))
        if movement.repeats:
            added = self._added(zeros, index, sent, 0)
        else:
            added = self.node("ScatterElements", [zeros, index, sent], 1, axis=0)
        ends = self.constant([np.iinfo(np.int64).max])
        return self.reshape_like(self.node("Slice", [added, self.constant([1]), ends], 1), like)

    def triangle(self, m: Value, k: int, *, upper: bool) -> Value:
        return self.node("Trilu", [m, self.constant(k)], self.rank(m), upper=int(upper))

    # --- rows -----------------------------------------------------------------------------------
    def row(self, table: Value, index: int) -> Value:
        rank = self.rank(table) - 1
        return self.node("Gather", [table, self.constant(index)], rank, dtype=table.dtype)

    def take_rows(self, x: Value, index: Value, batch: int, axis: int) -> Value:
        rank = self.rank(x)
        if axis == batch:
            taken = self.take_rows(self._split_batch(x, axis), index, axis - 1, axis)
            gone = self.constant([axis])
            return self.node("Squeeze", [taken, gone], rank, dtype=x.dtype)
        order = [rank + batch, rank + axis]
        order += [a for a in range(rank) if a not in order]
        where = self.integers("Unsqueeze", index, self.constant([1, 2]))
        moved = self.transpose(x, order)
        picked = self.node("GatherND", [moved, where], rank, batch_dims=1, dtype=x.dtype)
        return self.transpose(picked, sorted(range(rank), key=lambda a: order[a]))

    def take_shared_rows(self, x: Value, index: Value, batch: int, axis: int) -> Value:
        x = self.unsqueeze(x, list(range(-batch - self.rank(x))))
        rank = self.rank(x)
        taken = self.node("Gather", [x, index], rank, axis=rank + axis, dtype=x.dtype)
        order = list(range(rank))
        order[batch], order[axis] = order[axis], order[batch]
        return self.transpose(taken, order)

    def put_rows(self, rows: Value, like: Value, index: Value, batch: int, axis: int) -> Value:
        rank = self.rank(like)
        if axis == batch:
            parts, whole = self.unsqueeze(rows, [rank + axis + 1]), self._split_batch(like, axis)
            return self.reshape_like(self.put_rows(parts, whole, index, axis - 1, axis), like)
        hot = self.one_hot(index, self.dims(like, [axis]), rows)
        if axis < batch:
            hot = self.transpose(hot, [1, 0])
        others = [a for a in range(rank) if a - rank not in (batch, axis)]
        return self.mul(rows, self.unsqueeze(hot, others))

    def _split_batch(self, x: Value, axis: int) -> Value:
        """An axis of samples × tokens as two axes."""
        return self._split(x, axis, [self.batch, self.constant([-1])])

    def _split(self, x: Value, axis: int, lengths: Sequence[Value]) -> Value:
        """An axis as axes of these lengths, each [1]."""
        at, rank = self.rank(x) + axis, self.rank(x) - 1 + len(lengths)
        before = [self.dims(x, range(at))] if at else []
        after = [self.dims(x, range(at + 1, self.rank(x)))] if axis < -1 else []
        shape = self.integers("Concat", *before, *lengths, *after, axis=0)
        return self.node("Reshape", [x, shape], rank, dtype=x.dtype)

    def row_index(self, index: Value) -> Value:
        return self.integers("Expand", self._flat(index), self.batch)

    def row_column(self, index: Value, column: int) -> Value:
        return self.integers("Gather", index, self.constant(column), axis=1)

    def row_within(self, index: Value, like: Value) -> Value:
        size = self.integers("Div", self.dims(like, [0]), self.batch)
        return self.integers("Mod", index, size)

    # --- ledger and sinks -----------------------------------------------------------------------
    def samples_first(self, a: Value, axis: int, inner: int) -> Value:
        at, lengths = self.rank(a) + axis, [self.constant([-1]), self.batch, self.constant([inner])]
        parts = self._split(a, axis, lengths)
        order = list(range(self.rank(parts)))
        order[at], order[at + 1] = at + 1, at
        return self.reshape_like(self.transpose(parts, order), a)

    def per_sample(self, relevance: Value, batch_axis: int) -> Value:
        relevance = self.wide(relevance)
        rank = self.rank(relevance)
        batch = batch_axis % rank if rank else 0
        if batch < rank - 1:  # the last axis first, which ONNX Runtime sums on all cores
            relevance = self.sum(relevance, [rank - 1])
        moved = self.transpose(relevance, [batch, *(a for a in range(rank) if a != batch)])
        shape = self.integers("Concat", self.batch, self.constant([-1]), axis=0)
        return self.sum(self.reshape(moved, shape, 2), [1], keepdims=False)

    def arrange(
        self,
        relevance: Value,
        *,
        batch_axis: int,
        token_axes: Sequence[int],
        feature_axes: Sequence[int],
    ) -> Value:
        if not self.rank(relevance):
            relevance = self.unsqueeze(relevance, [0])
        rank = self.rank(relevance)
        batch = batch_axis % rank
        tokens, features = ([a % rank for a in axes] for axes in (token_axes, feature_axes))
        if batch not in tokens:
            # The axis may hold samples × heads; samples are its outermost factor.
            relevance = self._split_batch(relevance, batch - rank)
            tokens, features = ([a + (a > batch) for a in axes] for axes in (tokens, features))
            rank += 1
        named = [batch, *(a for a in tokens if a != batch), *features]
        rest = [a for a in range(rank) if a not in named]
        moved = self.transpose(relevance, [*named, *rest])
        summed = self.sum(moved, range(len(named), rank), keepdims=False)
        size = self.constant([1])
        for axis in tokens:
            size = self.integers("Mul", size, self.dims(relevance, [axis]))
        if batch in tokens:
            size = self.integers("Div", size, self.batch)
        width = self.constant([1])
        for axis in features:
            width = self.integers("Mul", width, self.dims(relevance, [axis]))
        return self.reshape(summed, self.integers("Concat", self.batch, size, width, axis=0), 3)

    def unfold(self, a: Value, like: Value, batch_axis: int, token_axes: Sequence[int]) -> Value:
        rank = self.rank(like)
        batch, tokens = batch_axis % rank, [k % rank for k in token_axes]
        rest = [k for k in tokens if k != batch]
        if batch not in tokens:
            one, count = self.constant([1]), self.constant([-1])
            first = self.dims(like, [batch])
            heads = self.integers("Div", first, self.batch)
            apart = self.unsqueeze(a, [1])
            shape = self.integers("Concat", one, heads, one, axis=0)
            shared = self.node("Expand", [apart, shape], 3)
            a = self.div(shared, self._number(heads, self.kind(a)))
            a = self.reshape(a, self.integers("Concat", first, count, axis=0), 2)
        order = [batch, *rest]
        parts = self.reshape(a, self.dims(like, order), len(order))
        return self.transpose(parts, sorted(range(len(order)), key=lambda k: order[k]))

    def check(self, a: Value, place: str) -> None:
        """Does nothing: there are no numbers yet."""


def held_back(node: ir.Node) -> Value | None:
    """The tensor that a node of :meth:`Emit.behind` lets wait; ``None`` for other nodes."""
    tensor, shape = node.inputs[:2] if node.op_type == "Reshape" else (None, None)
    total = None if shape is None else shape.producer()
    if total is None or total.op_type != "Add":
        return None
    makers = (None if v is None else v.producer() for v in total.inputs)
    own = any(m is not None and m.op_type == "Shape" and m.inputs[0] is tensor for m in makers)
    return tensor if own else None


def _static(value: Value) -> Shape | None:
    """The shape of a value, where it is known."""
    shape = value.shape
    return tuple(shape.numpy()) if shape is not None and shape.is_static() else None


def _turned_pads(window: Window, kernel: Shape) -> list[int] | None:
    """Padding with which a convolution with the turned kernel is the adjoint of a convolution.

    ``None`` where none is: windows skip places, or more is padded than they cover. The runtime
    computes ``ConvTranspose`` in a buffer of all windows, many times the image, and ``Conv`` not.
    """
    if any(step != 1 for step in window.strides):
        return None
    reach = [d * (k - 1) for d, k in zip(window.dilations, kernel, strict=True)]
    pads = window.pads
    if isinstance(pads, str):
        less, more = [r // 2 for r in reach], [r - r // 2 for r in reach]
        pads = [*less, *more] if pads == "SAME_UPPER" else [*more, *less]
    turned = [r - pad for r, pad in zip([*reach, *reach], pads, strict=True)]
    return turned if min(turned, default=0) >= 0 else None


def _attributes(window: Window) -> dict[str, Any]:
    """Attributes of a convolution without padding."""
    return {
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "group": window.group,
    }
