"""The role of each graph input: explained content, positions, token types, or a mask.

It follows from the operations that read the input and from its tables, never from its name nor from
the arrays of a caller:

- An input that indexes a table of vectors is content, unless its rows are added to those of the
  vocabulary (positions or token types), turn with the index or are added to attention scores
  (positions).
- A real tensor is content, and so are integers that are computed with as real numbers (pixels).
- An input that is only compared or counted, multiplies content, or is added to attention scores is
  a mask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.masking import HIDING, Choices, Combination, combinations_of
from palrp_onnx.analysis.roles import OVERRIDDEN, Fact, Overrides, Role
from palrp_onnx.analysis.rotating_tables import turns
from palrp_onnx.errors import RoleError
from palrp_onnx.model.follow import from_inputs, uses_of
from palrp_onnx.model.ops import ELEMENTWISE, MOVES, Trait, has, row_of
from palrp_onnx.model.passes.caches import cache_axis
from palrp_onnx.model.values import constant, is_float

#: Reason for the role of a cache.
CACHED = "keys or values of earlier tokens"
#: Operations between looked-up rows and the sum that adds them, and sums themselves.
_SUM_MOVES = Trait.SUM | Trait.SCALE | Trait.ROUNDS | Trait.RETYPES
_SHAPED = _SUM_MOVES | Trait.RESHAPE | Trait.RANK
#: A table with fewer rows than this has too few for positions: it holds token types.
FEWEST_PLACES = 12
#: Tables of positions are seldom longer, vocabularies of words seldom shorter.
_LONG = 5000


@dataclass(frozen=True)
class InputRoles:
    """Roles of the graph's inputs, and the nodes that make content of integer inputs.

    Attributes:
        facts: Name of every input → its role, with the reason.
        lookups: Node that makes real numbers of an integer input → the name of the input. It reads
            rows of a table, encodes entries as one-hot vectors, or casts them.
        doubts: Name of an input whose role rests on thin evidence → the doubt.
    """

    facts: Mapping[str, Fact]
    lookups: Mapping[ir.Node, str]
    doubts: Mapping[str, str] = field(default_factory=dict)

    def named(self, role: Role) -> tuple[str, ...]:
        """Names of the inputs with this role, in graph order."""
        return tuple(name for name, fact in self.facts.items() if fact.role is role)

    def explained(self) -> tuple[str, ...]:
        """Names of the inputs that are explained."""
        return self.named(Role.CONTENT)

    def looked_up(self) -> frozenset[str]:
        """Names of explained inputs whose entries are ids: tokens, categories."""
        return frozenset(n for node, n in self.lookups.items() if not _is_number(node))


def _is_number(node: ir.Node) -> bool:
    """Whether a node only casts integers to real numbers."""
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    return node.op_type == "Cast" and (source is None or source.op_type not in _ENCODING)


#: Operations whose integers or truth values, made real, are one-hot vectors.
_ENCODING = ("Equal", "OneHot")


def input_roles(graph: ir.Graph, overrides: Overrides | None = None) -> InputRoles:
    """Decide the role of every graph input; ``overrides`` come first.

    Raises:
        RoleError: No input looks like content.
    """
    return _Inputs(graph, overrides or {}).decide()


class _Inputs:
    """Decides the roles of the inputs of one graph."""

    def __init__(self, graph: ir.Graph, overrides: Overrides) -> None:
        self._graph = graph
        self._overrides = overrides
        self._values = [v for v in graph.inputs if not v.is_initializer()]
        self._tables = {v: nodes for v in self._values if (nodes := lookups(v))}
        self._doubts: dict[str, str] = {}
        self._choices = Choices()

    def decide(self) -> InputRoles:
        facts = self._by_table()
        facts.update(self._by_use(facts))
        named = {_name(v): facts[v] for v in self._values}
        named.update(
            (n, Fact(role, OVERRIDDEN)) for n, role in self._overrides.items() if n in named
        )
        if not any(fact.role is Role.CONTENT for fact in named.values()):
            raise RoleError(
                "No graph input can be explained: none is a real tensor or indexes a table of "
                "vectors",
                hint=f"Inputs: {', '.join(named)}. --role NAME=content overrides a role.",
            )
        doubts = {name: why for name, why in self._doubts.items() if name not in self._overrides}
        return InputRoles(named, self._lookups(named), doubts)

    def _lookups(self, facts: Mapping[str, Fact]) -> dict[ir.Node, str]:
        """The lookups of explained inputs; one that two inputs share belongs to the first."""
        found: dict[ir.Node, str] = {}
        for value in self._values:
            if facts[_name(value)].role is not Role.CONTENT:
                continue
            casts = [] if is_float(value) else _casts(value)
            for node in self._tables.get(value, casts):
                found.setdefault(node, _name(value))
        return found

    # --- inputs that index tables ---------------------------------------------------------------
    def _by_table(self) -> dict[ir.Value, Fact]:
        facts: dict[ir.Value, Fact] = {}
        for value, nodes in self._tables.items():
            if all(_turning(table_of(node)) for node in nodes):
                reason = f"indexes a {_rows(nodes)}-row table whose rows turn with the index"
                facts[value] = Fact(Role.POSITION, reason)
            elif self._factor_of_indices(value, nodes):
                facts[value] = Fact(Role.MASK, "multiplies the indices of another input")
        words = self._vocabulary([v for v in self._tables if v not in facts])
        for value, nodes in self._tables.items():
            if value not in facts:
                facts[value] = self._by_sums(value, nodes, words)
        return facts

    def _factor_of_indices(self, value: ir.Value, nodes: Collection[ir.Node]) -> bool:
        """Whether an input only changes the indices of another input, and hides scores as well.

        Where that is true of both, the first one listed holds the indices.
        """
        others = [v for v in self._tables if v is not value and set(nodes) <= set(self._tables[v])]
        if not others:
            return False
        content = _real_dependents(self._graph, nodes)
        hides, *theirs = (
            bool(combinations_of([v], content, self._choices, compared=False) & HIDING)
            for v in (value, *others)
        )
        if hides != any(theirs):
            return hides
        listed = list(self._tables)
        return listed.index(value) > min(map(listed.index, others))

    def _vocabulary(self, values: list[ir.Value]) -> ir.Value | None:
        """The input that holds words, of those that index tables.

        The one whose table has as many rows as the output has classes, as these are words; else the
        one with the longest table, if that is too long for positions; else the first whose table
        has enough rows for positions.
        """
        able = [v for v in values if _rows(self._tables[v]) >= FEWEST_PLACES]
        if len(able) < 2:
            return next(iter(able or values), None)
        predicted = [v for v in able if _rows(self._tables[v]) in _classes(self._graph)]
        if len(predicted) == 1:
            return predicted[0]
        first = able[0]
        longest = max(able, key=lambda v: (_rows(self._tables[v]), -able.index(v)))
        own, most = _rows(self._tables[first]), _rows(self._tables[longest])
        if own == most or most >= _LONG:
            return longest
        if are_added(self._tables[first], self._tables[longest]):
            self._doubts[_name(first)] = (
                f"its table has {own} rows and that of {_name(longest)} {most}, which is added to "
                "it: that the first of them holds words and the other positions is likely, no more"
            )
        return first

    def _by_sums(self, value: ir.Value, nodes: Collection[ir.Node], words: ir.Value | None) -> Fact:
        """The role of an input that indexes a table, by what its rows are added to.

        Args:
            value: The input.
            nodes: Its lookups.
            words: The input that holds words.
        """
        rows = _rows(nodes)
        plain = Fact(Role.CONTENT, f"indexes a {rows}-row table of vectors")
        if not rows:
            plain = Fact(Role.CONTENT, "its numbers are spelled as one-hot vectors")
        theirs = self._tables.get(words, ()) if words is not None else ()
        if value is words or not theirs:
            return plain
        if not are_added(nodes, theirs):
            content = _real_dependents(self._graph, theirs)
            uses = combinations_of([n.outputs[0] for n in nodes], content, self._choices)
            if uses == {Combination.SCORES}:
                return Fact(Role.POSITION, f"its {rows}-row table is added to attention scores")
            return plain
        if {table_of(n) for n in nodes} & {table_of(n) for n in theirs}:
            return plain
        assert words is not None
        reason = f"its {rows}-row table is added to the {_rows(theirs)}-row table of {_name(words)}"
        several = value.shape is not None and value.shape.rank() > 2  # boxes, kinds of kinds
        places = rows >= FEWEST_PLACES and not several
        return Fact(Role.POSITION if places else Role.SEGMENT, reason)

    # --- inputs that index nothing --------------------------------------------------------------
    def _by_use(self, facts: Mapping[ir.Value, Fact]) -> dict[ir.Value, Fact]:
        rest = [v for v in self._values if v not in facts]
        looked_up = [
            node
            for value, fact in facts.items()
            if fact.role is Role.CONTENT
            for node in self._tables[value]
        ]
        found = {}
        for value in rest:
            others = [v for v in rest if v is not value and is_float(v)]
            content = _real_dependents(self._graph, looked_up, others)
            found[value] = _used(value, content, self._choices)
        return found


def _used(value: ir.Value, content: Collection[ir.Value], choices: Choices) -> Fact:
    """The role of an input by how it is combined with content."""
    uses = combinations_of([value], content, choices)
    if is_float(value):
        if uses and uses <= HIDING:
            return Fact(Role.MASK, f"a real input that only {' or '.join(sorted(uses))}")
        if cache_axis(value) is not None:
            return Fact(Role.CONTENT, CACHED)
        return Fact(Role.CONTENT, "a real-valued input")
    if value.dtype is ir.DataType.BOOL:
        return Fact(Role.MASK, "holds truth values")
    if _reaches_rotation(value):
        return Fact(Role.POSITION, "an angle is made of it, and its cosine and sine")
    numbers = combinations_of([value], content, choices, compared=False)
    if numbers & {Combination.LEARNED, Combination.JOINS} and _casts(value):
        return Fact(Role.CONTENT, "whole numbers that are computed with as real ones")
    return Fact(Role.MASK, "indexes no table of vectors; only compared, cast or summed")


def _name(value: ir.Value) -> str:
    return value.name or ""


# --- lookups -----------------------------------------------------------------------------------
def lookups(value: ir.Value) -> list[ir.Node]:
    """Nodes that yield vectors for the indices that ``value`` holds, moved or not.

    They gather rows of a table, dequantise gathered rows, or encode each index as a one-hot vector.
    """
    found: dict[ir.Node, None] = {}
    for node, index in uses_of([value], _indices):
        if node.op_type == "Gather" and index == 1:
            found.update(dict.fromkeys(_yielding(node)))
        elif node.op_type == "OneHot" and index == 0:
            vectors = [node] if is_float(node.outputs[0]) else _made_real(node)
            found.update(dict.fromkeys(vectors))
        elif node.op_type == "Equal" and _counting(node.inputs[1 - index]):
            found.update(dict.fromkeys(_made_real(node)))
    return list(found)


def _made_real(node: ir.Node) -> list[ir.Node]:
    """Nodes that make real numbers of integers or truth values: casts, or one of two numbers."""
    users = (use.node for use in node.outputs[0].uses() if use.idx == 0)
    return [u for u in users if is_float(u.outputs[0]) and (u.op_type == "Cast" or _chooses(u))]


def _chooses(node: ir.Node) -> bool:
    """Whether a node yields one where something is true, and zero elsewhere."""
    numbers = [constant(v) for v in node.inputs[1:]]
    stored = [each for each in numbers if each is not None and each.size == 1]
    return node.op_type == "Where" and [float(each.item()) for each in stored] == [1.0, 0.0]


def _yielding(gather: ir.Node) -> list[ir.Node]:
    """The nodes that yield real rows of a gathered table."""
    table = gather.inputs[0]
    if table is None or from_entries(table):
        return []
    if is_float(table):
        return [gather]
    uses = gather.outputs[0].uses()
    return [u.node for u in uses if u.node.op_type == "DequantizeLinear" and u.idx == 0]


def from_entries(value: ir.Value) -> bool:
    """Whether a value depends on the entries of an input, not only on its shape."""
    return from_inputs(value, lambda node: not has(node, Trait.LENGTH))


def _counting(value: ir.Value | None) -> bool:
    """Whether a value is the constant 0, 1, 2, …"""
    stored = value.const_value if value is not None else None
    if stored is None or stored.size < 2 or stored.dtype.is_floating_point():
        return False
    numbers = stored.numpy()
    return numbers.shape[-1] == numbers.size and bool(
        np.array_equal(numbers.ravel(), np.arange(numbers.size))
    )


def table_of(node: ir.Node) -> ir.Value | None:
    """The table that a lookup reads; ``None`` for one-hot vectors and casts."""
    if node.op_type not in ("Gather", "DequantizeLinear"):
        return None
    gathered = node.inputs[0]
    if node.op_type != "DequantizeLinear" or gathered is None:
        return gathered
    gather = gathered.producer()
    return gather.inputs[0] if gather is not None else None


def _indices(node: ir.Node, index: int) -> Iterable[ir.Value]:
    """Results of a node that still hold indices."""
    if has(node, Trait.WHOLE) or row_of(node).moves(index):
        return [v for v in node.outputs if not is_float(v) and v.dtype is not ir.DataType.BOOL]
    if node.op_type in _TO_WHOLE:
        return node.outputs
    table = node.inputs[0]
    if node.op_type == "Gather" and index == 1 and table is not None and not is_float(table):
        return node.outputs if table.const_value is not None else ()  # ids are mapped to ids
    return ()


#: Operations that make whole numbers of real ones, which are cast afterwards.
_TO_WHOLE = ("Ceil", "Floor", "Round")


def _casts(value: ir.Value) -> list[ir.Node]:
    """The casts of integers to real numbers, moved or not."""

    def onward(node: ir.Node, index: int) -> Iterable[ir.Value]:
        passes = node.op_type == "Identity" or row_of(node).moves(index)
        return [v for v in node.outputs if not is_float(v)] if passes else ()

    uses = uses_of([value], onward)
    return [n for n, _ in uses if n.op_type == "Cast" and is_float(n.outputs[0])]


def _rows(nodes: Iterable[ir.Node]) -> int:
    return max(map(table_rows, nodes), default=0)


def table_rows(node: ir.Node) -> int:
    """Rows of the table a lookup reads; 0 where unknown."""
    table = table_of(node)
    first = table.shape[0] if table is not None and table.shape else 0
    return first if isinstance(first, int) else 0


def _turning(table: ir.Value | None) -> bool:
    """Whether the columns of a table are sinusoids of the row, stored or computed."""
    if table is None:
        return False
    stored = table.const_value
    if stored is not None:
        return stored.shape.rank() == 2 and turns(stored.numpy()[:FEWEST_PLACES])
    queue, seen = [table], {table}
    while queue:
        node = queue.pop().producer()
        if node is None:
            continue
        if node.op_type in ("Cos", "Sin"):
            return True
        fresh = [v for v in node.inputs if v is not None and v not in seen]
        seen.update(fresh)
        queue.extend(fresh)
        if any(_turning(v) for v in fresh if v.const_value is not None and is_float(v)):
            return True
    return False


def are_added(first: Iterable[ir.Node], second: Iterable[ir.Node]) -> bool:
    """Whether rows that two groups of lookups read are terms of one sum."""
    return bool(_sums(first) & _sums(second))


def _sums(nodes: Iterable[ir.Node]) -> set[ir.Value]:
    """Values that are sums with a looked-up row among their terms."""
    rows = [node.outputs[0] for node in nodes]
    uses = uses_of(rows, lambda node, _: node.outputs if has(node, _SHAPED) else ())
    return {v for node, _ in uses if has(node, _SUM_MOVES) for v in node.outputs}


def _classes(graph: ir.Graph) -> set[int]:
    """Widths of the last linear layers before the outputs."""
    found: set[int] = set()
    queue, seen = list(graph.outputs), set(graph.outputs)
    while queue:
        node = queue.pop().producer()
        if node is None:
            continue
        weight = node.inputs[1] if has(node, Trait.LEARNT) else None
        if weight is not None and weight.shape is not None and weight.shape.rank() == 2:
            across = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
            width = weight.shape[0 if across else 1]
            found.update([width] if isinstance(width, int) else [])
        elif has(node, _HEADS):
            fresh = [v for v in node.inputs if v is not None and v not in seen]
            seen.update(fresh)
            queue.extend(fresh)
    return found


#: Operations between the last linear layer and an output.
_HEADS = ELEMENTWISE | Trait.SOFTMAX


def _real_dependents(
    graph: ir.Graph, nodes: Iterable[ir.Node], inputs: Iterable[ir.Value] = ()
) -> set[ir.Value]:
    """Real values that depend by a real path on results of ``nodes`` or on ``inputs``."""
    found = {v for node in nodes for v in node.outputs} | set(inputs)
    for node in graph:
        if any(v in found for v in node.inputs):
            found.update(v for v in node.outputs if is_float(v))
    return found


def _reaches_rotation(value: ir.Value) -> bool:
    """Whether a cosine or sine depends on an integer input."""
    uses = uses_of([value], lambda node, _: node.outputs if has(node, _TURNS) else ())
    return any(node.op_type in ("Cos", "Sin") for node, _ in uses)


#: Operations between an integer input and an angle.
_TURNS = (Trait.SUM | Trait.SCALE | Trait.RETYPES | Trait.PRODUCT) | MOVES | Trait.JOIN
