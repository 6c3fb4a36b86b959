"""Attention in blocks of queries: a region of the graph as a loop over some rows at a time.

Scores of attention have an entry for every pair of tokens, in every head. Their rows are
independent, so that a loop over blocks of rows never holds them whole. A step cuts its rows from
the operands of the region (:mod:`palrp_onnx.compiler.regions`), runs the region's nodes on them,
appends the rows of results to those before, and adds up what sums over rows: multipliers of keys
and values, relevance of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from palrp_onnx.compiler.lengths import Lengths
from palrp_onnx.compiler.regions import SHAPED, Region, Regions, WholeError
from palrp_onnx.compiler.trial_shapes import TrialShapes, part_of_shape
from palrp_onnx.model.bodies import operands
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.tensor.onnx import NARROW, Emit, held_back

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
    found: list[_Blocks] = []
    done: set[ir.Value] = set()
    whole: list[ir.Value] = []
    for value in (v for node in order for v in node.outputs if v.uses()):
        tried = pairs(value)
        if not tried or value in done:
            continue
        blocks = _first(op, regions, value, tried, rows)
        if blocks is None:
            whole.append(value)
        else:
            found.append(blocks)
            done.update(blocks.region.rows)
            whole += (v for v in blocks.results if v in blocks.region.columns and pairs(v))
    for blocks in found:
        order = blocks.rewrite(order)
    graph.remove(list(graph))
    graph.extend(_read_at_all(order))
    return whole


def _first(
    op: Emit, regions: Regions, value: ir.Value, tried: Sequence[tuple[int, int]], rows: int
) -> _Blocks | None:
    """The blocks of a square along the first of these axes along which its rows are independent."""
    for row, column in tried:
        try:
            return _Blocks(op, regions, regions.around(value, row, column), rows)
        except WholeError:
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

    def __init__(self, op: Emit, regions: Regions, region: Region, rows: int) -> None:
        self._op, self._shapes, self.region, self._rows = op, regions.shapes, region, rows
        self._all = regions.in_order(region.needed)
        self._nodes = [node for node in self._all if regions.of_content(node)]
        self._lengths = Lengths(op, regions, region)
        own = set(self._nodes)
        made = [v for node in self._nodes for v in node.outputs]
        #: Values that something outside reads.
        self.results = [v for v in made if v.is_graph_output() or _readers(v) - own - _measures(v)]
        for value in made:
            if value in self.results or _measures(value):
                self._lengths.check(value)

    def rewrite(self, order: list[ir.Node]) -> list[ir.Node]:
        """Put the loop in the place of the region; the new order of the graph."""
        op, kinds = self._op, self._shapes
        order = self._with_lengths(order)
        known = len(op.made)
        count, size = self._counted()
        starts = [self._nothing(v) for v in self.results]
        mark = len(op.made)
        found = op.loop(count, starts, partial(self._step, size))
        for old, new in zip(self.results, found, strict=True):
            new.dtype = self._carried(old)
            op.declare(new, len(kinds[old]))
            back = new if new.dtype == _kind(old) else op.cast(new, _kind(old))
            kinds[new] = kinds[back] = kinds[old]
            back.shape = old.shape
            _replace(old, back)
        return self._in_order(order, op.made[known:mark], op.made[mark:])

    def _in_order(
        self, order: Sequence[ir.Node], before: Sequence[ir.Node], loop: Sequence[ir.Node]
    ) -> list[ir.Node]:
        """What reads results of the loop comes after it."""
        own = set(self._nodes)
        places = [k for k, node in enumerate(order) if node in own]
        first, end = places[0], places[-1] + 1
        early, late = [], dict.fromkeys(loop)
        for node in order[first:end]:
            if node in own:
                continue
            if any(v.producer() in late for v in operands(node)):
                late[node] = None
            else:
                early.append(node)
        return [*order[:first], *early, *before, *late, *order[end:]]

    # --- one step ---------------------------------------------------------------------------------
    def _step(
        self,
        size: ir.Value,
        op: Emit,
        number: ir.Value,
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
            needed = self.region.needed[node]
            inputs = [operand(v, needed.get(k)) for k, v in enumerate(node.inputs)]
            if inputs[0] is not None and held_back(node) is not None:
                made[node.outputs[0]] = inputs[0]  # other operands wait already
                continue
            self._fit(op, node, inputs, start, count)
            made.update(zip(node.outputs, op.again(node, inputs), strict=True))
        return [
            self._after(op, old, state, made[old])
            for old, state in zip(self.results, states, strict=True)
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
        row = self.region.rows.get(node.outputs[0])
        if row is None:
            return
        rank = len(self._shapes[node.outputs[0]])
        cut = node.op_type == "Tile" and 0 in self.region.needed[node]  # once along its rows
        if has(node, SHAPED) and not cut and len(inputs) > 1 and inputs[1] is not None:
            named = self._shapes[inputs[1]][0]
            here = op.constant(np.arange(rank - named, rank) == row, bool)
            inputs[1] = op.integers("Where", here, count, inputs[1])
        if has(node, Trait.TRIANGLE) and row >= rank - 2:
            shift = op.integers("Squeeze", start if row == rank - 2 else op.integers("Neg", start))
            given = inputs[1] if len(inputs) > 1 else None
            inputs[1:] = [shift if given is None else op.integers("Add", given, shift)]

    def _after(self, op: Emit, old: ir.Value, state: ir.Value, block: ir.Value) -> ir.Value:
        rank = len(self._shapes[old])
        if old in self.region.sums:
            kind = self._carried(old)
            return op.node("Add", [state, op.cast(block, kind)], rank, dtype=kind)
        axis = self.region.rows[old]
        return op.node("Concat", [state, block], rank, axis=axis, dtype=_kind(old))

    # --- before the loop --------------------------------------------------------------------------
    def _carried(self, value: ir.Value) -> ir.DataType:
        """Type of a state: sums of many parts are not rounded to half precision each time."""
        kind = _kind(value)
        return ir.DataType.FLOAT if value in self.region.sums and kind in NARROW else kind

    def _counted(self) -> tuple[ir.Value, ir.Value]:
        """Number of steps, and of rows [1]."""
        op = self._op
        value, row = next(iter(self.region.rows.items()))
        size = self._lengths.of(value, row)
        less = op.integers("Add", size, op.constant([self._rows - 1]))
        count = op.integers("Div", less, op.constant([self._rows]))
        return op.node("Squeeze", [count], 0, dtype=ir.DataType.INT64), size

    def _nothing(self, value: ir.Value) -> ir.Value:
        """The state before the first block: no rows, or a sum of zero."""
        op, rank = self._op, len(self._shapes[value])
        row = self.region.rows.get(value)
        lengths = [
            op.constant([0]) if axis == row else self._lengths.of(value, axis)
            for axis in range(rank)
        ]
        shape = op.integers("Concat", *lengths, axis=0) if lengths else op.constant([])
        kind = self._carried(value)
        zero = ir.tensor(np.zeros(1, kind.numpy()))
        return op.node("ConstantOfShape", [shape], rank, value=zero, dtype=kind)

    def _with_lengths(self, order: list[ir.Node]) -> list[ir.Node]:
        """Nodes that read shapes of the region's values replaced by such as do not need them."""
        op, instead = self._op, {}
        for value, node in (
            (v, n) for each in self._nodes for v in each.outputs for n in _measures(v)
        ):
            known = len(op.made)
            lengths = self._lengths.shape(value)[slice(*part_of_shape(node))]
            found = op.integers("Concat", *lengths, axis=0)
            if node.op_type == "Size":
                found = op.node("ReduceProd", [found], 0, keepdims=0, dtype=ir.DataType.INT64)
            _replace(node.outputs[0], found)
            instead[node] = op.made[known:]
            self._shapes.follow(instead[node])
            self._lengths.forget()
        return [new for node in order for new in instead.get(node, (node,))]


def _readers(value: ir.Value) -> set[ir.Node]:
    return {user for user, _ in value.uses()}


def _measures(value: ir.Value) -> set[ir.Node]:
    """Readers of the lengths of a value."""
    return {user for user in _readers(value) if has(user, Trait.LENGTH)}


def _kind(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.FLOAT


def _replace(old: ir.Value, new: ir.Value) -> None:
    """Let all that reads a value read another."""
    name = old.name
    output = old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if output:
        old.name, new.name = f"{name}/block", name
