"""Words that are moved before they are looked up are looked up first and moved afterwards.

``table[move(ids)]`` equals ``move(table[ids])`` for every operation that only moves or chooses
entries: shifting, reversing, concatenating, scattering, ``Where``. In the second form the rules for
movement carry relevance back to the word that was moved. Element-wise arithmetic on ids (an offset,
a hash) is exchanged in the same way: ``f(move(ids))`` equals ``move(f(ids))``.

Ids that are replaced or left out before the lookup need not be rows of the table, as −100 where
there is no word. They are looked up as its last or first row, which nothing reads. A *guard*, 0 for
all rows of the table, is added to them, so that any other id outside stops the run as it did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.inputs import InputRoles
from palrp_onnx.errors import UnsupportedError
from palrp_onnx.model.changes import Changes
from palrp_onnx.model.ops import Trait, has, row_of
from palrp_onnx.model.values import is_float
from palrp_onnx.types import Array

#: Since this opset ``Clip`` takes integers.
_CLIPS = 12


def move_lookups(graph: ir.Graph, roles: InputRoles) -> Changes:
    """Look words up before they are moved, in place; the log counts lookups.

    Args:
        graph: The plain graph.
        roles: Roles of its inputs, with the lookups of content.

    Raises:
        UnsupportedError: Words are moved by an operation that cannot be followed.
    """
    inputs = {v.name: v for v in graph.inputs}
    found = [_Rewriter(graph, node, inputs[name]) for node, name in roles.lookups.items()]
    moved = [rewriter for rewriter in found if rewriter.moved()]
    for rewriter in moved:
        rewriter.rewrite()
    return Changes.of({"lookup moved": len(moved)})


class _Rewriter:
    """Moves one lookup before the movement of its indices."""

    def __init__(self, graph: ir.Graph, lookup: ir.Node, source: ir.Value) -> None:
        self._graph = graph
        self._lookup = lookup
        self._last = _gather_of(lookup)
        self._index = 1 if self._last.op_type == "Gather" else 0
        self._depends = _dependents(graph, source)
        self._count = 0
        self._known: dict[tuple[ir.Value, tuple[ir.Node, ...]], ir.Value] = {}
        self._guard: ir.Value | None = None

    def _compared(self) -> ir.Node | None:
        value = self._last.inputs[0]
        node = value.producer() if value is not None else None
        made = self._last.op_type in ("Cast", "Where")
        return node if made and node is not None and node.op_type == "Equal" else None

    def moved(self) -> bool:
        """Whether a word may have another place in the lookup than in the input.

        Raises:
            UnsupportedError: One-hot vectors by comparison are made of moved words.
        """
        compared = self._compared()
        if compared is None:
            indices = self._last.inputs[self._index]
            return indices is not None and self._moves_below(indices)
        if any(v is not None and self._moves_below(v, axes=False) for v in compared.inputs):
            raise self._refusal(compared)
        return False

    def rewrite(self) -> None:
        """Replace the lookup by moved lookups."""
        indices = self._last.inputs[self._index]
        assert indices is not None
        old = self._lookup.outputs[0]
        self._guard = self._guarded(indices)
        try:
            new = self._rows(indices, ())
        except RecursionError as error:  # more movements in a row than anybody writes
            raise self._refusal(self._last) from error
        new.type, new.shape = old.type, old.shape or new.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name, new.name = None, old.name
        self._graph.remove(self._lookup, safe=True)

    def _rows(self, value: ir.Value, pending: tuple[ir.Node, ...]) -> ir.Value:
        """The vectors of ``value``, after the ``pending`` arithmetic on ids; written once."""
        known = self._known.get((value, pending))
        return self._written(value, pending) if known is None else known

    def _written(self, value: ir.Value, pending: tuple[ir.Node, ...]) -> ir.Value:
        node = value.producer() if value in self._depends else None
        if node is None or not self._moves_below(value):
            return self._read(value, pending)
        if has(node, Trait.WHOLE):
            own = next(v for v in node.inputs if v in self._depends)
            others = [v for v in node.inputs if v is not own and v is not None]
            if any(v in self._depends or not _is_number(v) for v in others):
                raise self._refusal(node)
            assert own is not None
            return self._rows(own, (node, *pending))
        if node.op_type == "Split" and node.inputs[0] is not None:
            return self._part(node, value, self._rows(node.inputs[0], pending))
        if node.op_type not in _MOVERS:
            raise self._refusal(node)
        operands = row_of(node).moved
        chosen = range(len(node.inputs)) if operands is None else operands
        rows: dict[int, ir.Value] = {}
        for k in chosen:
            each = node.inputs[k] if k < len(node.inputs) else None
            if each is not None:
                rows[k] = self._rows(each, pending)
        try:
            found = _MOVERS[node.op_type](self, node, rows)
        except NotImplementedError as error:
            raise self._refusal(node) from error
        self._known[value, pending] = found
        return found

    def _part(self, node: ir.Node, value: ir.Value, rows: ir.Value) -> ir.Value:
        """The part of looked-up rows that corresponds to ``value``, a part of the words."""
        made = ir.node(
            "Split", [rows, *node.inputs[1:]], num_outputs=len(node.outputs), name=self._name()
        )
        made.attributes.update(node.attributes)
        axis = node.attributes.get_int("axis", 0)
        made.attributes["axis"] = ir.AttrInt64("axis", axis - (axis < 0 and self.vectors))
        for each in made.outputs:
            each.name, each.type = self._name(), self._lookup.outputs[0].type
        self._graph.insert_before(self._lookup, made)
        return made.outputs[list(node.outputs).index(value)]

    def _moves_below(self, value: ir.Value, *, axes: bool = True) -> bool:
        """Whether words are moved between the input and ``value``; new ``axes`` count as well."""
        queue = [value] if value in self._depends else []
        seen = set(queue)
        while queue:
            node = queue.pop().producer()
            if node is None:
                continue
            moves = axes or not has(node, Trait.RANK)
            if moves and row_of(node).moved != () and not _in_place(node):
                return True
            fresh = [v for v in node.inputs if v is not None and v in self._depends]
            queue.extend(v for v in fresh if v not in seen)
            seen.update(fresh)
        return False

    def _read(self, value: ir.Value, pending: Sequence[ir.Node]) -> ir.Value:
        """A new lookup of a value that is not moved."""
        for node in pending:
            value = self._like(node, [v if v not in self._depends else value for v in node.inputs])
        return self._copied_lookup(value)

    def _copied_lookup(self, indices: ir.Value) -> ir.Value:
        first = self._last
        indices = self._inside(indices)
        inputs = [indices if k == self._index else v for k, v in enumerate(first.inputs)]
        made = self._like(first, inputs)
        made.shape = None
        if first is not self._lookup:  # rows of a quantised table, or integers, made real
            made = self._like(self._lookup, [made, *self._lookup.inputs[1:]])
            made.shape = None
        return made

    # --- ids outside of the table -------------------------------------------------------------
    @property
    def _ends(self) -> tuple[int, int] | None:
        """First and last row of the table; ``None`` for one-hot vectors, and where not stored."""
        table = self._last.inputs[0] if self._last.op_type == "Gather" else None
        if table is None or table.shape is None or self._graph.opset_imports.get("", 0) < _CLIPS:
            return None
        rows = table.shape[self._last.attributes.get_int("axis", 0)]
        return (-rows, rows - 1) if isinstance(rows, int) else None

    def _guarded(self, indices: ir.Value) -> ir.Value | None:
        """0 where all indices that the file looks up are rows of the table; else the run stops."""
        if self._ends is None:
            return None
        zero = ir.tensor(np.zeros(1, self._kind))
        zeros = self._whole("ConstantOfShape", [self.integers(self._ends[1] + 1)], value=zero)
        flat = self._whole("Reshape", [indices, self.integers(-1)])
        return self._whole("ReduceSum", [self._whole("Gather", [zeros, flat])], keepdims=0)

    def _inside(self, indices: ir.Value) -> ir.Value:
        """Indices of rows of the table: those outside, which nothing reads, are its ends."""
        if self._ends is None:
            return indices
        ends = [self._constant(np.array(end, self._kind)) for end in self._ends]
        return self._whole("Add", [self._whole("Clip", [indices, *ends]), self._guard])

    def _whole(
        self, op_type: str, inputs: Sequence[ir.Value | None], **attributes: object
    ) -> ir.Value:
        """A new node whose result has the type of indices."""
        made = self.node(op_type, inputs, **attributes)
        made.dtype = ir.DataType.from_numpy(self._kind)
        return made

    @property
    def _kind(self) -> np.dtype[Any]:
        """The type of indices."""
        indices = self._last.inputs[self._index]
        known = None if indices is None else indices.dtype
        return np.dtype((known or ir.DataType.INT64).numpy())

    # --- writing ----------------------------------------------------------------------------
    def node(
        self, op_type: str, inputs: Sequence[ir.Value | None], **attributes: object
    ) -> ir.Value:
        """Insert a node before the lookup, and return its result."""
        made = ir.node(op_type, inputs, attributes, name=self._name())  # type: ignore[arg-type]
        return self._added(made)

    def _like(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Value:
        """Insert the same operation on other operands."""
        result = self.like(node, inputs)
        result.type, result.shape = node.outputs[0].type, node.outputs[0].shape
        return result

    def like(self, node: ir.Node, inputs: Sequence[ir.Value | None], **changed: int) -> ir.Value:
        """Insert the same movement, of vectors, with some attributes changed."""
        made = ir.node(node.op_type, inputs, domain=node.domain, name=self._name())
        made.attributes.update(node.attributes)
        for name, number in changed.items():
            made.attributes[name] = ir.AttrInt64(name, number)
        result = self._added(made)
        result.type = self._lookup.outputs[0].type
        return result

    def _added(self, made: ir.Node) -> ir.Value:
        self._graph.insert_before(self._lookup, made)
        made.outputs[0].name = made.name
        return made.outputs[0]

    def _name(self) -> str:
        self._count += 1
        return f"{self._lookup.outputs[0].name}/moved/{self._count}"

    def integers(self, *numbers: int) -> ir.Value:
        """A new initializer: a vector of integers."""
        return self._constant(np.array(numbers, np.int64))

    def _constant(self, numbers: Array) -> ir.Value:
        value = ir.val(self._name(), const_value=ir.tensor(numbers))
        self._graph.register_initializer(value)
        return value

    def trailing(self, value: ir.Value) -> ir.Value:
        """``value`` with one more axis of length 1 at the end."""
        if not self.vectors:
            return value
        return self.node("Unsqueeze", [value, self.integers(-1)])

    @property
    def vectors(self) -> bool:
        """Whether a lookup adds an axis."""
        return self._last.op_type != "Cast"

    def width(self, rows: ir.Value) -> ir.Value:
        """The length of the last axis, as a vector of one entry."""
        last = self.node("Shape", [rows])
        return self.node("Slice", [last, self.integers(-1), self.integers(2**31)])

    def _refusal(self, node: ir.Node) -> UnsupportedError:
        return UnsupportedError(
            "Words are moved before they are looked up, by an operation that cannot be followed",
            place=f"{node.op_type} {node.name!r}",
            hint="Look words up before moving them; otherwise relevance would reach other words.",
        )


_Mover = Callable[[_Rewriter, ir.Node, dict[int, ir.Value]], ir.Value]
_MOVERS: dict[str, _Mover] = {}


def _moves(*op_types: str) -> Callable[[_Mover], _Mover]:
    def register(function: _Mover) -> _Mover:
        _MOVERS.update(dict.fromkeys(op_types, function))
        return function

    return register


@_moves("Concat", "Gather", "GatherElements", "ScatterElements")
def _along_an_axis(w: _Rewriter, node: ir.Node, rows: dict[int, ir.Value]) -> ir.Value:
    axis = node.attributes.get_int("axis", 0)
    if axis < 0 and w.vectors:
        axis -= 1
    inputs = [rows.get(k, v) for k, v in enumerate(node.inputs)]
    if node.op_type in ("GatherElements", "ScatterElements") and w.vectors:
        index = node.inputs[1]
        assert index is not None
        like = rows.get(2, rows[0])
        wide = w.node("Concat", [w.node("Shape", [index]), w.width(like)], axis=0)
        inputs[1] = w.node("Expand", [w.trailing(index), wide])
    return w.like(node, inputs, axis=axis)


@_moves("ScatterND", "GatherND", "ReverseSequence", "Identity")
def _from_the_front(w: _Rewriter, node: ir.Node, rows: dict[int, ir.Value]) -> ir.Value:
    return w.like(node, [rows.get(k, v) for k, v in enumerate(node.inputs)])


@_moves("Where")
def _where(w: _Rewriter, node: ir.Node, rows: dict[int, ir.Value]) -> ir.Value:
    condition = node.inputs[0]
    assert condition is not None
    return w.like(node, [w.trailing(condition), rows[1], rows[2]])


@_moves("Slice")
def _slice(w: _Rewriter, node: ir.Node, rows: dict[int, ir.Value]) -> ir.Value:
    inputs: list[ir.Value | None] = [rows[0], *node.inputs[1:]]
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    if axes is not None and w.vectors:
        stored = axes.const_value
        if stored is None:
            raise NotImplementedError("a slice whose axes are computed")
        inputs[3] = w.integers(*(int(a) - (a < 0) for a in stored.numpy().ravel()))
        if inputs[1] is not None and inputs[1].dtype is ir.DataType.INT32:
            inputs[3] = w.node("Cast", [inputs[3]], to=int(ir.DataType.INT32))
    return w.like(node, inputs)


@_moves("Unsqueeze", "Squeeze")
def _axes(w: _Rewriter, node: ir.Node, rows: dict[int, ir.Value]) -> ir.Value:
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    stored = None if axes is None else axes.const_value
    if "axes" in node.attributes:
        shifted = [a - (a < 0 and w.vectors) for a in node.attributes["axes"].as_ints()]
        return w.node(node.op_type, [rows[0]], axes=shifted)
    if stored is None:
        raise NotImplementedError(f"{node.op_type} whose axes are computed")
    numbers = [int(a) - (a < 0 and w.vectors) for a in stored.numpy().ravel()]
    return w.node(node.op_type, [rows[0], w.integers(*numbers)])


@_moves("Reshape", "Expand")
def _to_a_shape(w: _Rewriter, node: ir.Node, rows: dict[int, ir.Value]) -> ir.Value:
    shape = node.inputs[1]
    if w.vectors:
        shape = w.node("Concat", [shape, w.width(rows[0])], axis=0)
    return w.like(node, [rows[0], shape])


@_moves("Tile")
def _tile(w: _Rewriter, node: ir.Node, rows: dict[int, ir.Value]) -> ir.Value:
    repeats = node.inputs[1]
    if w.vectors:
        repeats = w.node("Concat", [repeats, w.integers(1)], axis=0)
    return w.like(node, [rows[0], repeats])


@_moves("Transpose")
def _transpose(w: _Rewriter, node: ir.Node, rows: dict[int, ir.Value]) -> ir.Value:
    if not w.vectors:
        return w.like(node, [rows[0]])
    perm, before = node.attributes.get("perm"), node.inputs[0]
    if perm is None and (before is None or before.shape is None):
        raise NotImplementedError("a transpose without perm of unknown rank")
    rank = before.shape.rank() if before is not None and before.shape is not None else 0
    order = list(reversed(range(rank))) if perm is None else perm.as_ints()
    return w.node("Transpose", [rows[0]], perm=[*order, len(order)])


def _gather_of(lookup: ir.Node) -> ir.Node:
    """The node of a lookup that reads the indices."""
    before = lookup.inputs[0].producer() if lookup.inputs and lookup.inputs[0] is not None else None
    if lookup.op_type == "Cast" and before is not None and before.op_type == "OneHot":
        return before
    if lookup.op_type != "DequantizeLinear":
        return lookup
    assert before is not None
    return before


def _in_place(node: ir.Node) -> bool:
    """Whether a reshape keeps the number of axes, so that words keep their places."""
    before, after = node.inputs[0], node.outputs[0]
    return (
        has(node, Trait.RESHAPE)
        and before is not None
        and before.shape is not None
        and after.shape is not None
        and before.shape.rank() == after.shape.rank()
    )


def _is_number(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size == 1


def _dependents(graph: ir.Graph, source: ir.Value) -> set[ir.Value]:
    """Integer values that depend on the entries of an input."""
    found = {source}
    for node in graph:
        if has(node, Trait.LENGTH) or not any(v in found for v in node.inputs):
            continue
        kinds = [v for v in node.outputs if not is_float(v) and v.dtype is not ir.DataType.BOOL]
        found.update(kinds)
    return found
