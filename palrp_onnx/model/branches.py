"""What the input decides about the graph: branches, rounds of loops, lengths of sequences.

Exporters leave an ``If`` or a ``Loop`` where the graph depends on shapes, caches or settings.
Relevance passes back through the nodes that were computed, so inputs that take other branches, or
another number of rounds, are analysed on their own (see :mod:`palrp_onnx.runtime.branching`). Each
of these *decisions* is one whole number, which a run of the graph yields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import onnx_ir as ir

from palrp_onnx.errors import ModelError, PalrpError
from palrp_onnx.model.changes import Changes
from palrp_onnx.model.lowering.builder import Builder
from palrp_onnx.model.open import Model
from palrp_onnx.model.passes.branches import (
    MAX_WRITTEN,
    FreeNames,
    body_of,
    nodes_with_bodies,
    scanned,
    size_of,
    write_out,
)
from palrp_onnx.model.passes.sequences import open_places, open_splits, put_place, write_split
from palrp_onnx.types import Array

#: Runs a graph: (model, feeds, names of the values wanted) → values.
Run = Callable[[Model, Mapping[str, Array], Iterable[str]], Mapping[str, Array]]


def take_branches(model: Model, feeds: Mapping[str, Array], run: Run) -> Model:
    """``model`` without decisions, or itself where it has none.

    Args:
        model: The model, which is not changed.
        feeds: An example of its input.
        run: Runs the graph.
    """
    while has_decisions(model):
        asked, names = questions(model)
        values = run(asked, feeds, dict.fromkeys(names))
        model = with_decisions(model, answers(values, names))
    return model


def has_decisions(model: Model) -> bool:
    """Whether the input decides anything about the graph."""
    graph = model.graph
    return any(True for each in (nodes_with_bodies, open_splits, open_places) if each(graph))


def answers(values: Mapping[str, Array], names: Sequence[str]) -> list[int]:
    """The decisions, in order, from the values of a run.

    Raises:
        ModelError: A value is not one number.
    """
    for name in names:
        if values[name].size != 1:
            raise ModelError(
                f"What decides about a branch or loop has {values[name].size} entries instead of 1",
                place=f"value {name!r}",
            )
    return [int(values[name].item()) for name in names]


def questions(model: Model) -> tuple[Model, list[str]]:
    """A copy of ``model`` with the values that decide, and their names, one for each decision.

    Nested decisions are left for later. A loop is run until it ends, but not for more rounds than
    could be written out.

    Raises:
        ModelError: Such a node is not well formed.
    """
    with _well_formed(model):
        asked = model.copy()
        graph, opset = asked.graph, asked.graph_opset
        fresh = FreeNames(graph).fresh
        found = [
            _question(Builder(graph, node, opset, fresh), node) for node in nodes_with_bodies(graph)
        ]
        splits = open_splits(graph)
        found += [_after(graph, node, "SequenceLength", node.outputs[0]) for node in splits]
        found += [place for _, place in open_places(graph)]
    return asked, [value.name or "" for value in found]


def with_decisions(model: Model, decided: Sequence[int]) -> Model:
    """A copy of ``model`` in which each decision is taken.

    Args:
        model: The model.
        decided: One number for each decision, in the order of :func:`questions`.

    Raises:
        UnsupportedError: The nodes of all rounds are too many.
    """

    def take(proto: ir.Model) -> Changes:
        graph, opset, left = proto.graph, proto.opset_imports.get("", 0), iter(decided)
        nodes, splits, places = nodes_with_bodies(graph), open_splits(graph), open_places(graph)
        chosen = [(node, next(left)) for node in nodes]
        changes = Changes.of({"sequence": len(splits) + len(places)})
        fresh = FreeNames(graph).fresh
        for node in splits:
            write_split(Builder(graph, node, opset, fresh), node, next(left))
        for (node, _), number in zip(places, left, strict=True):
            put_place(Builder(graph, node, opset, fresh), node, number)
        changes.add(write_out(proto, chosen))
        return changes

    with _well_formed(model):
        taken = model.copy().rewritten(take)
    return replace(taken, decided=(*model.decided, *decided))


@contextmanager
def _well_formed(model: Model) -> Iterator[None]:
    """Any other error of what is inside is an error of the file."""
    try:
        yield
    except PalrpError:
        raise
    except Exception as error:  # the runtime may accept what the standard does not
        raise ModelError(
            "A branch, loop or sequence of the graph is not well formed",
            place=str(model.path),
            hint=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
        ) from error


def _question(b: Builder, node: ir.Node) -> ir.Value:
    """The value that decides about an ``If``, ``Loop`` or ``Scan``."""
    if node.op_type == "If":
        condition = node.inputs[0]
        assert condition is not None
        return condition
    if node.op_type == "Scan":
        value, axis = scanned(node)[0]
        return b.op("Gather", b.op("Shape", value), b.integer(axis), axis=0)
    return _after(b.graph, node, "Size", _counter(b, node))


def _counter(b: Builder, node: ir.Node) -> ir.Value:
    """A new output of a ``Loop`` with one entry for every round, of a limited number of rounds."""
    body, count = body_of(node), node.inputs[0]
    most = b.integers(MAX_WRITTEN // size_of(node) + 1)
    if count is not None:
        both = b.op("Concat", b.reshape(count, 1), most, axis=0)
        most = b.reduce("ReduceMin", both, 0)
    scalar = b.integers()
    node.replace_input_with(0, b.op("Reshape", most, scalar))
    # The runtime reads the first entry of a condition, and crashes where there is none.
    if node.inputs[1] is not None:
        node.replace_input_with(1, b.op("Reshape", node.inputs[1], scalar))
    again = ir.node("Reshape", [body.outputs[0], scalar])
    again.outputs[0].name = f"{node.outputs[0].name or node.name}/again"
    again.outputs[0].type, again.outputs[0].shape = ir.TensorType(ir.DataType.BOOL), ir.Shape([])
    body.append(again)
    body.outputs[0] = again.outputs[0]
    name = f"{node.outputs[0].name or node.name}/round"
    mark = _measured("Identity", body.inputs[0], name)
    body.append(mark)
    body.outputs.append(mark.outputs[0])
    node.resize_outputs(len(node.outputs) + 1)
    node.outputs[-1].name = f"{name}s"
    return node.outputs[-1]


def _after(graph: ir.Graph, node: ir.Node, op_type: str, value: ir.Value) -> ir.Value:
    """The result of an operation of one operand, written after a node."""
    measured = _measured(op_type, value, f"{value.name}/{op_type}")
    graph.insert_after(node, measured)
    return measured.outputs[0]


def _measured(op_type: str, value: ir.Value, name: str) -> ir.Node:
    """An operation with one whole number as its result."""
    integer = ir.TensorType(ir.DataType.INT64)
    result = ir.Value(name=name, type=integer, shape=ir.Shape([]))
    return ir.node(op_type, [value], outputs=[result])
