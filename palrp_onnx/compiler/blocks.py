"""Attention in blocks of queries: a region of the graph as a loop over some rows at a time.

Scores of attention have an entry for every pair of tokens, in every head. Their rows are
independent, so that a loop over blocks of rows never holds them whole. A step cuts its rows from
the operands of the region (:mod:`palrp_onnx.compiler.regions`), runs the region's nodes on them,
appends the rows of results to those before, and adds up what sums over rows: multipliers of keys
and values, relevance of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.dims import How
from palrp_onnx.compiler.regions import SHAPED, Region, Regions, WholeError
from palrp_onnx.compiler.trial_shapes import TrialShapes, part_of_shape
from palrp_onnx.model.bodies import operands
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.tensor.onnx import NARROW, Emit

#: Rows that a step computes.
ROWS = 256
#: Axes of a square along which its rows, and columns, may run.
Pairs = Callable[[ir.Value], Sequence[tuple[int, int]]]


def put_in_blocks(
    op: Emit,
    graph: ir.Graph,
    shapes: TrialShapes,
    content: Collection[ir.Value],
    pairs: Pairs,
    rows: int = ROWS,
) -> list[ir.Value]:
    """Compute the squares of a graph for some rows at a time, in place.

    Args:
        op: The language that appended the way back to ``graph``.
        graph: The graph of an explanation.
        shapes: Shapes of the trial run.
        content: Values of the file that depend on content.
        pairs: Of a square, the axes that are tried in turn; of other values, none.
        rows: Number of rows that a step computes.

    Returns:
        Squares that stay whole, as their rows depend on each other.
    """
    order = list(graph)
    shapes.follow(order)
    regions = Regions(order, shapes, content)
    found: list[Region] = []
    done: set[ir.Value] = set()
    whole: list[ir.Value] = []
    for value in (v for node in order for v in node.outputs if v.uses()):
        tried = pairs(value)
        if not tried or value in done:
            continue
        region = _first_region(regions, value, tried)
        if region is None:
            whole.append(value)
        else:
            found.append(region)
            done.update(region.rows)
    for region in found:
        order = _Blocks(op, regions, region, order, rows).rewrite()
    graph.remove(list(graph))
    graph.extend(_read_at_all(order))
    return whole


def _first_region(
    regions: Regions, value: ir.Value, tried: Sequence[tuple[int, int]]
) -> Region | None:
    for row, column in tried:
        try:
            return regions.around(value, row, column)
        except WholeError as e:
            import os
            if os.environ.get("BLK"): print("   FAIL", value.name, row, column, e)
            continue
    return None


def _read_at_all(order: Sequence[ir.Node]) -> list[ir.Node]:
    """Nodes that lead to an output."""
    needed: set[ir.Value] = set()
    kept = []
    for node in reversed(order):
        if any(v in needed or v.is_graph_output() for v in node.outputs):
            kept.append(node)
            needed.update(operands(node))
    return kept[::-1]


class _Blocks:
    """One region as a loop."""

    def __init__(
        self, op: Emit, regions: Regions, region: Region, order: list[ir.Node], rows: int
    ) -> None:
        self._op, self._regions, self._region, self._rows = op, regions, region, rows
        self._order = order
        self._shapes = regions.shapes
        place = {node: k for k, node in enumerate(order)}
        self._all = sorted(region.needed, key=place.__getitem__)
        self._nodes = [node for node in self._all if regions.of_content(node)]
        self._first, self._last = (place[self._nodes[k]] for k in (0, -1))
        self._lengths: dict[tuple[ir.Value, int], ir.Value] = {}

    def rewrite(self) -> list[ir.Node]:
        """Put the loop in the place of the region; the new order of the graph."""
        self._replace_lengths()
        own = set(self._nodes)
        results = [v for node in self._nodes for v in node.outputs if self._leaves(v, own)]
        known = len(self._op.made)
        count, size = self._counted()
        starts = [self._nothing(v) for v in results]
        mark = len(self._op.made)
        found = self._op.loop(
            count, starts, lambda inner, number, states: self._step(inner, number, size, results, states)
        )
        loop = self._op.made[mark]
        for old, new in zip(results, found, strict=True):
            new.dtype = self._carried(old)
            self._op.declare(new, len(self._shapes[old]))
            back = new if new.dtype == old.dtype else self._op.cast(new, self._kind(old))
            self._shapes[new] = self._shapes[back] = self._shapes[old]
            back.shape = old.shape
            _replace(old, back)
        return self._in_order(own, self._op.made[known:mark], self._op.made[mark:], loop)

    def _leaves(self, value: ir.Value, own: set[ir.Node]) -> bool:
        return value.is_graph_output() or any(user not in own for user, _ in value.uses())

    def _in_order(
        self,
        own: set[ir.Node],
        before: Sequence[ir.Node],
        loop: Sequence[ir.Node],
        first: ir.Node,
    ) -> list[ir.Node]:
        """What reads results of the loop comes after it."""
        late: dict[ir.Node, None] = dict.fromkeys(loop)
        early = []
        for node in self._order[self._first : self._last + 1]:
            if node in own:
                continue
            if any(v.producer() in late for v in operands(node)):
                late[node] = None
            else:
                early.append(node)
        return [
            *self._order[: self._first],
            *early,
            *before,
            *late,
            *self._order[self._last + 1 :],
        ]

    # --- one step ---------------------------------------------------------------------------------
    def _step(
        self,
        op: Emit,
        number: ir.Value,
        size: ir.Value,
        results: Sequence[ir.Value],
        states: Sequence[ir.Value],
    ) -> list[ir.Value]:
        """The states after one more block."""
        rows = op.constant([self._rows])
        start = op.integers("Mul", op.integers("Unsqueeze", number, op.constant([0])), rows)
        end = op.integers("Min", op.integers("Add", start, rows), size)
        count = op.integers("Sub", end, start)
        made: dict[ir.Value, ir.Value] = {}
        cut: dict[tuple[ir.Value, int], ir.Value] = {}

        def operand(value: ir.Value | None, axis: int | None) -> ir.Value | None:
            if value is None or value in made or axis is None:
                return value if value is None else made.get(value, value)
            if (value, axis) not in cut:
                along = op.constant([axis])
                rank = len(self._shapes[value])
                kind = value.dtype or op.kind(value)
                cut[value, axis] = op.node("Slice", [value, start, end, along], rank, dtype=kind)
            return cut[value, axis]

        for node in self._all:
            needed = self._region.needed[node]
            inputs = [operand(v, needed.get(k)) for k, v in enumerate(node.inputs)]
            self._fit(op, node, inputs, start, count)
            made.update(zip(node.outputs, op.again(node, inputs), strict=True))
        return [
            self._after(op, old, state, made[old])
            for old, state in zip(results, states, strict=True)
        ]

    def _fit(
        self,
        op: Emit,
        node: ir.Node,
        inputs: list[ir.Value | None],
        start: ir.Value,
        count: ir.Value,
    ) -> None:
        """Operands that name lengths, or places, as they are of a block."""
        row = self._region.rows.get(node.outputs[0])
        if row is None:
            return
        rank = len(self._shapes[node.outputs[0]])
        cut = node.op_type == "Tile" and 0 in self._region.needed[node]  # once along its rows
        if has(node, SHAPED) and not cut and len(inputs) > 1 and inputs[1] is not None:
            here = op.constant(np.arange(rank) == row, bool)
            inputs[1] = op.integers("Where", here, count, inputs[1])
        if has(node, Trait.TRIANGLE) and row >= rank - 2:
            shift = op.integers("Squeeze", start if row == rank - 2 else op.integers("Neg", start))
            given = inputs[1] if len(inputs) > 1 else None
            inputs[1:] = [shift if given is None else op.integers("Add", given, shift)]

    def _after(self, op: Emit, old: ir.Value, state: ir.Value, block: ir.Value) -> ir.Value:
        rank = len(self._shapes[old])
        if old in self._region.sums:
            kind = self._carried(old)
            return op.node("Add", [state, op.cast(block, kind)], rank, dtype=kind)
        axis = self._region.rows[old]
        return op.node("Concat", [state, block], rank, axis=axis, dtype=self._kind(old))

    # --- before the loop --------------------------------------------------------------------------
    def _kind(self, value: ir.Value) -> ir.DataType:
        return value.dtype or ir.DataType.FLOAT

    def _carried(self, value: ir.Value) -> ir.DataType:
        """Type of a state: sums of many parts are not rounded to half precision each time."""
        kind = self._kind(value)
        return ir.DataType.FLOAT if value in self._region.sums and kind in NARROW else kind

    def _counted(self) -> tuple[ir.Value, ir.Value]:
        """Number of steps, and of rows [1]."""
        op = self._op
        value, row = next(iter(self._region.rows.items()))
        size = self._length(value, row)
        less = op.integers("Add", size, op.constant([self._rows - 1]))
        count = op.integers("Div", less, op.constant([self._rows]))
        return op.node("Squeeze", [count], 0, dtype=ir.DataType.INT64), size

    def _nothing(self, value: ir.Value) -> ir.Value:
        """The state before the first block: no rows, or a sum of zero."""
        op, rank = self._op, len(self._shapes[value])
        row = self._region.rows.get(value)
        lengths = [
            op.constant([0]) if axis == row else self._length(value, axis) for axis in range(rank)
        ]
        shape = op.integers("Concat", *lengths, axis=0) if lengths else op.constant([])
        kind = self._carried(value)
        zero = ir.tensor(np.zeros(1, kind.numpy()))
        return op.node("ConstantOfShape", [shape], rank, value=zero, dtype=kind)

    def _replace_lengths(self) -> None:
        """Lengths of values of the region, from those of its operands."""
        for node in self._nodes:
            for value in node.outputs:
                for user, _ in list(value.uses()):
                    if has(user, Trait.LENGTH):
                        self._replace_length(value, user)

    def _replace_length(self, value: ir.Value, node: ir.Node) -> None:
        op, known = self._op, len(self._op.made)
        lengths = [self._length(value, axis) for axis in range(len(self._shapes[value]))]
        found = op.integers("Concat", *lengths[slice(*part_of_shape(node))], axis=0)
        if node.op_type == "Size":
            found = op.node("ReduceProd", [found], 0, keepdims=0, dtype=ir.DataType.INT64)
        self._shapes.follow(self._op.made[known:])
        _replace(node.outputs[0], found)
        place = self._order.index(node)
        self._order[place : place + 1] = self._op.made[known:]
        moved = len(self._op.made) - known - 1
        self._first += moved if place < self._first else 0
        self._last += moved if place < self._last else 0
        self._lengths.clear()

    def _length(self, value: ir.Value, axis: int) -> ir.Value:
        """Length of an axis [1]; of the region's values, from those of its operands."""
        key = value, axis
        if key not in self._lengths:
            maker = value.producer()
            if maker is None or maker not in self._region.needed:
                shape = self._op.integers("Shape", value)
                found = self._op.integers("Gather", shape, self._op.constant([axis]))
            else:
                found = self._length_made(maker, value, axis)
            self._lengths[key] = found
        return self._lengths[key]

    def _length_made(self, node: ir.Node, value: ir.Value, axis: int) -> ir.Value:
        op = self._op
        try: link = next(k for k in self._regions.links(node, value) if axis in k.results)
        except StopIteration: raise RuntimeError(f"LLL {node} {self._regions.links(node, value)} {axis} {[self._shapes.get(v) for v in node.inputs]} {self._shapes[value]} {[self._shapes.known(v) for v in node.inputs]}")
        pairs = [(node.inputs[i], a) for i, a in link.axes if a is not None]
        size = self._shapes[value][axis]
        if link.how is How.SUMMED or not pairs:
            return op.constant([1])
        if link.how in (How.SAME, How.NORMALISED, How.ACCUMULATED):
            along = [(v, a) for v, a in pairs if v is not None and self._shapes[v][a] == size]
            return reduce(
                lambda a, b: op.integers("Max", a, b),
                [self._length(v, a) for v, a in (along[:1] if size > 1 else along)],
            )
        if has(node, SHAPED):
            return self._length_named(node, axis)
        if link.how is How.JOINED:
            return reduce(
                lambda a, b: op.integers("Add", a, b),
                [self._length(v, a) for v, a in pairs if v is not None],
            )
        raise WholeError(f"{node.op_type} {value.name!r}")

    def _length_named(self, node: ir.Node, axis: int) -> ir.Value:
        """A length of the shape that a node takes; −1 stands for what remains."""
        op, shape = self._op, node.inputs[1]
        assert shape is not None
        source = node.inputs[0]
        assert source is not None
        whole = [self._length(source, k) for k in range(len(self._shapes[source]))]
        count = reduce(lambda a, b: op.integers("Mul", a, b), whole)
        if not node.attributes.get_int("allowzero", 0):
            ones = [op.constant([1])] * len(self._shapes[node.outputs[0]])
            kept = op.integers("Concat", *[*whole, *ones][: len(ones)], axis=0)
            zero = op.flags("Equal", shape, op.constant([0]))
            shape = op.integers("Where", zero, kept, shape)
        given = op.integers("Gather", shape, op.constant([axis]))
        named = op.integers("ReduceProd", shape, keepdims=1)
        rest = op.integers("Div", count, op.integers("Neg", named))
        unknown = op.node("Less", [given, op.constant([0])], 1, dtype=ir.DataType.BOOL)
        return op.integers("Where", unknown, rest, given)


def _replace(old: ir.Value, new: ir.Value) -> None:
    """Let all that reads a value read another."""
    name = old.name
    output = old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if output:
        old.name, new.name = f"{name}/block", name
