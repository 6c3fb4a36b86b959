"""Nodes with graphs inside are written out as the nodes that run.

An ``If`` becomes one of its branches, a ``Loop`` or ``Scan`` its rounds, one after the other. What
is needed for this is one number a node: which branch is taken, or how many rounds there are. Where
stored constants give it, the node is written out when the file is opened; otherwise the number
belongs to an input (see :mod:`palrp_onnx.model.branches`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from palrp_onnx.errors import UnsupportedError
from palrp_onnx.model.changes import Changes
from palrp_onnx.model.declared import infer_shapes
from palrp_onnx.model.lowering.builder import Builder
from palrp_onnx.model.passes.whole_numbers import fold_whole_numbers
from palrp_onnx.model.values import constant

#: The most nodes of a graph whose loops are written out.
MAX_WRITTEN = 100_000
#: Number of rounds of a loop without an end.
ENDLESS = 2**62


def write_out_constant(model: ir.Model) -> Changes:
    """Write out each node whose number is known from constants, in place; the log counts them."""
    changes = Changes()
    if any(node.op_type == "Scan" for node in model.graph):
        infer_shapes(model)
    while known := [
        (node, number)
        for node in nodes_with_bodies(model.graph)
        if (number := _known_number(node)) is not None
    ]:
        changes.add(write_out(model, known))
    return changes


def nodes_with_bodies(graph: ir.Graph) -> list[ir.Node]:
    """Every ``If``, ``Loop`` and ``Scan`` of the graph, in order, without nested ones."""
    return [n for n in graph if n.op_type in ("If", "Loop", "Scan") and not n.domain]


def body_of(node: ir.Node) -> ir.Graph:
    """The graph that a node repeats."""
    return node.attributes["body"].as_graph()


def size_of(node: ir.Node) -> int:
    """Number of nodes that a node repeats, at least 1."""
    return max(1, sum(1 for _ in body_of(node).all_nodes()))


def scanned(node: ir.Node) -> list[tuple[ir.Value, int]]:
    """What a ``Scan`` reads entry by entry: the values, each with its axis."""
    count = node.attributes["num_scan_inputs"].as_int()
    values = [v for v in node.inputs[len(node.inputs) - count :] if v is not None]
    return list(zip(values, _numbers(node, "scan_input_axes", count), strict=True))


def write_out(model: ir.Model, decided: Iterable[tuple[ir.Node, int]]) -> Changes:
    """Write out some nodes of the graph, in place; the log counts them.

    Args:
        model: The model.
        decided: Nodes of :func:`nodes_with_bodies`, each with its number: the condition of an
            ``If``, the rounds of another node.

    Raises:
        UnsupportedError: All rounds together are more than `MAX_WRITTEN` nodes, or a ``Scan`` has
            the form of opset 8.
    """
    graph, opset = model.graph, model.opset_imports.get("", 0)
    names = FreeNames(graph)
    size, done = len(graph), []
    for node, number in decided:
        b = Builder(graph, node, opset, names.fresh)
        if node.op_type == "If":
            results = _branch(b, node, bool(number), names)
        else:
            size += number * size_of(node)
            _check_size(node, number, size)
            write = _loop if node.op_type == "Loop" else _scan
            results = write(b, node, number, names)
        hand_over(b, node, results)
        done.append(node.op_type)
    if len(done) > done.count("If"):
        fold_whole_numbers(model)
        _drop_empty_pieces(graph)
        passes.RemoveUnusedNodesPass()(model)
    return Changes.of({each: done.count(each) for each in done})


def _drop_empty_pieces(graph: ir.Graph) -> None:
    """Take out of concatenations what loops without a round yield."""
    for node in graph:
        if node.op_type != "Concat" or node.domain:
            continue
        axis = node.attributes["axis"].as_int()
        stored = [None if v is None else constant(_source(v)) for v in node.inputs]
        left = [
            value
            for value, array in zip(node.inputs, stored, strict=True)
            if array is None or not -array.ndim <= axis < array.ndim or array.shape[axis]
        ]
        if left and len(left) < len(node.inputs):
            node.resize_inputs(len(left))
            for index, value in enumerate(left):
                node.replace_input_with(index, value)


def _check_size(node: ir.Node, number: int, size: int) -> None:
    """Refuse a node that would become more nodes than the analysis of a graph can take."""
    if size > MAX_WRITTEN:
        rounds = "without end" if number >= ENDLESS else f"at least {number} times"
        raise UnsupportedError(
            f"The {size_of(node)} nodes inside of a {node.op_type} run {rounds}. Written one after "
            f"the other, they make a graph of more than {MAX_WRITTEN} nodes",
            place=f"node {node.name!r}, outputs {', '.join(v.name or '' for v in node.outputs)}",
            hint="Explain a shorter input, if the number of rounds depends on it.",
        )


# --- numbers that constants give ------------------------------------------------------------------
def _known_number(node: ir.Node) -> int | None:
    """The number of a node, if it follows from stored constants."""
    if node.op_type == "If":
        return _single(node.inputs[0])
    if node.op_type == "Loop":
        return _known_rounds(node)
    if _is_first_form(node):
        return None
    value, axis = scanned(node)[0]
    length = value.shape[axis] if value.shape is not None else None
    return length if isinstance(length, int) else None


def _known_rounds(node: ir.Node) -> int | None:
    count, condition = node.inputs[:2]
    begins = 1 if condition is None else _single(condition)
    if begins == 0:
        return 0
    if begins is None or not _goes_on(body_of(node)):
        return None
    rounds = ENDLESS if count is None else _single(count)
    return None if rounds is None else max(0, rounds)


def _goes_on(body: ir.Graph) -> bool:
    """Whether the condition of a loop stays true."""
    value = _source(body.outputs[0])
    return value is body.inputs[1] or bool(_single(value))


def _source(value: ir.Value) -> ir.Value:
    """The value that this one is a copy of."""
    seen = set()  # a damaged graph may have copies in a circle
    while (node := value.producer()) is not None and node.op_type == "Identity":
        source = node.inputs[0]
        if source is None or source in seen:
            break
        seen.add(source)
        value = source
    return value


def _single(value: ir.Value | None) -> int | None:
    """The entry of a stored array that has only one."""
    stored = constant(value)
    maker = None if value is None else value.producer()
    if maker is not None and maker.op_type == "Constant" and "value" in maker.attributes:
        stored = maker.attributes["value"].as_tensor().numpy()
    return int(stored.item()) if stored is not None and stored.size == 1 else None


# --- writing out ----------------------------------------------------------------------------------
def _branch(b: Builder, node: ir.Node, taken: bool, names: FreeNames) -> list[ir.Value]:
    """The branch of an ``If`` that is taken."""
    names_of = ("else_branch", "then_branch")
    bodies = [Body(b, node.attributes[n].as_graph(), names) for n in names_of]
    bodies[not taken].forget()
    results = bodies[taken].write("", [])
    bodies[taken].forget()
    return results


def _loop(b: Builder, node: ir.Node, rounds: int, names: FreeNames) -> list[ir.Value]:
    """The rounds of a ``Loop``."""
    body = Body(b, body_of(node), names)
    carried = [v for v in node.inputs[2:] if v is not None]
    known = [b.array(np.array(True))] if rounds else []
    rows = []
    for k in range(rounds):
        _, *results = body.write(f"/{k}", [b.integer(k), *known, *carried])
        rows.append(results[len(carried) :])
        carried = results[: len(carried)]
    made = [_joined(b, row, 0, v) for row, v in _columns(rows, body.outputs[1 + len(carried) :])]
    body.forget()
    return [*carried, *made]


def _scan(b: Builder, node: ir.Node, rounds: int, names: FreeNames) -> list[ir.Value]:
    """The rounds of a ``Scan``, from the last entry on where its direction is 1."""
    if _is_first_form(node):
        raise UnsupportedError(
            "A Scan of opset 8 repeats its graph for every sample of a batch",
            place=f"node {node.name!r}, output {node.outputs[0].name!r}",
            hint="Export the model in opset 9 or later.",
        )
    body, read = Body(b, body_of(node), names), scanned(node)
    carried = [v for v in node.inputs[: len(node.inputs) - len(read)] if v is not None]
    backwards = _numbers(node, "scan_input_directions", len(read))
    entries = [
        b.entries(value, rounds, axis)[:: -1 if back else 1]
        for (value, axis), back in zip(read, backwards, strict=True)
    ]
    rows = []
    for k in range(rounds):
        results = body.write(f"/{k}", [*carried, *(each[k] for each in entries)])
        rows.append(results[len(carried) :])
        carried = results[: len(carried)]
    columns = _columns(rows, body.outputs[len(carried) :])
    axes = _numbers(node, "scan_output_axes", len(columns))
    reverse = _numbers(node, "scan_output_directions", len(columns))
    made = [
        _joined(b, row[::-1] if back else row, axis, value)
        for (row, value), axis, back in zip(columns, axes, reverse, strict=True)
    ]
    body.forget()
    return [*carried, *made]


def _columns(
    rows: Sequence[Sequence[ir.Value]], outputs: Sequence[ir.Value]
) -> list[tuple[list[ir.Value], ir.Value]]:
    """For each output of a body: its values in all rounds."""
    return [([row[k] for row in rows], value) for k, value in enumerate(outputs)]


def _joined(b: Builder, values: Sequence[ir.Value], axis: int, like: ir.Value) -> ir.Value:
    """Values along a new axis; an empty array where there are none."""
    if values:
        return b.stack(values, axis)
    dims = [d if isinstance(d, int) else 0 for d in like.shape or ()]
    dims.insert(axis if axis >= 0 else len(dims) + 1 + axis, 0)
    dtype = ir.DataType.FLOAT if like.dtype is None else like.dtype
    return b.array(np.zeros(dims, dtype.numpy()))


def _numbers(node: ir.Node, name: str, count: int) -> Sequence[int]:
    """An attribute of one number for each operand; all 0 by default."""
    return node.attributes.get_ints(name, ()) or [0] * count


def _is_first_form(node: ir.Node) -> bool:
    """Whether a ``Scan`` has the form of opset 8, with the lengths as first operand."""
    return len(node.inputs) != len(body_of(node).inputs) or "directions" in node.attributes


def hand_over(b: Builder, node: ir.Node, results: Sequence[ir.Value]) -> None:
    """Replace the outputs of a node by ``results``, which take their names, and remove it."""
    for old, new in zip(node.outputs, results, strict=True):
        if isinstance(old.type, ir.TensorType) or old.type is None or old.is_graph_output():
            dtype, shape = old.type or new.type, old.shape
            new = b.own(new)
            new.type, new.shape = new.type or dtype, new.shape or shape
            old.name, new.name = None, old.name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    assert isinstance(node.graph, ir.Graph)
    node.graph.remove(node, safe=True)


class Body:
    """A graph inside of a node, whose nodes are written before that node.

    Args:
        b: The builder of that node.
        body: The graph inside; its stored arrays move to the graph of the node.
        names: Names in use there.
    """

    def __init__(self, b: Builder, body: ir.Graph, names: FreeNames) -> None:
        self._b, self._body, self._names = b, body, names
        body.sort()  # an error where nodes read each other in a circle
        for k, value in enumerate(body.outputs):
            if value.producer() is None and not value.is_graph_input():
                copy = ir.node("Identity", [value])
                copy.outputs[0].name = f"{value.name}/given"
                copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
                body.append(copy)
                body.outputs[k] = copy.outputs[0]
        for value in list(body.initializers.values()):
            body.initializers.pop(value.name or "")
            value.name = names.fresh(value.name or "")
            b.graph.register_initializer(value)

    @property
    def outputs(self) -> Sequence[ir.Value]:
        """Its outputs."""
        return self._body.outputs

    def write(self, ending: str, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        """Write a copy of the nodes, with ``ending`` after their names.

        Returns:
            The values of the outputs.
        """
        copy = self._body.clone(allow_outer_scope_values=True)
        given = dict(zip(copy.inputs, inputs, strict=True))
        results = [given.get(v, v) for v in copy.outputs]
        copy.outputs.clear()
        ir.convenience.replace_all_uses_with(list(given), list(given.values()))
        nodes = list(copy)
        copy.remove(nodes)
        for node in nodes:
            node.name = f"{node.name}{ending}" if node.name else node.name
            for value in node.outputs:
                if value.name:
                    value.name = self._names.fresh(value.name + ending)
        self._b.insert(nodes)
        return results

    def forget(self) -> None:
        """Release what the nodes read, so that it does not count as used."""
        for node in self._body.all_nodes():
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)


class FreeNames:
    """Names in use in a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._taken = {v.name for node in graph for v in node.outputs}
        self._taken.update(graph.initializers, (v.name for v in graph.inputs))
        self._counts: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """``name``, with the first free number appended if it is in use."""
        found, count = name, self._counts.get(name, 0)
        while found in self._taken:
            count += 1
            found = f"{name}/{count}"
        self._counts[name] = count
        self._taken.add(found)
        return found
