"""Conditional branches of a model, replaced by those that an input takes.

Exporters leave an ``If`` where the graph depends on shapes, caches or settings. Relevance passes
back through the nodes that were computed, so inputs that take other branches are analysed on their
own (see :mod:`palrp_onnx.runtime.branching`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import onnx_ir as ir

from palrp_onnx.model.changes import Changes
from palrp_onnx.model.open import Model
from palrp_onnx.model.passes.branches import branching_nodes, condition_of, inline_branches
from palrp_onnx.types import Array

#: Runs a graph: (model, feeds, names of the values wanted) → values.
Run = Callable[[Model, Mapping[str, Array], Iterable[str]], Mapping[str, Array]]


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
    return [condition_of(node).name or "" for node in branching_nodes(model.graph)]


def with_branches(model: Model, taken: Sequence[bool]) -> Model:
    """A copy of ``model`` where every ``If`` of its graph is replaced by a branch.

    Args:
        model: The model.
        taken: The value of each condition, in the order of :func:`condition_names`.
    """

    def take(proto: ir.Model) -> Changes:
        nodes = branching_nodes(proto.graph)
        inline_branches(proto.graph, zip(nodes, taken, strict=True))
        return Changes.of({"If": len(nodes)})

    return model.copy().rewritten(take)
