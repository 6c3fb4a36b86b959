"""Lengths of the values of a region, from those of its operands.

A loop over blocks of rows never holds these values, but what reads their shapes needs them, and so
do the zeros that its sums start from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import onnx_ir as ir

from palrp_onnx.analysis.dims import How
from palrp_onnx.compiler.regions import Region, Regions, WholeError
from palrp_onnx.tensor.onnx import Emit

_Axis = tuple[ir.Value, int]


class Lengths:
    """Computes lengths outside of the loop.

    Args:
        op: Appends nodes.
        regions: The regions of the graph.
        region: The region.
    """

    def __init__(self, op: Emit, regions: Regions, region: Region) -> None:
        self._op, self._regions, self._region = op, regions, region
        self._shapes = regions.shapes
        self._found: dict[_Axis, ir.Value] = {}
        self._checked: set[_Axis] = set()

    def check(self, value: ir.Value) -> None:
        """Refuse a value some of whose lengths do not follow from operands.

        Raises:
            WholeError: They do not.
        """
        for axis in range(len(self._shapes[value])):
            self._check(value, axis)

    def _check(self, value: ir.Value, axis: int) -> None:
        if self._is_made(value) and (value, axis) not in self._checked:
            self._checked.add((value, axis))
            for source, own in self._sources(value, axis)[1]:
                self._check(source, own)

    def forget(self) -> None:
        """Do not use nodes again that were appended so far."""
        self._found.clear()

    def of(self, value: ir.Value, axis: int) -> ir.Value:
        """The length of an axis [1]."""
        if (value, axis) not in self._found:
            self._found[value, axis] = self._computed(value, axis)
        return self._found[value, axis]

    def shape(self, value: ir.Value) -> list[ir.Value]:
        """The lengths of all axes, each [1]."""
        return [self.of(value, axis) for axis in range(len(self._shapes[value]))]

    def _is_made(self, value: ir.Value) -> bool:
        return value.producer() in self._region.needed

    def _computed(self, value: ir.Value, axis: int) -> ir.Value:
        op = self._op
        if not self._is_made(value):
            return op.integers("Gather", op.integers("Shape", value), op.constant([axis]))
        how, sources = self._sources(value, axis)
        if how in _NAMED:
            return _NAMED[how](self, value, axis)
        if not sources:
            return op.constant([1])
        parts = (self.of(*source) for source in sources)
        return reduce(lambda a, b: op.integers(how, a, b), parts)

    def _sources(self, value: ir.Value, axis: int) -> tuple[str, Sequence[_Axis]]:
        """How a length follows, and from which others.

        It is the largest or the sum of these, or one if there are none, or an operand names it.
        """
        node = value.producer()
        assert node is not None
        link = next((k for k in self._regions.links(node, value) if axis in k.results), None)
        pairs = [] if link is None else [(node.inputs[i], a) for i, a in link.axes]
        axes = [(v, a) for v, a in pairs if v is not None and a is not None]
        size = self._shapes[value][axis]
        moved = link is not None and len(link.results) == len(axes) == 1
        if moved and size > 1 and self._shapes[axes[0][0]][axes[0][1]] == size:
            return "Max", axes
        if node.op_type in _NAMED:
            source = node.inputs[0]
            assert source is not None
            return node.op_type, [(source, k) for k in range(len(self._shapes[source]))]
        if link is not None and (link.how is How.SUMMED or not axes):
            return "Max", ()
        if link is not None and link.how is How.JOINED:
            return "Add", axes
        same = [(v, a) for v, a in axes if self._shapes[v][a] == size]
        if link is None or link.how not in _KEPT or not same:
            raise WholeError(f"{node.op_type} {value.name!r}")
        return "Max", same[:1] if size > 1 else same

    def _reshaped(self, value: ir.Value, axis: int) -> ir.Value:
        """A length that a shape names; −1 stands for what remains."""
        op, node = self._op, value.producer()
        source, shape = _two(node)
        whole = self.shape(source)
        if node is not None and not node.attributes.get_int("allowzero", 0):
            rank = len(self._shapes[value])
            kept = [*whole, *[op.constant([1])] * rank][:rank]
            zero = op.flags("Equal", shape, op.constant([0]))
            shape = op.integers("Where", zero, op.integers("Concat", *kept, axis=0), shape)
        given = op.integers("Gather", shape, op.constant([axis]))
        count = reduce(lambda a, b: op.integers("Mul", a, b), whole)
        named = op.integers("Neg", op.integers("ReduceProd", shape, keepdims=1))
        negative = op.flags("Less", given, op.constant([0]))
        return op.integers("Where", negative, op.integers("Div", count, named), given)

    def _repeated(self, value: ir.Value, axis: int) -> ir.Value:
        """A length that is repeated, or stretched to what a shape names."""
        op, node = self._op, value.producer()
        source, numbers = _two(node)
        rank = len(self._shapes[value])
        own, named = (
            axis - rank + n for n in (len(self._shapes[source]), self._shapes[numbers][0])
        )
        how = "Mul" if node is not None and node.op_type == "Tile" else "Max"
        parts = [self.of(source, own)] if own >= 0 else []
        if named >= 0:
            parts.append(op.integers("Gather", numbers, op.constant([named])))
        return reduce(lambda a, b: op.integers(how, a, b), parts)


def _two(node: ir.Node | None) -> tuple[ir.Value, ir.Value]:
    """The two operands of a node."""
    assert node is not None
    first, second = node.inputs[:2]
    assert first is not None
    assert second is not None
    return first, second


#: Relations in which a length stays as it is.
_KEPT = frozenset((How.SAME, How.NORMALISED, How.ACCUMULATED, How.SCATTERED))
#: Operations of which an operand names lengths.
_NAMED: dict[str, Callable[[Lengths, ir.Value, int], ir.Value]] = {
    "Reshape": Lengths._reshaped,
    "Expand": Lengths._repeated,
    "Tile": Lengths._repeated,
}
