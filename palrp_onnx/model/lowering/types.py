"""Inference of types and shapes of one node's results from its operands.

Inference over a whole graph stops at the first operation outside of the standard. Lowering infers
node by node instead, so that types after such operations are known too.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

#: Constants above this many entries are not shapes, axes or sizes.
_SMALL = 64


def infer(node: ir.Node, opset: int, *, again: bool = False) -> bool:
    """Infer types and shapes of the outputs of a standard ``node``; skip other operations.

    Args:
        node: The node.
        opset: Opset of its graph.
        again: Infer outputs that are known again, because operands have changed.

    Returns:
        Whether anything new is known.
    """
    if node.domain or (not again and all(map(_is_known, node.outputs))):
        return False
    operands = [v for v in node.inputs if v is not None]
    if any(v.dtype is None for v in operands):
        return False
    try:
        schema, opset = _schema(node.op_type, opset)
        types = {v.name or "": _type(v) for v in operands}
        data = {v.name or "": _data(v) for v in operands if _is_small(v)}
        imports = [onnx.helper.make_opsetid("", opset)]
        proto = ir.serde.serialize_node(node)
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=imports
        )
    except Exception:  # no schema, or operands that it does not allow: the runtime will decide
        return False
    before = [(v.type, v.shape) for v in node.outputs]
    for value in node.outputs:
        if value.name in found:
            value.type = ir.serde.deserialize_type_proto_for_type(found[value.name])
            shape = ir.serde.deserialize_type_proto_for_shape(found[value.name])
            value.shape = _merged(value.shape, shape)
    _give_rank(node)
    return before != [(v.type, v.shape) for v in node.outputs]


def _give_rank(node: ir.Node) -> None:
    """Give a result with computed lengths as many axes as there are lengths."""
    lengths = node.inputs[1].shape if len(node.inputs) > 1 and node.inputs[1] else None
    if node.op_type != "Reshape" or node.outputs[0].shape is not None or lengths is None:
        return
    if lengths.rank() == 1 and isinstance(lengths[0], int):
        node.outputs[0].shape = ir.Shape([None] * lengths[0])


def _schema(op_type: str, opset: int) -> tuple[onnx.defs.OpSchema, int]:
    """The schema of an operation, and its opset.

    ONNX Runtime's optimiser writes ``LayerNormalization`` into files of any opset. If the opset of
    the file has no such operation, the schema is that of the first later opset that has it.
    """
    for version in range(opset, onnx.defs.onnx_opset_version() + 1):
        if onnx.defs.has(op_type, version, ""):
            return onnx.defs.get_schema(op_type, version, ""), version
    raise ValueError(f"{op_type} is no operation of the standard")


def _is_known(value: ir.Value) -> bool:
    """Whether type and shape are known; a named axis counts as known."""
    return (
        value.type is not None
        and value.shape is not None
        and all(isinstance(d, int) or d.value is not None for d in value.shape)
    )


def _merged(before: ir.Shape | None, now: ir.Shape | None) -> ir.Shape | None:
    """Two descriptions of one shape combined: a size is preferred to a name, a name to nothing."""
    if before is None or now is None or before.rank() != now.rank():
        return before if now is None else now
    pairs = zip(before, now, strict=True)
    return ir.Shape([new if isinstance(new, int) else old for old, new in pairs])


def _type(value: ir.Value) -> onnx.TypeProto:
    proto: onnx.TypeProto = ir.serde.serialize_value(value).type
    return proto


def _is_small(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size <= _SMALL


def _data(value: ir.Value) -> onnx.TensorProto:
    assert value.const_value is not None
    return onnx.numpy_helper.from_array(value.const_value.numpy(), value.name)
