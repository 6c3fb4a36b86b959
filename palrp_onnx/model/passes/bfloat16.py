"""bfloat16 values are computed in float32.

ONNX Runtime has hardly any kernels for bfloat16 on processors, and relevance needs more than eight
bits of precision. Large weights stay as they are stored, and are cast where they are read.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.changes import Changes

_NARROW, _WIDE = ir.DataType.BFLOAT16, ir.DataType.FLOAT
#: Weights with fewer entries are converted: thresholds, scales, masks that must stay constants.
_FEW = 1024


def widen(model: ir.Model) -> Changes:
    """Replace bfloat16 by float32, in place; the log counts values."""
    graph = model.graph
    nodes = list(graph.all_nodes())
    values = dict.fromkeys(graph.inputs)
    values.update((v, None) for node in nodes for v in (*node.inputs, *node.outputs) if v)
    narrow = [v for v in values if v.dtype == _NARROW]
    for node in nodes:
        _widen_attributes(node)
    for value in narrow:
        if value.const_value is not None:
            _widen_weight(graph, value)
        else:
            value.dtype = _WIDE
    return Changes.of({"bfloat16": len(narrow)})


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if name in ("to", "dtype") and attribute.value == _NARROW:
            node.attributes[name] = ir.AttrInt64(name, int(_WIDE))
        elif attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == _NARROW:
            tensor = ir.Tensor(attribute.value.numpy().astype(np.float32))
            node.attributes[name] = ir.AttrTensor(name, tensor)


def _widen_weight(graph: ir.Graph, value: ir.Value) -> None:
    tensor = value.const_value
    assert tensor is not None
    if tensor.size < _FEW:
        value.const_value = ir.Tensor(tensor.numpy().astype(np.float32), name=value.name)
        value.dtype = _WIDE
        return
    uses = list(value.uses())
    cast = ir.node("Cast", [value], {"to": int(_WIDE)})
    graph.insert_before(graph[0], cast)
    wide = cast.outputs[0]
    wide.name, wide.type, wide.shape = f"{value.name}/float32", ir.TensorType(_WIDE), value.shape
    for node, index in uses:
        node.replace_input_with(index, wide)
