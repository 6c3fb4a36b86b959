"""Conditional branches: each ``If`` is replaced by the branch that an input takes.

Exporters leave an ``If`` where the graph depends on shapes, caches or settings. Relevance passes
back through the nodes that were computed, so inputs that take other branches are analysed on their
own (see :mod:`palrp_onnx.runtime.branching`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from palrp_onnx.model.changes import Changes
from palrp_onnx.types import Array

if TYPE_CHECKING:
    from palrp_onnx.model.open import Model

#: Runs a graph: (model, feeds, names of the values wanted) → values.
Run = Callable[["Model", Mapping[str, Array], Iterable[str]], Mapping[str, Array]]


def take_branches(model: Model, feeds: Mapping[str, Array], run: Run) -> Model:
    """``model`` without conditional branches, or itself where it has none.

    Args:
        model: The model, which is not changed.
        feeds: An example of its input.
        run: Runs the graph.
    """
    while names := condition_names(model):
        values = run(model, feeds, dict.fromkeys(names))
        model = with_branches(model, [bool(values[name].item()) for name in names])
    return model


def condition_names(model: Model) -> list[str]:
    """Names of the conditions of each ``If`` of the graph, in order, without nested ones."""
    return [_condition(node).name or "" for node in _branching(model.graph)]


def with_branches(model: Model, taken: Sequence[bool]) -> Model:
    """A copy of ``model`` where every ``If`` of its graph is replaced by a branch.

    Args:
        model: The model.
        taken: The value of each condition, in the order of :func:`condition_names`.
    """

    def take(proto: ir.Model) -> Changes:
        nodes = _branching(proto.graph)
        _inline(proto.graph, zip(nodes, taken, strict=True))
        return Changes.of({"If": len(nodes)})

    return model.copy().rewritten(take)


def take_constant_branches(model: ir.Model) -> Changes:
    """Replace each ``If`` with a constant condition, in place; the log counts them."""
    graph, count = model.graph, 0
    while taken := [
        (node, bool(stored.numpy().item()))
        for node in _branching(graph)
        if (stored := _condition(node).const_value) is not None
    ]:
        _inline(graph, taken)
        count += len(taken)
    return Changes.of({"If": count})


def _branching(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if node.op_type == "If" and not node.domain]


def _condition(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _inline(graph: ir.Graph, taken: Iterable[tuple[ir.Node, bool]]) -> None:
    """Replace each of some ``If`` nodes by the nodes of the branch that it takes."""
    names = _Names([*(v.name for n in graph for v in n.outputs), *graph.initializers])
    for node, condition in taken:
        _replace(graph, node, condition, names)


def _replace(graph: ir.Graph, node: ir.Node, condition: bool, names: _Names) -> None:
    branches = [node.attributes[name].as_graph() for name in ("else_branch", "then_branch")]
    branch = branches[condition]
    for lost in branches[not condition].all_nodes():
        for index in range(len(lost.inputs)):
            lost.replace_input_with(index, None)  # values must not count it as a use
    for key, value in list(branch.initializers.items()):
        branch.initializers.pop(key)
        value.name = names.fresh(value.name or "")
        graph.register_initializer(value)
    inner = list(branch)
    results = list(branch.outputs)
    branch.outputs.clear()
    branch.remove(inner)
    for value in (v for n in inner for v in n.outputs if v.name):
        value.name = names.fresh(value.name or "")
    graph.insert_before(node, inner)
    for old, new in zip(node.outputs, results, strict=True):
        copy = ir.node("Identity", [new], name=f"{old.name}/taken")
        graph.insert_before(node, copy)
        name_of, copied = old.name, copy.outputs[0]
        copied.type, copied.shape = old.type or new.type, old.shape or new.shape
        ir.convenience.replace_all_uses_with(old, copied, replace_graph_outputs=True)
        old.name, copied.name = None, name_of
    graph.remove(node, safe=True)


class _Names:
    """Names in use."""

    def __init__(self, taken: Iterable[str | None]) -> None:
        self._taken = set(taken)
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
