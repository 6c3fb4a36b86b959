"""Regions of a graph whose values have independent rows: attention, from scores to its results.

A *square* is a value of content with two axes of tokens, as attention scores have. A region holds
all nodes that make or read some squares, and what lies between them. One axis of each of its values
runs over rows, and every row is computed from the same row of operands inside of the region, and
from values outside of it. What sums over rows leaves it.

Values without content, like masks, are computed for each region by itself as far as their rows are
independent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from palrp_onnx.analysis.dims import How, Link
from palrp_onnx.compiler.rowwise import is_product, links, rows_of
from palrp_onnx.compiler.trial_shapes import TrialShapes
from palrp_onnx.model.bodies import Users, operands
from palrp_onnx.model.ops import Trait, has

#: Operations that take the shape of their result.
SHAPED = Trait.RESHAPE | Trait.REPEAT
#: Sums whose parts, over some of the rows each, add up.
_SUMS = frozenset(("ReduceSum", "Einsum"))


class WholeError(Exception):
    """Rows depend on each other."""


@dataclass
class Region:
    """Nodes that can be computed for some rows at a time.

    Attributes:
        needed: Node → its operands that are cut into rows, with the axis of each. Nodes without
            content are copies, as others may read from them too.
        rows: Axis of rows of the values of the region.
        columns: Axis of columns of squares.
        sums: Results that are sums over all rows.
    """

    needed: dict[ir.Node, Mapping[int, int]] = field(default_factory=dict)
    rows: dict[ir.Value, int] = field(default_factory=dict)
    columns: dict[ir.Value, int] = field(default_factory=dict)
    sums: dict[ir.Value, None] = field(default_factory=dict)


class Regions:
    """Finds the regions of a graph.

    Args:
        order: The nodes of the graph, in topological order.
        shapes: Shapes of a trial run.
        content: Values of the file that depend on content.
    """

    def __init__(
        self, order: Sequence[ir.Node], shapes: TrialShapes, content: Collection[ir.Value]
    ) -> None:
        self._place = {node: k for k, node in enumerate(order)}
        self._order, self.shapes, self._users = order, shapes, Users(order)
        self._content = set(content)
        for node in order:
            read = node.inputs[:1] if has(node, SHAPED) else operands(node)
            if not has(node, Trait.LENGTH) and any(v in self._content for v in read):
                self._content.update(node.outputs)

    def around(self, value: ir.Value, row: int, column: int) -> Region:
        """The region of a square with these axes.

        Raises:
            WholeError: Its rows depend on each other.
        """
        return _Growth(self, value, row, column).region

    def links(self, node: ir.Node, output: ir.Value) -> tuple[Link, ...]:
        """The links of all axes of a result."""
        return links(node, output, self.shapes, self.shapes.known)

    def users(self, value: ir.Value) -> list[ir.Node]:
        """Readers of a value, but for those that read its lengths alone."""
        return [node for node in self._users(value) if not has(node, Trait.LENGTH)]

    def of_content(self, node: ir.Node) -> bool:
        """Whether the result of a node depends on content."""
        return any(v in self._content for v in node.outputs)

    def in_order(self, nodes: Collection[ir.Node]) -> list[ir.Node]:
        """Nodes in the order of the graph."""
        return sorted(nodes, key=self._place.__getitem__)

    def between(self, nodes: Collection[ir.Node]) -> list[ir.Node]:
        """Other nodes that depend on some of these, and that some of these depend on."""
        places = [self._place[node] for node in nodes]
        window = self._order[min(places) : max(places) + 1]
        after, before = set(nodes), set(nodes)
        for node in window:
            made = (v.producer() for v in operands(node))
            if not has(node, Trait.LENGTH) and any(maker in after for maker in made):
                after.add(node)
        for node in reversed(window):
            if any(user in before for v in node.outputs for user in self.users(v)):
                before.add(node)
        return [n for n in window if n in after and n in before and n not in nodes]


class _Growth:
    """Grows a region from one square, until it holds all that must be in it."""

    def __init__(self, regions: Regions, value: ir.Value, row: int, column: int) -> None:
        self._all, self._shapes, self.region = regions, regions.shapes, Region()
        self._queue: list[ir.Value] = []
        self._put(value, row, column)
        while self._queue:
            while self._queue:
                self._grow(self._queue.pop())
            for node in regions.between(self._nodes()):
                self._read(node)
        self._check()

    def _nodes(self) -> list[ir.Node]:
        return [node for node in self.region.needed if self._all.of_content(node)]

    def _grow(self, value: ir.Value) -> None:
        """Take in the node that makes a square, and all that read it."""
        maker = value.producer()
        if maker is None:
            return
        if maker not in self.region.needed:
            needed = self._needed(maker, value, self.region.rows[value])
            if needed is not None:
                self._take(maker, needed)
            elif self._all.of_content(maker):
                raise WholeError(f"{maker.op_type} {value.name!r}")
        if self._all.of_content(maker):
            for user in self._all.users(value):
                self._read(user)

    def _read(self, node: ir.Node) -> None:
        """Take in a node that reads rows of the region."""
        if node in self.region.needed:
            return
        inside = ((k, v) for k, v in enumerate(node.inputs) if v in self.region.rows)
        index, value = next(inside, (None, None))
        if index is None or value is None:
            raise WholeError(f"{node.op_type} {node.outputs[0].name!r} reads a sum over rows")
        row = self.region.rows[value]
        for output in _used(node):
            link = self._link_from(node, output, index, row)
            if link is not None and len(link.results) == 1 and link.how is not How.SUMMED:
                needed = self._needed(node, output, link.results[0])
            else:
                needed = _summed(node, link)
            if needed is None or needed.get(index) != row:
                raise WholeError(f"{node.op_type} {output.name!r}")
            self._take(node, needed)

    def _take(self, node: ir.Node, needed: Mapping[int, int]) -> None:
        """Take in a node, of whose operands these are cut into rows."""
        region = self.region
        region.needed[node] = needed
        columns: dict[int, int] = {}
        for output in _used(node):
            row = self._row_after(node, output, needed)
            if row is None:
                region.sums[output] = None
                continue
            column = self._column_after(node, output, needed)
            if column is not None:
                columns.update(self._columns_before(node, output, column))
            self._put(output, row, column)
        for index, axis in needed.items():
            value = node.inputs[index]
            if value is not None and index in columns:
                self._put(value, axis, columns[index])
            elif value is not None:
                self._take_reduction(value, axis)

    def _take_reduction(self, value: ir.Value, row: int) -> None:
        """Take in what sums up rows without content: their entries need not be there whole."""
        maker = value.producer()
        if maker is None or maker in self.region.needed or self._all.of_content(maker):
            return
        needed = self._needed(maker, value, row) if has(maker, Trait.REDUCTION) else None
        source = maker.inputs[0]
        if needed is None or source is None:
            return
        gone = [
            axis
            for link in self._all.links(maker, value)
            for _, axis in link.axes
            if link.how is How.SUMMED and axis is not None and self._shapes[source][axis] > 1
        ]
        if gone:
            self._take(maker, needed)
            self._put(source, needed[0], gone[0])

    def _put(self, value: ir.Value, row: int, column: int | None) -> None:
        """Axes of a value; a square is looked at."""
        region = self.region
        if region.rows.setdefault(value, row) != row or column == row:
            raise WholeError(f"{value.name!r} along two axes")
        if column is not None and value not in region.columns:
            region.columns[value] = column
            self._queue.append(value)

    def _check(self) -> None:
        """What the region makes is read inside of it by rows alone."""
        region = self.region
        for node, needed in region.needed.items():
            for index, value in enumerate(node.inputs):
                if value is None or value.producer() not in region.needed:
                    continue
                if value in region.sums or needed.get(index) != region.rows.get(value):
                    raise WholeError(f"{node.op_type} {node.outputs[0].name!r}")

    # --- axes -------------------------------------------------------------------------------------
    def _needed(self, node: ir.Node, output: ir.Value, row: int) -> dict[int, int] | None:
        """Operand → its axis of rows, for rows of a result; ``None`` where rows are not enough."""
        link = next((k for k in self._all.links(node, output) if row in k.results), None)
        size = self._shapes[output][row] if link is not None else 1
        return None if link is None or size == 1 else rows_of(node, link, size, self._shapes)

    def _link_from(self, node: ir.Node, output: ir.Value, index: int, axis: int) -> Link | None:
        found = self._all.links(node, output)
        return next((link for link in found if (index, axis) in link.axes), None)

    def _row_after(self, node: ir.Node, output: ir.Value, needed: Mapping[int, int]) -> int | None:
        """The axis of rows of a result; ``None`` where it sums over them."""
        if output in self.region.rows:
            return self.region.rows[output]
        link = self._link_from(node, output, *next(iter(needed.items())))
        return None if link is None or link.how is How.SUMMED else link.results[0]

    def _column_after(
        self, node: ir.Node, output: ir.Value, needed: Mapping[int, int]
    ) -> int | None:
        """The axis that columns of operands run along in a result."""
        if output in self.region.columns:
            return self.region.columns[output]
        for index in needed:
            value = node.inputs[index]
            column = None if value is None else self.region.columns.get(value)
            link = None if column is None else self._link_from(node, output, index, column)
            if link is not None and link.how is not How.SUMMED and link.results:
                return link.results[0]
        return None

    def _columns_before(self, node: ir.Node, output: ir.Value, column: int) -> dict[int, int]:
        """Operand → its axis that the columns of a result run along."""
        link = next((k for k in self._all.links(node, output) if column in k.results), None)
        pairs = () if link is None or link.how is How.SUMMED else link.axes
        return {
            index: axis
            for index, axis in pairs
            if axis is not None
            and (value := node.inputs[index]) is not None
            and self._shapes[value][axis] > 1
        }


def _used(node: ir.Node) -> Iterator[ir.Value]:
    """The results of a node that something reads."""
    return (v for v in node.outputs if v.uses() or v.is_graph_output())


def _summed(node: ir.Node, link: Link | None) -> dict[int, int] | None:
    """Operands whose rows a node sums over, so that sums over some rows each add up."""
    if link is None or link.how is not How.SUMMED:
        return None
    if not (is_product(node) or node.op_type in _SUMS):
        return None
    return {index: axis for index, axis in link.axes if axis is not None}
