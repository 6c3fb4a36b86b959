"""The output of a file at one token of each sample, without computing it at the others.

A language model's head writes a number for every token and every entry of the vocabulary; often
only one token's are read. They are picked at the end of the graph, and the picking is moved up past
every operation that computes each token from that token and from stored numbers alone.
"""

from __future__ import annotations

import onnx_ir as ir

from palrp_onnx.model.ops import ELEMENTWISE, has

#: The input that holds the token of each sample, int64 [B, 1].
PLACE = "palrp/place"
#: Lowest opset in which ``GatherND`` picks from each sample by itself.
PLACED_OPSET = 12


def read_at_places(graph: ir.Graph, name: str) -> str:
    """Add an input `PLACE`, and make a value [B, tokens, entries] at these tokens the only output.

    Returns:
        The name of the output [B, entries].
    """
    output = next(v for v in graph.outputs if v.name == name)
    chain: list[ir.Node] = []
    value = output
    while (node := value.producer()) is not None and (own := _by_token(node)) is not None:
        chain.append(node)
        value = own
    place = ir.Value(name=PLACE, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["B", 1]))
    graph.inputs.append(place)
    pick = ir.node("GatherND", [value, place], attributes={"batch_dims": 1})
    graph.append(pick)
    rows = pick.outputs[0]
    for node in reversed(chain):
        inputs = [rows if v is value else v for v in node.inputs]
        value = node.outputs[0]
        copy = ir.Node("", node.op_type, inputs, node.attributes.values())
        graph.append(copy)
        rows = copy.outputs[0]
    rows.name = f"{name}/at_place"
    rows.type = output.type
    graph.outputs[:] = [rows]
    return rows.name


def _by_token(node: ir.Node) -> ir.Value | None:
    """The operand [B, tokens, entries] of an operation that treats each token alone."""
    first, second = (*node.inputs, None)[:2]
    if node.domain or len(node.outputs) != 1 or first is None:
        return None
    if node.op_type == "MatMul":
        return first if second is not None and _stored(second) and _rank(second) == 2 else None
    if has(node, ELEMENTWISE):
        free = [v for v in node.inputs if v is not None and not _stored(v)]
        rest = (_rank(v) for v in node.inputs if v is not None and _stored(v))
        one = len(free) == 1 and all(rank is not None and rank <= 1 for rank in rest)
        return free[0] if one else None
    return None


def _stored(value: ir.Value) -> bool:
    """Whether a value is computed from stored numbers alone."""
    node = value.producer()
    if node is None:
        return value.const_value is not None and not value.is_graph_input()
    if node.op_type == "Constant":
        return True
    return bool(node.inputs) and all(v is None or _stored(v) for v in node.inputs)


def _rank(value: ir.Value) -> int | None:
    if value.const_value is not None:
        return len(value.const_value.shape)
    if value.shape is not None:
        return len(value.shape)
    node = value.producer()
    if node is not None and node.op_type in ("Transpose", "Cast", "DequantizeLinear", "Identity"):
        return _rank(node.inputs[0]) if node.inputs[0] is not None else None
    return None
