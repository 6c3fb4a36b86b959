"""Conditional branches, replaced by the one that an example of the input takes.

Exporters leave an ``If`` where a choice was made from shapes, caches or settings. Relevance passes
back through what was computed, so the branch is a fact about the input; that later inputs take the
same one is checked with every explanation, as its output is held against that of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.graph.model import Model

Array = NDArray[Any]
#: Runs a graph: (model, feeds, names of the values wanted) → values.
Run = Callable[[Model, Mapping[str, Array], Iterable[str]], Mapping[str, Array]]


def take_branches(model: Model, feeds: Mapping[str, Array], run: Run) -> Model:
    """``model`` without conditional branches, or itself where it has none.

    Args:
        model: The model, which is left as it is.
        feeds: An example of its input.
        run: Runs the graph.
    """
    while conditions := {n.inputs[0].name or "": None for n in _branching(model) if n.inputs[0]}:
        values = run(model, feeds, conditions)
        model = model.copy()
        taken = _branching(model)
        for node in taken:
            condition = node.inputs[0]
            assert condition is not None
            chosen = bool(values[condition.name or ""].item())
            _inline(model.graph, node, "then_branch" if chosen else "else_branch")
        model = model.rewritten({"If": len(taken)})
    return model


def _branching(model: Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "If" and not node.domain]


def _inline(graph: ir.Graph, node: ir.Node, name: str) -> None:
    """Put the nodes of one branch in the place of ``node``."""
    branch = node.attributes[name].as_graph()
    known = {v.name for n in graph for v in n.outputs} | set(graph.initializers)
    for key, value in list(branch.initializers.items()):
        branch.initializers.pop(key)
        value.name = _fresh(value.name or "", known)
        graph.register_initializer(value)
    inner = list(branch)
    results = list(branch.outputs)
    branch.outputs.clear()
    branch.remove(inner)
    for value in (v for n in inner for v in n.outputs if v.name):
        value.name = _fresh(value.name or "", known)
    graph.insert_before(node, inner)
    for old, new in zip(node.outputs, results, strict=True):
        copy = ir.node("Identity", [new], name=f"{old.name}/taken")
        graph.insert_before(node, copy)
        name_of, copied = old.name, copy.outputs[0]
        copied.type, copied.shape = old.type or new.type, old.shape or new.shape
        ir.convenience.replace_all_uses_with(old, copied, replace_graph_outputs=True)
        old.name, copied.name = None, name_of
    graph.remove(node, safe=True)


def _fresh(name: str, known: set[str | None]) -> str:
    """``name``, or one that is not taken yet."""
    count = 0
    fresh = name
    while fresh in known:
        count += 1
        fresh = f"{name}/{count}"
    known.add(fresh)
    return fresh
