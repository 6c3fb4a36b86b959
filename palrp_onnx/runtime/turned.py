"""Products with a transposed matrix read it as it lies.

Without graph optimisation the runtime would make a transposed copy of every such weight, which for
the output layer of a language model is the largest value of all.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
import onnx_ir as ir

from palrp_onnx.model.open import Model


def read_turned(model: Model, written: onnx.ModelProto, wanted: Collection[str]) -> None:
    """Let products in a serialised model read matrices before they are transposed, in place.

    Args:
        model: The model.
        written: Its serialised form.
        wanted: Names of values that have to stay.
    """
    graph, nodes = model.graph, written.graph.node
    turned = {n: n.outputs[0] for n in graph if _turns(n) and n.outputs[0].name not in wanted}
    turned = {node: v for node, v in turned.items() if _is_only_multiplied(v, graph)}
    before = {value.name: node.inputs[0] for node, value in turned.items()}
    kept = []
    for node, own in zip(graph, nodes, strict=True):
        if node in turned:
            continue
        if node.op_type == "MatMul" and (matrix := before.get(own.input[1])) is not None:
            own.op_type, own.domain, own.input[1] = "FusedMatMul", "com.microsoft", matrix.name
            own.attribute.append(onnx.helper.make_attribute("transB", 1))
        kept.append(own)
    if len(kept) < len(nodes):
        copies = [onnx.NodeProto.FromString(each.SerializeToString()) for each in kept]
        del nodes[:]
        nodes.extend(copies)
        if "com.microsoft" not in model.proto.opset_imports:
            written.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def _turns(node: ir.Node) -> bool:
    """Whether a node transposes a matrix in single precision, which the runtime's product reads."""
    perm = list(node.attributes.get_ints("perm", ()))
    value = node.inputs[0] if node.op_type == "Transpose" else None
    return value is not None and value.dtype is ir.DataType.FLOAT and perm == [1, 0]


def _is_only_multiplied(value: ir.Value, graph: ir.Graph) -> bool:
    """Whether all that reads a value are products in the graph, as their second operand."""
    return not value.is_graph_output() and all(
        use.node.op_type == "MatMul" and use.node.graph is graph and use.idx == 1
        for use in value.uses()
    )
