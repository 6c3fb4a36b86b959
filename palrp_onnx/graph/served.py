"""Products of few bits in the forward pass, run by the operations that the file has for them.

Rules look at real numbers: a product of quantised numbers was rewritten as one of whole numbers
held as real ones. Once relevance has its graph, only the result of such a product is read in the
forward pass; the file's own operation is quicker, and no weight is spelled out for it.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes

from palrp_onnx.graph.declared import infer_shapes, keep_what_binds
from palrp_onnx.graph.model import Model, parse_model

_SERVED = frozenset(
    "ConvInteger DynamicQuantizeMatMul MatMulInteger MatMulIntegerToFloat MatMulNBits QGemm "
    "QLinearConv QLinearMatMul".split()
)
#: What makes quantised numbers of real ones.
_QUANTISING = frozenset(("DynamicQuantizeLinear", "QuantizeLinear"))


def put_back(model: Model, *, portable: bool = False) -> None:
    """Replace results of rewritten products in the graph of ``model``, in place.

    Args:
        model: Its graph, with everything in it that reads its values.
        portable: Only put back operations of the ONNX standard.
    """
    if not any(name.rpartition(".")[2] in _SERVED for name in model.lowered):
        return
    file = keep_what_binds(parse_model(model.path))
    infer_shapes(file)
    served = _Served(model.graph)
    for node in file.graph:
        if node.op_type in _SERVED and not (portable and node.domain):
            served.replace(node)
            model.proto.opset_imports.setdefault(node.domain, 1)
    passes.RemoveUnusedNodesPass()(model.proto)


class _Served:
    """A rewritten graph that gets nodes of its file back; values go by the same names in both."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        made = (v for node in graph for v in node.outputs)
        self._known = {v.name: v for v in (*graph.inputs, *made) if v.name}
        self._brought: dict[ir.Value, ir.Value] = {}

    def replace(self, node: ir.Node) -> None:
        """Let ``node`` compute its result, between casts where types differ, if it can be read."""
        result = self._known.get(node.outputs[0].name or "")
        before = result.producer() if result is not None else None
        if result is None or before is None:
            return
        operands = [self._operand(v, before) for v in node.inputs]
        if any(v is not None and o is None for v, o in zip(node.inputs, operands, strict=True)):
            return
        own = self._copy(node, operands, before)[0]
        served, name = self._cast(own, result.dtype, before), result.name
        served.type, served.shape = result.type, result.shape
        ir.convenience.replace_all_uses_with(result, served, replace_graph_outputs=True)
        result.name, served.name = None, name

    def _operand(self, value: ir.Value | None, before: ir.Node) -> ir.Value | None:
        """The value of the same name and type; weights and what quantises come along."""
        if value is None or value.name in self._graph.initializers:
            return value and self._graph.initializers[value.name or ""]
        if value in self._brought:
            return self._brought[value]
        known, maker = self._known.get(value.name or ""), value.producer()
        if known is not None:
            return self._cast(known, value.dtype, before)
        if maker is not None and maker.op_type in _QUANTISING:
            operands = [self._operand(v, before) for v in maker.inputs]
            outputs = self._copy(maker, operands, before)
            self._brought.update(zip(maker.outputs, outputs, strict=True))
        elif value.const_value is not None:
            self._brought[value] = weight = ir.Value(
                name=value.name, shape=value.shape, type=value.type, const_value=value.const_value
            )
            self._graph.register_initializer(weight)
        return self._brought.get(value)

    def _copy(
        self, node: ir.Node, operands: list[ir.Value | None], before: ir.Node
    ) -> tuple[ir.Value, ...]:
        attributes = {name: each.value for name, each in node.attributes.items()}
        count = len(node.outputs)
        own = ir.node(node.op_type, operands, attributes, domain=node.domain, num_outputs=count)
        for new, old in zip(own.outputs, node.outputs, strict=True):
            new.type = old.type
        self._graph.insert_before(before, own)
        return tuple(own.outputs)

    def _cast(self, value: ir.Value, kind: ir.DataType | None, before: ir.Node) -> ir.Value:
        if kind is None or value.dtype in (kind, None):
            return value
        cast = ir.node("Cast", [value], {"to": kind.value})
        self._graph.insert_before(before, cast)
        cast.outputs[0].dtype = kind
        return cast.outputs[0]
