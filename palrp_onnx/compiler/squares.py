"""Values with an entry for every pair of tokens, as attention scores have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.axes import TOKEN
from palrp_onnx.analysis.dims import How, Link
from palrp_onnx.analysis.layout import sources
from palrp_onnx.compiler.regions import SHAPED
from palrp_onnx.compiler.rowwise import links
from palrp_onnx.model.bodies import operands, reads
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has
from palrp_onnx.model.values import constant
from palrp_onnx.relevance.single_row import Rows, rows_before
from palrp_onnx.tensor.onnx import Emit


class Squares:
    """The values of content with two axes of tokens, and their copies.

    Args:
        analysis: The annotated graph.
        rows: Axes of a fixed length up to this do not count.
    """

    def __init__(self, analysis: Analysis, rows: int) -> None:
        self.analysis, self._rows = analysis, rows
        self._free = {
            analysis.layouts.canonical((each.name, axis))
            for each in analysis.model.inputs
            if each.name in analysis.known
            for axis, length in enumerate(each.shape or ())
            if not isinstance(length, int)
        }
        self._pairs: dict[ir.Value, tuple[int, int]] = {}
        nodes = list(analysis.model.graph)
        for node in nodes:
            self._add_result(node)
        for node in reversed(nodes):
            self._add_operands(node)
        #: Copy → what it is a copy of.
        self.origin: dict[ir.Value, ir.Value] = {}
        self._copies: dict[ir.Value, ir.Value] = {}

    def __contains__(self, value: ir.Value) -> bool:
        return value in self._pairs

    def pairs(self, value: ir.Value) -> Sequence[tuple[int, int]]:
        """Axes that rows and columns of a square may run along, likely ones first."""
        found = self._pairs.get(self.origin.get(value, value))
        return () if found is None else (found, found[::-1])

    def _add_result(self, node: ir.Node) -> None:
        for value in node.outputs:
            pair = self._of_product(node, value) or self._moved(node, value)
            if pair is not None:
                self._pairs[value] = pair

    def _of_product(self, node: ir.Node, value: ir.Value) -> tuple[int, int] | None:
        """Axes that a product of content with content has from one factor each."""
        if not has(node, Trait.PRODUCT) or any(v not in self.analysis.content for v in node.inputs):
            return None
        found: dict[int, int] = {}
        for link in self._links(node, value):
            factors = {index for index, _ in link.axes}
            if len(factors) == len(link.results) == 1 and self._is_long(value, link.results[0]):
                found.setdefault(factors.pop(), link.results[0])
        return (found[0], found[1]) if len(found) > 1 else None

    def _moved(self, node: ir.Node, value: ir.Value) -> tuple[int, int] | None:
        """The axes of a square that an operation leaves."""
        read = ((k, self._pairs[v]) for k, v in enumerate(node.inputs) if v and v in self._pairs)
        index, pair = next(read, (None, ()))
        found = [
            link.results[0]
            for axis in pair
            for link in self._links(node, value)
            if (index, axis) in link.axes and link.how is not How.SUMMED and len(link.results) == 1
        ]
        return (found[0], found[1]) if len(set(found)) > 1 else None

    def _add_operands(self, node: ir.Node) -> None:
        """Content that is combined with a square, entry by entry."""
        pair, shapes = self._pairs.get(node.outputs[0]), self.analysis.shapes
        if pair is None or not has(node, ELEMENTWISE):
            return
        for value in node.inputs:
            if (
                value
                and value in self.analysis.content
                and shapes[value] == shapes[node.outputs[0]]
            ):
                self._pairs.setdefault(value, pair)

    def _links(self, node: ir.Node, value: ir.Value) -> Sequence[Link]:
        return links(node, value, self.analysis.shapes, constant)

    def _is_long(self, value: ir.Value, axis: int) -> bool:
        """Whether an axis runs over tokens, and more than are computed at a time."""
        flags, layouts = self.analysis.axes.get(value), self.analysis.layouts
        if flags is None or not flags[axis] & TOKEN:
            return False
        found = layouts.layouts.get(value)
        origins = set() if found is None else {layouts.canonical(s) for s in sources(found[axis])}
        return bool(origins & self._free) or self.analysis.shapes[value][axis] > self._rows

    def repeat(self, op: Emit, graph: ir.Graph) -> None:
        """Let the way back read copies of squares, and of what is made of them, in place."""
        own, order = set(op.made), []
        for node in list(graph):
            mark = len(op.made)
            if node in own and not has(node, Trait.LENGTH):
                for reader, index, value in list(reads(node)):
                    if value in self or self._is_result(value):
                        reader.replace_input_with(index, self._copy(op, value))
            order += [*op.made[mark:], node]
        graph.remove(list(graph))
        graph.extend(order)

    def _is_result(self, value: ir.Value) -> bool:
        """Whether a value of the file is computed from a square: then it is made beside a copy."""
        node = value.producer()
        if node is None or value not in self.analysis.content:
            return False
        return any(v in self for v in operands(node))

    def _copy(self, op: Emit, value: ir.Value) -> ir.Value:
        node = value.producer()
        if node is None or any(reader is not node for reader, _, _ in reads(node)):
            return value
        if value not in self._copies:
            inputs = [self._copy(op, v) if v and v in self else v for v in node.inputs]
            for old, new in zip(node.outputs, op.again(node, inputs), strict=True):
                new.shape = old.shape
                self._copies[old], self.origin[new] = new, old
        return self._copies[value]


class ByRows(Emit):
    """The ONNX back end, in which rows of a square are computed from rows of its operands."""

    def __init__(self, squares: Squares, *operands: Any, **options: Any) -> None:
        super().__init__(*operands, **options)
        self.squares = squares

    def take_rows(self, x: ir.Value, index: ir.Value, batch: int, axis: int) -> ir.Value:
        """Some rows of a value, one of each sample."""
        node = x.producer()
        if x not in self.squares or node is None or has(node, SHAPED):
            return super().take_rows(x, index, batch, axis)
        rows = Rows(index, batch, axis)
        before = rows_before(self.squares.analysis, node, x, rows)
        if before is None:
            return super().take_rows(x, index, batch, axis)
        taken = [
            v if r is None or v is None else r.take(self, v)
            for r, v in zip(before, node.inputs, strict=True)
        ]
        made = self.again(node, taken)
        return next(new for old, new in zip(node.outputs, made, strict=True) if old is x)
