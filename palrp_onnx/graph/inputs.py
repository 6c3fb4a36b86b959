"""What each graph input is: explained content, positions, token types, or a mask.

Decided from what the graph does with the input and from the values that are fed, never from
its name: an input that directly indexes a table of vectors is content, unless it counts
0, 1, 2, … along the sequence (positions) or is added to a larger table's rows (token types).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.errors import RoleError
from palrp_onnx.graph.follow import uses_of
from palrp_onnx.graph.roles import SAID, Fact, Overrides, Role

#: Operations that hand indices on unchanged, or shifted, or bounded.
_INDEX_MOVES = frozenset(
    "Identity Cast Reshape Flatten Squeeze Unsqueeze Transpose Slice Expand Tile Concat Split "
    "Clip Min Max Add Sub Where".split()
)
_SUM_MOVES = frozenset("Add Cast Clip Div Dropout Identity Mul Round Sub".split())


@dataclass(frozen=True)
class InputRoles:
    """Roles of the graph's inputs and the table lookups that bring content in.

    Attributes:
        facts: Role and reason of every input.
        lookups: For every content lookup node the input whose entries it looks up.
    """

    facts: Mapping[str, Fact]
    lookups: Mapping[ir.Node, str]

    def named(self, role: Role) -> tuple[str, ...]:
        """Names of the inputs with this role, in graph order."""
        return tuple(name for name, fact in self.facts.items() if fact.role is role)


def is_float(value: ir.Value) -> bool:
    """Whether a value holds real numbers.

    What comes out of an operation that type inference does not know counts as real: such an
    operation is then refused on the path of relevance instead of cutting it silently.
    """
    return value.dtype is None or value.dtype.is_floating_point()


def input_roles(
    graph: ir.Graph, feeds: Mapping[str, NDArray[np.generic]], said: Overrides | None = None
) -> InputRoles:
    """Decide the role of every graph input, but for what was ``said``.

    Raises:
        RoleError: No input looks like content.
    """
    inputs = [v for v in graph.inputs if not v.is_initializer()]
    tables = {v: lookups(v) for v in inputs if not is_float(v)}
    indexing = {v: nodes for v, nodes in tables.items() if nodes}
    facts: dict[str, Fact] = {}
    for value in inputs:
        feed = feeds[_name(value)]
        if is_float(value):
            facts[_name(value)] = _float_role(value, feed, inputs, bool(indexing))
        elif value not in indexing:
            facts[_name(value)] = _unindexed_role(feed)
        else:
            facts[_name(value)] = _indexing_role(value, indexing, feeds)
    facts.update((name, Fact(role, SAID)) for name, role in (said or {}).items() if name in facts)
    if not any(fact.role is Role.CONTENT for fact in facts.values()):
        raise RoleError(
            "No graph input can be explained: none indexes a table of vectors or is a real tensor",
            hint=f"Inputs: {', '.join(facts)}.",
        )
    brought_in = {
        node: _name(value)
        for value, nodes in indexing.items()
        if facts[_name(value)].role is Role.CONTENT
        for node in nodes
    }
    return InputRoles(facts, brought_in)


def _name(value: ir.Value) -> str:
    return value.name or ""


def lookups(value: ir.Value) -> list[ir.Node]:
    """Nodes that yield rows of a table of vectors, whose index comes directly from ``value``.

    They gather; where the table is stored quantised, they read what was gathered.
    """
    gathers = [
        node
        for node, index in uses_of([value], _indices)
        if node.op_type == "Gather" and index == 1
    ]
    return [node for gather in gathers for node in _yielding(gather)]


def _yielding(gather: ir.Node) -> list[ir.Node]:
    table = gather.inputs[0]
    if table is not None and is_float(table):
        return [gather]
    uses = gather.outputs[0].uses()
    return [u.node for u in uses if u.node.op_type == "DequantizeLinear" and u.idx == 0]


def table_of(node: ir.Node) -> ir.Value | None:
    """The table that a lookup reads."""
    gathered = node.inputs[0]
    if node.op_type != "DequantizeLinear" or gathered is None:
        return gathered
    gather = gathered.producer()
    return gather.inputs[0] if gather is not None else None


def _indices(node: ir.Node, index: int) -> Iterable[ir.Value]:
    if node.op_type == "Gather":
        return node.outputs if index == 0 else ()
    return [v for v in node.outputs if not is_float(v)] if node.op_type in _INDEX_MOVES else ()


def _float_role(
    value: ir.Value, feed: NDArray[np.generic], inputs: list[ir.Value], has_lookup: bool
) -> Fact:
    others = has_lookup or sum(is_float(v) for v in inputs) > 1
    if others and feed.ndim <= 2 and np.isin(feed, (0, 1)).all():
        return Fact(Role.MASK, "a real input of zeros and ones beside explained content")
    return Fact(Role.CONTENT, "a real-valued input")


def _unindexed_role(feed: NDArray[np.generic]) -> Fact:
    if _counts(feed):
        return Fact(Role.POSITION, "counts up along the sequence and indexes no table directly")
    return Fact(Role.MASK, "indexes no table of vectors; only compared, cast or summed")


def _indexing_role(
    value: ir.Value,
    indexing: Mapping[ir.Value, list[ir.Node]],
    feeds: Mapping[str, NDArray[np.generic]],
) -> Fact:
    rows = _rows(indexing[value])
    larger = [v for v in indexing if v is not value and _rows(indexing[v]) > rows]
    if _counts(feeds[_name(value)]) and (
        larger or any(not _counts(feeds[_name(v)]) for v in indexing if v is not value)
    ):
        return Fact(Role.POSITION, f"counts up along the sequence and indexes a {rows}-row table")
    mates = [v for v in larger if meet(indexing[v], indexing[value])]
    if mates:
        return Fact(
            Role.SEGMENT,
            f"its {rows}-row table is added to the {_rows(indexing[mates[0]])}-row table of "
            f"{_name(mates[0])}",
        )
    return Fact(Role.CONTENT, f"indexes a {rows}-row table of vectors")


def _rows(nodes: list[ir.Node]) -> int:
    return max(table_rows(node) for node in nodes)


def table_rows(node: ir.Node) -> int:
    """Rows of the table a lookup reads; 0 where unknown."""
    table = table_of(node)
    first = table.shape[0] if table is not None and table.shape is not None else 0
    return first if isinstance(first, int) else 0


def meet(first: list[ir.Node], second: list[ir.Node]) -> bool:
    """Whether rows that two groups of lookups read are terms of one sum."""
    return bool(_sums(first) & _sums(second))


def _sums(nodes: list[ir.Node]) -> set[ir.Value]:
    """Values that are sums in which a looked-up row is a term."""
    rows = [node.outputs[0] for node in nodes]
    uses = uses_of(rows, lambda node, _: node.outputs if node.op_type in _SUM_MOVES else ())
    return {v for node, _ in uses if node.op_type in _SUM_MOVES for v in node.outputs}


def _counts(feed: NDArray[np.generic]) -> bool:
    """Whether most of some row rises by one from entry to entry (padding may clamp its ends)."""
    if feed.ndim == 0 or feed.shape[-1] < 2 or feed.dtype.kind not in "iu":
        return False
    return any(_row_counts(row) for row in feed.astype(np.int64).reshape(-1, feed.shape[-1]))


def _row_counts(row: NDArray[np.int64]) -> bool:
    """Most entries rise by one, or one run of them does and padding fills the rest."""
    steps = np.diff(row)
    rises = np.flatnonzero(steps == 1)
    if len(rises) > len(steps) / 2:
        return True
    unbroken = len(rises) >= 2 and rises[-1] - rises[0] == len(rises) - 1
    return bool(unbroken and np.count_nonzero(np.delete(steps, rises)) <= 2 and row[rises[0]] <= 2)
