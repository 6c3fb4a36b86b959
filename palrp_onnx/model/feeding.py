"""A model in which some computed values become inputs."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from palrp_onnx.model.open import Model


def with_values_fed(model: Model, names: Collection[str]) -> Model:
    """A copy of ``model`` where the values of these names are inputs of the graph."""
    fed = model.copy()
    graph = fed.graph
    for node in [n for n in graph if any(v.name in names for v in n.outputs)]:
        for old in node.outputs:
            if old.name not in names:
                continue
            new = ir.Value(name=old.name, type=old.type, shape=old.shape)
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            old.name = f"{old.name}/computed"
            graph.inputs.append(new)
    return fed
