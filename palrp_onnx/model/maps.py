"""Outputs that are maps from the labels of classes to their scores (``ZipMap``).

Converters of scikit-learn put them behind the tensor of scores. Such an output is read as this
tensor, which holds the same numbers; its labels name the classes.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from palrp_onnx.errors import ModelError
from palrp_onnx.model.external_weights import read_slim
from palrp_onnx.model.lowering.tabular import DOMAIN, class_labels


def look_through_maps(proto: onnx.ModelProto) -> None:
    """Replace outputs that are maps by the tensors of their scores, in place.

    Other outputs that are maps are left out.

    Raises:
        ModelError: An input is a map, or every output is one that is not made of a tensor.
    """
    graph = proto.graph
    given = [v.name for v in graph.input if _is_map(v.type)]
    if given:
        raise ModelError(
            "An input is a map, no tensor",
            place=f"input {given[0]}",
            hint="Give the model its features as a tensor, without DictVectorizer.",
        )
    for node in graph.node:
        if (node.domain, node.op_type) == (DOMAIN, "ZipMap"):
            node.domain, node.op_type = "", "Identity"
            del node.attribute[:]
            for value in graph.output:
                if value.name == node.output[0]:
                    value.type.CopyFrom(onnx.helper.make_tensor_type_proto(1, None))
    kept = [v for v in graph.output if not _is_map(v.type)]
    if graph.output and not kept:
        raise ModelError("Every output of the model is a map, no tensor")
    for values in (graph.output, graph.value_info):
        for value in [v for v in values if _is_map(v.type)]:
            values.remove(value)


def _is_map(kind: onnx.TypeProto) -> bool:
    while kind.WhichOneof("value") in ("sequence_type", "optional_type"):
        inner = kind.sequence_type if kind.HasField("sequence_type") else kind.optional_type
        kind = inner.elem_type
    return bool(kind.HasField("map_type"))


def stored_labels(path: Path) -> list[str]:
    """Labels of classes that a classifier in the file has; none where there are several."""
    nodes = onnx.load_model_from_string(read_slim(path)).graph.node
    found = {
        tuple(class_labels(ir.serde.deserialize_node(node)))
        for node in nodes
        if node.domain == DOMAIN and node.op_type in ("ZipMap", "LinearClassifier")
    }
    return list(found.pop()) if len(found) == 1 else []
