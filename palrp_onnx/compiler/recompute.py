"""Forward values are computed again, segment by segment, when the way back reads them.

The graph of an explanation has nodes of the forward pass and nodes of the way back. Between cuts
(:mod:`palrp_onnx.compiler.cuts`) the forward pass has segments. The way back gets *stages*, one for
each segment, the last segment first: a node is in the stage of the earliest segment that it, or
what it is computed from, reads values of. From the second stage on these values are copies: the
nodes of the segment once more, on the values that cross its cut.

A copy must neither be merged with the first computation nor run early. So it starts behind a
*barrier*: the values that cross the cut, reshaped to their own shape plus a zero that is computed
from numbers of everything that earlier stages have left (multipliers on the cut, sums for the
ledger, sinks). No optimiser knows this zero, and all that earlier stages read is free by then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from palrp_onnx.compiler.cuts import Costs, find_cuts
from palrp_onnx.compiler.halves import Halves
from palrp_onnx.model.bodies import operands, reads
from palrp_onnx.tensor.onnx import Emit

#: Operations that compute other numbers every time.
_DRAWN = frozenset(
    "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()
)


def recompute(
    op: Emit, graph: ir.Graph, halves: Halves, seed: ir.Value, size_of: Callable[[ir.Value], int]
) -> Mapping[ir.Value, ir.Value]:
    """Rewrite the graph of an explanation, in place, so that it keeps little.

    Args:
        op: The language that appended the way back to ``graph``.
        graph: The graph.
        halves: Its two halves.
        seed: The multiplier of the explained output, where the way back begins.
        size_of: Bytes of the values of the file.

    Returns:
        Copy → the value that it is a copy of.
    """
    read = {v for node in halves.staged for v in operands(node)}
    rows = [
        (place, halves.last_use(value), halves.size(value, size_of), value in read)
        for value, place in halves.place.items()
        if place >= 0 and not value.is_graph_output()  # others are kept in any case
    ]
    cuts = find_cuts(Costs.of(rows, len(halves.forward)))
    if not cuts:
        return {}
    segments = _Segments(op, graph, halves, seed, cuts)
    segments.rewrite()
    return segments.origin


class _Segments:
    def __init__(
        self, op: Emit, graph: ir.Graph, halves: Halves, seed: ir.Value, cuts: Sequence[int]
    ) -> None:
        self._op, self._graph, self._halves, self._cuts = op, graph, halves, cuts
        self._kept = {v for v in halves.place if self._is_kept(v)}
        self._stages = self._find_stages(seed)
        self._stage, self._zero = 0, op.constant([0])
        #: Kept value → its latest form, and the stage whose barrier that is behind.
        self._behind: dict[ir.Value, tuple[ir.Value, int]] = {v: (v, 0) for v in self._kept}
        self._copies: dict[ir.Value, ir.Value] = {}
        self.origin: dict[ir.Value, ir.Value] = {}

    # --- stages -----------------------------------------------------------------------------------
    def _stage_at(self, place: int) -> int:
        """The stage of the segment of a forward node; of an input, one after the last."""
        return len(self._cuts) - bisect_right(self._cuts, place) + (place < 0)

    def _is_kept(self, value: ir.Value) -> bool:
        """Whether a forward value crosses a cut, is kept anyway, or cannot be computed again."""
        node = value.producer()
        if node is None or node.op_type in _DRAWN or _reads_inside(node):
            return True
        if value.is_graph_output():
            return True
        first, last = self._halves.place[value], self._halves.last_use(value)
        return self._stage_at(first) != self._stage_at(last)

    def _stage_of(self, value: ir.Value) -> int:
        """The first stage that a forward value is there in."""
        place = self._halves.place.get(value)
        return 0 if place is None or value in self._kept else self._stage_at(place)

    def _find_stages(self, seed: ir.Value) -> dict[ir.Node, int]:
        """The stage of every node of the way back.

        What depends on the seed is computed as early as possible, as it is smaller than what it
        reads; what does not, as late as possible.
        """
        users = self._halves.users
        propagated = {seed.producer()}
        stages: dict[ir.Node, int] = {}
        for node in self._halves.staged:
            before = [0]
            for value in operands(node):
                maker = value.producer()
                before.append(stages[maker] if maker in stages else self._stage_of(value))
                if maker in propagated:
                    propagated.add(node)
            stages[node] = max(before)
        for node in reversed(self._halves.staged):
            if node not in propagated:
                wanted = (stages[u] for v in node.outputs for u in users(v) if u in stages)
                stages[node] = max(stages[node], min(wanted, default=0))
        return stages

    # --- rewriting --------------------------------------------------------------------------------
    def rewrite(self) -> None:
        """Put the nodes in order, with copies before the nodes that read them."""
        stages: list[list[ir.Node]] = [[] for _ in range(len(self._cuts) + 1)]
        for node in self._halves.staged:
            stages[self._stages[node]].append(node)
        self._halves.put_forward()
        for stage, nodes in enumerate(stages):
            if stage:
                self._zero, self._stage = self._next_zero(stages[stage - 1]), stage
            for node in nodes:
                for reader, index, value in list(reads(node)):
                    if value in self._halves.place:
                        reader.replace_input_with(index, self._version(value))
                self._graph.append(node)

    def _next_zero(self, nodes: Sequence[ir.Node]) -> ir.Value:
        """Zero [1], of numbers of all that this stage leaves."""
        users = self._halves.users
        left = [
            value
            for value in (v for node in nodes for v in node.outputs)
            if value.dtype is not None
            and value.dtype.is_floating_point()
            and all(self._stages.get(user) != self._stage for user in users(value))
        ]
        if not left:
            return self._zero
        return self._op.integers("Add", self._op.zero_of(left), self._zero)

    def _version(self, value: ir.Value) -> ir.Value:
        """A forward value as this stage reads it."""
        if value in self._kept:
            return self._kept_version(value)
        if self._stage_of(value) == 0:
            return value
        if value not in self._copies:
            self._copy(value)
        return self._copies[value]

    def _kept_version(self, value: ir.Value) -> ir.Value:
        """A kept value; behind the barrier of this stage if it is made below its segment."""
        known, stage = self._behind[value]
        if stage == self._stage or self._stage_at(self._halves.place[value]) <= self._stage:
            return known
        if self._op.known_rank(value) and self._op.rank(value):
            self._op.declare(known, self._op.rank(value))
            known = self._op.behind(known, self._zero)
            self.origin[known] = value
        self._behind[value] = known, self._stage
        return known

    def _copy(self, value: ir.Value) -> None:
        """Compute a value again, with all of its segment that it depends on."""
        needed: set[ir.Node] = set()
        queue = [value]
        while queue:
            node = queue.pop().producer()
            if node is not None and node not in needed:
                needed.add(node)
                queue.extend(v for v in operands(node) if self._is_missing(v))
        for node in sorted(needed, key=self._halves.forward.__getitem__):
            self._repeat(node)

    def _is_missing(self, value: ir.Value) -> bool:
        return (
            value in self._halves.place and value not in self._copies and self._stage_of(value) > 0
        )

    def _repeat(self, node: ir.Node) -> None:
        place = self._halves.place
        inputs = [self._version(v) if v is not None and v in place else v for v in node.inputs]
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            overload=node.overload,
            num_outputs=len(node.outputs),
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.type, new.shape = old.type, old.shape
            new.name = old.name and f"relevance/again/{len(self._copies)}"
            self._copies[old], self.origin[new] = new, old
        self._graph.append(copy)


def _reads_inside(node: ir.Node) -> bool:
    """Whether a body of a node reads values from outside."""
    return any(reader is not node for reader, _, _ in reads(node))
