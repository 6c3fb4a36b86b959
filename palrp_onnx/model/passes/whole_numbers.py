"""Whole numbers and truth values that follow from constants become constants.

In a loop that is written out, each round knows its own number. So do the indices, lengths and
conditions that are computed from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import constant
from palrp_onnx.types import Array

#: Larger arrays are no indices.
_SMALL = 512
#: Operations whose result is about as large as their operands.
_COMPUTING = (
    Trait.UNARY
    | Trait.SUM
    | Trait.SCALE
    | Trait.EXTREME
    | Trait.CHOICE
    | Trait.COMPARISON
    | Trait.LOGIC
    | Trait.RESHAPE
    | Trait.RANK
    | Trait.PERMUTE
    | Trait.JOIN
    | Trait.CUT
    | Trait.SELECT
    | Trait.LENGTH
)


def fold_whole_numbers(model: ir.Model) -> None:
    """Replace what constants decide, in place: small arrays of whole numbers or truth values.

    What does not run is left as it is. The nodes of the graph should be in order.
    """
    graph = model.graph
    computed = _Evaluator(model.opset_imports.get("", 0))
    for node in list(graph):
        if not _is_fixed(node) or not all(v is None or _is_small(v) for v in node.inputs):
            continue
        arrays = computed(node)
        if arrays and all(a.dtype.kind in "iub" and a.size <= _SMALL for a in arrays):
            for value, array in zip(node.outputs, arrays, strict=True):
                _store(graph, value, array)
            graph.remove(node, safe=True)


def _is_small(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.size > _SMALL:
        return False
    return tensor.dtype.is_integer() or tensor.dtype == ir.DataType.BOOL


def _is_fixed(node: ir.Node) -> bool:
    """Whether a node computes whole numbers or truth values from such, and is no output."""
    if node.domain or not node.inputs or not has(node, _COMPUTING):
        return False
    if node.op_type == "Cast" and ir.DataType(node.attributes["to"].as_int()).is_floating_point():
        return False
    return all(v.name and not v.is_graph_output() for v in node.outputs)


class _Evaluator:
    """Results of single nodes; the same operation in many rounds is prepared once."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._prepared: dict[bytes, Any] = {}

    def __call__(self, node: ir.Node) -> list[Array] | None:
        """The results; ``None`` where they cannot be computed."""
        form = ir.serde.serialize_node(node)
        names = [f"x{k}" if name else "" for k, name in enumerate(form.input)]
        del form.input[:], form.output[:]
        form.input.extend(names)
        form.output.extend(f"y{k}" for k in range(len(node.outputs)))
        form.name = ""
        del form.metadata_props[:]
        fed = {k: constant(v) for k, v in zip(names, node.inputs, strict=True) if v is not None}
        try:
            found = self._of(form).run(None, fed)
        except Exception:  # an index out of range, say: the run of the whole graph will tell
            return None
        return [np.asarray(each) for each in found]

    def _of(self, form: onnx.NodeProto) -> Any:
        key = form.SerializeToString(deterministic=True)
        if key not in self._prepared:
            fed = [onnx.ValueInfoProto(name=name) for name in form.input if name]
            made = [onnx.ValueInfoProto(name=name) for name in form.output]
            graph = onnx.helper.make_graph([form], "node", fed, made)
            imports = [onnx.helper.make_opsetid("", self._opset)]
            self._prepared[key] = ReferenceEvaluator(
                onnx.helper.make_model(graph, opset_imports=imports)
            )
        return self._prepared[key]


def _store(graph: ir.Graph, value: ir.Value, array: Array) -> None:
    """Replace a computed value by an initializer of the same name."""
    tensor = ir.Tensor(array, name=value.name)
    stored = ir.Value(
        name=value.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
    )
    stored.const_value = tensor
    ir.convenience.replace_all_uses_with(value, stored)
    value.name = None
    graph.register_initializer(stored)
