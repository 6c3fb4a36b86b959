"""Copies of a model in which some values become inputs, or only facts about them are results."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.open import Model
from palrp_onnx.types import Array


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


#: Lowest opset of a graph that the facts can be appended to.
FACTS_OPSET = 13
_SHAPE, _NAN = "{}/shape", "{}/nan"


def with_facts(model: Model, names: Collection[str]) -> tuple[Model, list[str]]:
    """A copy of ``model`` that computes shapes of real values, and whether all entries are NaN.

    Only these are results, so that a run need not keep the values.

    Args:
        model: The model, in opset 13 or later.
        names: Names of the values.

    Returns:
        The copy, and the names of what it computes.
    """
    copied = model.copy()
    graph = copied.graph
    found = [v for node in graph for v in node.outputs if v.name in names]
    results = []
    for value in found:
        shape = ir.node("Shape", [value])
        missing = ir.node("IsNaN", [value])
        numbers = ir.node("Cast", missing.outputs, {"to": int(ir.DataType.INT32)})
        least = ir.node("ReduceMin", numbers.outputs, {"keepdims": 0})
        shape.outputs[0].name = _SHAPE.format(value.name)
        least.outputs[0].name = _NAN.format(value.name)
        maker = value.producer()
        assert maker is not None
        graph.insert_after(maker, [shape, missing, numbers, least])
        results += [shape.outputs[0].name, least.outputs[0].name]
    return copied, results


def from_facts(names: Collection[str], values: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays of these shapes, of NaN or zeros, that take no memory."""
    found = {}
    for name in names:
        empty = np.where(values[_NAN.format(name)] > 0, np.float32(np.nan), np.float32(0))
        found[name] = np.broadcast_to(empty, values[_SHAPE.format(name)])
    return found
