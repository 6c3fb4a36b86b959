"""Operations of the standard that it defines by a graph of others, and the package does not know.

They are replaced by that graph, as ONNX Runtime replaces those that it has no kernel for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from palrp_onnx.model.changes import Changes
from palrp_onnx.model.declared import infer_shapes
from palrp_onnx.model.lowering.table import lowerable
from palrp_onnx.model.ops import TABLE

#: The body of a node's operation.
_Body = Callable[[ir.Node], bytes]


def written_out(op_type: str, opset: int) -> _Body | None:
    """What makes the bodies of an operation of the standard, if this pass replaces it."""
    if ("", op_type) in TABLE or ("", op_type) in lowerable() or not onnx.defs.has(op_type, opset):
        return None
    schema: Any = onnx.defs.get_schema(op_type, opset)  # its stubs do not have functions
    if schema.has_function:
        return lambda node: schema.get_function_with_opset_version(opset)
    if schema.has_context_dependent_function:
        return lambda node: schema.get_context_dependent_function_with_opset_version(
            opset, ir.to_proto(node).SerializeToString(), [_type(v) for v in node.inputs]
        )
    return None


def _type(value: ir.Value | None) -> bytes:
    """Type and shape of an operand; empty where it is left out or unknown."""
    if value is None or value.dtype is None:
        return b""
    axes = None if value.shape is None else [_axis(length) for length in value.shape]
    return bytes(onnx.helper.make_tensor_type_proto(int(value.dtype), axes).SerializeToString())


def _axis(length: int | ir.SymbolicDim) -> int | str | None:
    return length if isinstance(length, int) else length.value


def _give_defaults(node: ir.Node, opset: int) -> None:
    """Give a node the attributes that it leaves out, as the body refers to them."""
    for name, attribute in onnx.defs.get_schema(node.op_type, opset).attributes.items():
        default = attribute.default_value
        if name not in node.attributes and default.type != onnx.AttributeProto.UNDEFINED:
            node.attributes.add(ir.serde.deserialize_attribute(default))


def write_out_standard_functions(model: ir.Model) -> Changes:
    """Replace operations by the graphs that define them, in place; the log counts them."""
    opset = model.opset_imports.get("", 0)
    makers = {
        node: maker
        for node in model.graph.all_nodes()
        if not node.domain and (maker := written_out(node.op_type, opset)) is not None
    }
    if not makers:
        return Changes()
    infer_shapes(model)
    done: Counter[str] = Counter()
    for number, (node, maker) in enumerate(makers.items()):
        body = onnx.FunctionProto.FromString(maker(node))
        if not body.node:  # it needs types or shapes that are not known
            continue
        _give_defaults(node, opset)
        body.overload = node.overload = f"written-out-{number}"
        for each in body.opset_import:
            each.version = each.version if each.domain else opset
        try:
            function = ir.from_proto(body)
        except ir.serde.SerdeError:  # the body of some losses defines a value twice
            continue
        model.functions[function.identifier()] = function
        done[node.op_type] += 1
    common.InlinePass()(model)
    return Changes.of(done)
