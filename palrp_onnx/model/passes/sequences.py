"""Sequences of tensors that are only taken apart and joined are replaced by their tensors.

Once loops are written out, every sequence of a graph is made by known steps: constructed, split
from a tensor, extended, shortened. So its tensors are known at each step, and what reads them reads
plain values instead. The element of an optional value is that value.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from palrp_onnx.errors import UnsupportedError
from palrp_onnx.model.changes import Changes
from palrp_onnx.model.declared import infer_shapes
from palrp_onnx.model.lowering.builder import Builder
from palrp_onnx.model.passes.branches import MAX_WRITTEN, Body, FreeNames, body_of, hand_over
from palrp_onnx.model.values import constant

#: Operations that concern sequences or optional values.
CONCERNED = frozenset(
    (
        *("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
        *("SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence"),
        *("Optional", "OptionalGetElement", "OptionalHasElement"),
    )
)
#: Index of the operand that is a place in a sequence.
_PLACES = {"SequenceAt": 1, "SequenceInsert": 2, "SequenceErase": 1}


def replace_sequences(model: ir.Model) -> Changes:
    """Replace what reads sequences by plain nodes, in place; the log counts these."""
    graph, opset = model.graph, model.opset_imports.get("", 0)
    if not any(node.op_type in CONCERNED and not node.domain for node in graph):
        return Changes()
    infer_shapes(model)
    names = FreeNames(graph)
    for node in open_splits(graph):
        if (count := _known_count(node)) is not None:
            write_split(Builder(graph, node, opset, names.fresh), node, count)
    sequences = _Sequences(graph, opset, names)
    for node in list(graph):
        if not node.domain:
            sequences.visit(node)
    passes.RemoveUnusedNodesPass()(model)
    return Changes.of({"sequence": sequences.replaced})


def open_splits(graph: ir.Graph) -> list[ir.Node]:
    """Nodes that split a tensor into a sequence whose length may be unknown, in order."""
    return [node for node in graph if node.op_type == "SplitToSequence" and not node.domain]


def open_places(graph: ir.Graph) -> list[tuple[ir.Node, ir.Value]]:
    """Nodes with a computed place in a sequence, in order, each with that place."""
    found = []
    for node in graph:
        at = _PLACES.get(node.op_type, len(node.inputs))
        place = node.inputs[at] if at < len(node.inputs) else None
        if place is not None and place.const_value is None and not node.domain:
            found.append((node, place))
    return found


def put_place(b: Builder, node: ir.Node, place: int) -> None:
    """Replace the computed place in a sequence that a node reads or changes."""
    node.replace_input_with(_PLACES[node.op_type], b.integer(place))


def write_split(b: Builder, node: ir.Node, count: int) -> None:
    """Replace a ``SplitToSequence`` by its pieces and a sequence of them.

    Raises:
        UnsupportedError: There are more than `MAX_WRITTEN` pieces.
    """
    if count > MAX_WRITTEN:
        raise UnsupportedError(
            f"A tensor is split into a sequence of {count} pieces, more than {MAX_WRITTEN}",
            place=f"node {node.name!r}, output {node.outputs[0].name!r}",
        )
    x, axis = _operand(node), node.attributes.get_int("axis", 0)
    sizes = node.inputs[1] if len(node.inputs) > 1 else None
    stored = constant(sizes)
    if sizes is None:
        pieces = b.entries(x, count, axis)
        if node.attributes.get_int("keepdims", 1):
            pieces = [b.unsqueeze(piece, axis) for piece in pieces]
    elif stored is not None:
        each = [int(n) for n in stored] if stored.ndim else [int(stored)] * count
        pieces = b.split(x, each, axis)
    else:
        size = b.cast(b.reshape(sizes, -1), ir.DataType.INT64)
        ends = [b.op("Mul", size, b.integers(k)) for k in range(count + 1)]
        pieces = [b.op("Slice", x, start, end, b.integers(axis)) for start, end in pairwise(ends)]
    made = b.op("SequenceConstruct", *pieces) if pieces else b.op("SequenceEmpty")
    made.type = ir.SequenceType(x.type) if isinstance(x.type, ir.TensorType) else None
    hand_over(b, node, [made])


def _known_count(node: ir.Node) -> int | None:
    """The number of pieces, where constants and fixed lengths of axes give it."""
    sizes = node.inputs[1] if len(node.inputs) > 1 else None
    stored, x = constant(sizes), _operand(node)
    if stored is not None and stored.ndim:
        return int(stored.size)
    if (sizes is not None and stored is None) or x.shape is None:
        return None
    length = x.shape[node.attributes.get_int("axis", 0)]
    each = 1 if stored is None else int(stored)
    return -(-length // each) if isinstance(length, int) and each > 0 else None


class _Sequences:
    """The tensors of every sequence of a graph whose nodes are visited in order.

    Attributes:
        replaced: Number of nodes that were replaced.
    """

    def __init__(self, graph: ir.Graph, opset: int, names: FreeNames) -> None:
        self._graph = graph
        self._opset = opset
        self._names = names
        self._held: dict[ir.Value, list[ir.Value]] = {}
        self.replaced = 0

    def visit(self, node: ir.Node) -> None:
        """Note the sequences that a node makes, or replace it by a node without sequences."""
        if node.op_type == "SequenceMap":
            self._map(node)
        elif (made := self._made(node)) is not None:
            self._held[node.outputs[0]] = made
        elif node.op_type in CONCERNED:
            b = Builder(self._graph, node, self._opset, self._names.fresh)
            if (result := self._read(b, node)) is not None:
                hand_over(b, node, [result])
                self.replaced += 1

    def _of(self, node: ir.Node) -> list[ir.Value] | None:
        """The tensors of the first operand; ``None`` where they are not known."""
        return self._held.get(node.inputs[0]) if node.inputs and node.inputs[0] else None

    def _made(self, node: ir.Node) -> list[ir.Value] | None:
        """The tensors of the sequence that a node makes; ``None`` if they are not known."""
        if node.op_type == "SequenceEmpty":
            return []
        if node.op_type == "SequenceConstruct":
            return [v for v in node.inputs if v is not None]
        held = self._of(node)
        if held is None or node.op_type not in ("Identity", "SequenceInsert", "SequenceErase"):
            return None
        held = list(held)
        if node.op_type == "SequenceInsert":
            assert node.inputs[1] is not None
            if (at := _place(node, len(held), len(held))) is None:
                return None
            held.insert(at, node.inputs[1])
        elif node.op_type == "SequenceErase":
            if (at := _place(node, len(held) - 1, len(held) - 1)) is None:
                return None
            del held[at]
        return held

    def _read(self, b: Builder, node: ir.Node) -> ir.Value | None:
        """What a node reads from a sequence; ``None`` where that is not known."""
        if node.op_type.startswith("Optional"):
            return _of_optional(b, node)
        if (held := self._of(node)) is None:
            return None
        if node.op_type == "SequenceLength":
            return b.integer(len(held))
        if node.op_type == "SequenceAt":
            at = _place(node, len(held) - 1)
            return None if at is None else held[at]
        if node.op_type == "ConcatFromSequence" and held:
            axis = node.attributes["axis"].as_int()
            if node.attributes.get_int("new_axis", 0):
                return b.stack(held, axis)
            return b.op("Concat", *held, axis=axis)
        return None

    def _map(self, node: ir.Node) -> None:
        """Write the graph inside of a ``SequenceMap`` once for every tensor of its sequences."""
        operands = [v for v in node.inputs if v is not None]
        held = self._of(node)
        whole = [v for v in operands if isinstance(v.type, ir.SequenceType) and v not in self._held]
        if held is None or whole or len(held) * len(body_of(node)) > MAX_WRITTEN:
            return
        b = Builder(self._graph, node, self._opset, self._names.fresh)
        body = Body(b, body_of(node), self._names)
        rows = [
            body.write(f"/{k}", [self._held[v][k] if v in self._held else v for v in operands])
            for k in range(len(held))
        ]
        body.forget()
        for k, output in enumerate(node.outputs):
            self._held[output] = [row[k] for row in rows]
        self.replaced += 1


def _of_optional(b: Builder, node: ir.Node) -> ir.Value | None:
    """The element of an optional value, or whether there is one; ``None`` where not known."""
    value = _operand(node)
    maker = value.producer()
    if maker is not None and maker.op_type == "Optional":
        element = maker.inputs[0] if maker.inputs else None
    elif isinstance(value.type, ir.TensorType | ir.SequenceType):
        element = value
    else:
        return None
    if node.op_type == "OptionalHasElement":
        return b.array(np.array(element is not None))
    return element if node.op_type == "OptionalGetElement" else None


def _place(node: ir.Node, last: int, default: int | None = None) -> int | None:
    """The place in a sequence that a node names, from 0 to ``last``.

    Returns:
        ``default`` where it names none; ``None`` where the place is computed, or does not exist.
    """
    index = _PLACES[node.op_type]
    if index >= len(node.inputs) or node.inputs[index] is None:
        return default if last >= 0 else None
    stored = constant(node.inputs[index])
    if stored is None or stored.size != 1:
        return None
    length = last + (node.op_type != "SequenceInsert")
    place = int(stored.item()) + (length if stored < 0 else 0)
    return place if 0 <= place <= last else None


def _operand(node: ir.Node) -> ir.Value:
    """The first operand of a node."""
    value = node.inputs[0]
    assert value is not None
    return value
