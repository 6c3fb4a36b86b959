"""Conditional branches with a stored condition: each ``If`` is replaced by one of its branches."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from palrp_onnx.model.changes import Changes


def take_constant_branches(model: ir.Model) -> Changes:
    """Replace each ``If`` with a constant condition, in place; the log counts them."""
    graph, count = model.graph, 0
    while taken := [
        (node, bool(stored.numpy().item()))
        for node in branching_nodes(graph)
        if (stored := condition_of(node).const_value) is not None
    ]:
        inline_branches(graph, taken)
        count += len(taken)
    return Changes.of({"If": count})


def branching_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Every ``If`` of the graph, in order, without nested ones."""
    return [node for node in graph if node.op_type == "If" and not node.domain]


def condition_of(node: ir.Node) -> ir.Value:
    """The condition of an ``If``."""
    value = node.inputs[0]
    assert value is not None
    return value


def inline_branches(graph: ir.Graph, taken: Iterable[tuple[ir.Node, bool]]) -> None:
    """Replace each of some ``If`` nodes by the nodes of the branch that it takes."""
    names = _FreeNames([*(v.name for n in graph for v in n.outputs), *graph.initializers])
    for node, condition in taken:
        _replace(graph, node, condition, names)


def _replace(graph: ir.Graph, node: ir.Node, condition: bool, names: _FreeNames) -> None:
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


class _FreeNames:
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
