"""Shapes of the appended values in the trial run, from those of the file's values.

Nothing runs: shapes follow from operations, and the entries of small integer values, which name
lengths and axes, are computed beside them. What cannot be known so has no shape here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from math import prod

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.dims import spell_einsum
from palrp_onnx.compiler.rowwise import factor_axes, is_product
from palrp_onnx.model.ops import AxisRule, Trait, has, row_of
from palrp_onnx.model.values import constant, constant_axes
from palrp_onnx.types import Array, Shape

#: Integer values with more entries are no lengths.
_MOST = 64


class TrialShapes(dict[ir.Value, Shape]):
    """Value → its shape in the trial run.

    Args:
        shapes: Those that the trial run has shown.
        integers: Integer values of the trial run, by name.
    """

    def __init__(self, shapes: Mapping[ir.Value, Shape], integers: Mapping[str, Array]) -> None:
        super().__init__(shapes)
        self._integers = integers
        self._found: dict[ir.Value, Array] = {}

    def follow(self, nodes: Iterable[ir.Node]) -> None:
        """Find the shapes of the results of nodes in topological order."""
        for node in nodes:
            for value in node.inputs:
                if value is not None and value not in self and value.const_value is not None:
                    self[value] = tuple(value.const_value.shape.numpy())
            if any(v not in self for v in node.outputs) or self._is_number(node.outputs[0]):
                self._visit(node)

    def known(self, value: ir.Value | None) -> Array | None:
        """Entries of a small integer value, where they are known."""
        if value is None:
            return None
        if value not in self._found:
            array = constant(value) if value.const_value is not None else None
            if array is None:
                array = self._integers.get(value.name or "")
            if array is None or array.dtype.kind not in "iub" or array.size > _MOST:
                return None
            self._found[value] = array
        return self._found[value]

    def _is_number(self, value: ir.Value) -> bool:
        """Whether the entries of a value may be lengths."""
        whole = value.dtype is None or value.dtype.is_integer()
        return whole and prod(self[value]) <= _MOST and self.known(value) is None

    def _visit(self, node: ir.Node) -> None:
        try:
            array = self._entries(node)
            if array is not None and array.size <= _MOST:
                self._found[node.outputs[0]] = array
                self[node.outputs[0]] = array.shape
                return
            found = self._shapes(node)
        except (KeyError, ValueError, TypeError, IndexError):  # an operand is not known
            return
        for value, shape in zip(node.outputs, found, strict=False):
            self.setdefault(value, shape)

    def _entries(self, node: ir.Node) -> Array | None:
        """Entries of an integer result of integers, or of lengths."""
        first = node.inputs[0] if node.inputs else None
        if node.op_type == "Shape" and first is not None and first in self:
            return np.array(self[first][slice(*part_of_shape(node))], np.int64)
        if node.op_type == "Size" and first is not None and first in self:
            return np.array(prod(self[first]), np.int64)
        compute = _INTEGERS.get(node.op_type)
        arrays = [self.known(v) for v in node.inputs]
        if compute is None or any(a is None for a in arrays):
            return None
        return np.asarray(compute(node, *arrays))

    def _shapes(self, node: ir.Node) -> Sequence[Shape]:
        before = [() if v is None else self[v] for v in node.inputs]
        if is_product(node):
            return [_product(node, *before)]
        if has(node, Trait.TRIANGLE):
            return [before[0]]
        if node.op_type == "OneHot":
            depth = self._needed(node, 1).ravel()[0]
            return [(*before[0], int(depth))]
        if node.op_type == "ConstantOfShape":
            return [_lengths(self._needed(node, 0))]
        if node.op_type == "Range":
            return [np.arange(*(self._needed(node, k).ravel()[0] for k in range(3))).shape]
        rule = _SHAPES.get(row_of(node).axes)
        return [] if rule is None else rule(self, node, before)

    def _needed(self, node: ir.Node, index: int) -> Array:
        found = self.known(node.inputs[index])
        if found is None:
            raise KeyError(index)
        return found

    # --- shapes by axis rule ----------------------------------------------------------------------
    def _aligned(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        retyped = has(node, Trait.RETYPES | Trait.LIKE | Trait.UNARY)
        return [before[0] if retyped else np.broadcast_shapes(*before)]

    def _first(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        return [before[0]] * len(node.outputs)

    def _reshaped(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        if node.op_type == "Flatten":
            axis = node.attributes.get_int("axis", 1) % (len(before[0]) + 1)
            return [(prod(before[0][:axis]), prod(before[0][axis:]))]
        wanted, empty = _lengths(self._needed(node, 1)), node.attributes.get_int("allowzero", 0)
        sizes = [before[0][k] if n == 0 and not empty else n for k, n in enumerate(wanted)]
        rest = prod(n for n in sizes if n != -1)
        return [tuple(prod(before[0]) // rest if n == -1 else n for n in sizes)]

    def _ranked(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        axes, first = constant_axes(node), before[0]
        if node.op_type == "Unsqueeze":
            rank = len(first) + len(axes or ())
            ones = {a % rank for a in axes or ()}
            rest = iter(first)
            return [tuple(1 if k in ones else next(rest) for k in range(rank))]
        gone = {k for k, n in enumerate(first) if n == 1}
        if axes is not None:
            gone = {a % len(first) for a in axes}
        return [tuple(n for k, n in enumerate(first) if k not in gone)]

    def _permuted(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        order = node.attributes.get_ints("perm", tuple(reversed(range(len(before[0])))))
        return [tuple(before[0][k] for k in order)]

    def _repeated(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        wanted = _lengths(self._needed(node, 1))
        if node.op_type == "Expand":
            return [np.broadcast_shapes(before[0], wanted)]
        return [tuple(n * k for n, k in zip(before[0], wanted, strict=True))]

    def _cut(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        if node.op_type == "Slice":
            first, end = (self._needed(node, k).ravel() for k in (1, 2))
            axes, steps = (
                self._needed(node, k).ravel() if len(node.inputs) > k and node.inputs[k] else None
                for k in (3, 4)
            )
            sizes = list(before[0])
            for k in range(len(first)):
                axis = int(axes[k]) if axes is not None else k
                step = int(steps[k]) if steps is not None else 1
                sizes[axis] = len(
                    range(*slice(int(first[k]), int(end[k]), step).indices(sizes[axis]))
                )
            return [tuple(sizes)]
        if node.op_type == "Split":
            axis = _axis(node) % len(before[0])
            count = len(node.outputs)
            parts = [before[0][axis] // count] * count
            if len(node.inputs) > 1 and node.inputs[1] is not None:
                parts = list(_lengths(self._needed(node, 1)))
            return [(*before[0][:axis], part, *before[0][axis + 1 :]) for part in parts]
        pads = self._needed(node, 1).ravel()
        rank = len(before[0])
        return [tuple(n + int(pads[k]) + int(pads[k + rank]) for k, n in enumerate(before[0]))]

    def _joined(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        axis = _axis(node) % len(before[0])
        return [
            tuple(sum(b[k] for b in before) if k == axis else n for k, n in enumerate(before[0]))
        ]

    def _gathered(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        axis = _axis(node) % len(before[0])
        return [(*before[0][:axis], *before[1], *before[0][axis + 1 :])]

    def _gathered_elements(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        return [before[1]]

    def _gathered_nd(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        shared = node.attributes.get_int("batch_dims", 0)
        return [(*before[1][:-1], *before[0][shared + before[1][-1] :])]

    def _reduced(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        rank = len(before[0])
        if has(node, Trait.ARGUMENT):
            axes: Sequence[int] = (_axis(node),)
        elif "axes" in node.attributes or len(node.inputs) < 2:
            axes = node.attributes.get_ints("axes", tuple(range(rank)))
        else:
            axes = _lengths(self._needed(node, 1))
        gone = {a % rank for a in axes}
        if node.attributes.get_int("keepdims", 1):
            return [tuple(1 if k in gone else n for k, n in enumerate(before[0]))]
        return [tuple(n for k, n in enumerate(before[0]) if k not in gone)]

    def _einsum(self, node: ir.Node, before: Sequence[Shape]) -> list[Shape]:
        equation = node.attributes.get_string("equation", "")
        terms, result = spell_einsum(equation, [len(b) for b in before])
        sizes = {
            k: n for t, b in zip(terms, before, strict=True) for k, n in zip(t, b, strict=True)
        }
        return [tuple(sizes[k] for k in result)]


def part_of_shape(node: ir.Node) -> tuple[int, int | None]:
    """First axis, and the axis after the last, of those whose lengths a ``Shape`` yields."""
    end = node.attributes.get("end")
    return node.attributes.get_int("start", 0), None if end is None else end.as_int()


def _product(node: ir.Node, left: Shape, right: Shape) -> Shape:
    (rows, inner), (columns, own) = factor_axes(node, len(left), len(right))
    if rows is None or columns is None or left[inner] != right[own]:
        raise ValueError
    return (*np.broadcast_shapes(left[:-2], right[:-2]), left[rows], right[columns])


def _lengths(array: Array) -> Shape:
    return tuple(int(n) for n in array.ravel())


_Rule = Callable[[TrialShapes, ir.Node, Sequence[Shape]], Sequence[Shape]]
_SHAPES: dict[AxisRule, _Rule] = {
    AxisRule.ALIGNED: TrialShapes._aligned,
    AxisRule.RESHAPED: TrialShapes._reshaped,
    AxisRule.RANKED: TrialShapes._ranked,
    AxisRule.PERMUTED: TrialShapes._permuted,
    AxisRule.REPEATED: TrialShapes._repeated,
    AxisRule.CUT: TrialShapes._cut,
    AxisRule.JOINED: TrialShapes._joined,
    AxisRule.GATHERED: TrialShapes._gathered,
    AxisRule.GATHERED_ELEMENTS: TrialShapes._gathered_elements,
    AxisRule.GATHERED_ND: TrialShapes._gathered_nd,
    AxisRule.SCATTERED: TrialShapes._first,
    AxisRule.REDUCED: TrialShapes._reduced,
    AxisRule.EINSUM: TrialShapes._einsum,
    AxisRule.NORMALISED: TrialShapes._first,
    AxisRule.ACCUMULATED: TrialShapes._first,
}


def _axis(node: ir.Node, default: int = 0) -> int:
    return node.attributes.get_int("axis", default)


def _quotient(node: ir.Node, a: Array, b: Array) -> Array:
    return np.trunc(a / b).astype(a.dtype)


def _unsqueezed(node: ir.Node, a: Array, axes: Array) -> Array:
    return np.expand_dims(a, tuple(int(k) for k in axes.ravel()))


def _squeezed(node: ir.Node, a: Array, axes: Array | None = None) -> Array:
    return np.squeeze(a, None if axes is None else tuple(int(k) for k in axes.ravel()))


def _sliced(node: ir.Node, a: Array, first: Array, end: Array, *rest: Array) -> Array:
    step = int(rest[1].ravel()[0]) if len(rest) > 1 else 1
    return a[int(first.ravel()[0]) : int(end.ravel()[0]) : step]


def _placed(node: ir.Node, a: Array, index: Array, updates: Array) -> Array:
    found = a.copy()
    found[index] = updates
    return found


def _cast(node: ir.Node, a: Array) -> Array:
    kind = ir.DataType(node.attributes.get_int("to", 7))
    return a.astype(kind.numpy())


#: Operations on integer vectors.
_INTEGERS: dict[str, Callable[..., Array]] = {
    "Add": lambda node, a, b: a + b,
    "Sub": lambda node, a, b: a - b,
    "Mul": lambda node, a, b: a * b,
    "Div": _quotient,
    "Mod": lambda node, a, b: a % b,
    "Neg": lambda node, a: -a,
    "Min": lambda node, *each: reduce(np.minimum, each),
    "Max": lambda node, *each: reduce(np.maximum, each),
    "Equal": lambda node, a, b: a == b,
    "Less": lambda node, a, b: a < b,
    "Greater": lambda node, a, b: a > b,
    "Where": lambda node, truth, a, b: np.asarray(np.where(truth, a, b)),
    "Cast": _cast,
    "Identity": lambda node, a: a,
    "Concat": lambda node, *each: np.concatenate(each, _axis(node)),
    "Gather": lambda node, a, index: np.take(a, index, _axis(node)),
    "Slice": _sliced,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Reshape": lambda node, a, shape: a.reshape(_lengths(shape)),
    "ReduceProd": lambda node, a, *axes: np.prod(
        a, keepdims=bool(node.attributes.get_int("keepdims", 1)), axis=0
    ),
    "ScatterElements": _placed,
}
