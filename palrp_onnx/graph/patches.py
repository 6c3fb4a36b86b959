"""How an image is cut into patches."""

from __future__ import annotations

import onnx_ir as ir

from palrp_onnx.graph.analysis import Analysis


def patch_size(analysis: Analysis, name: str) -> tuple[int, int] | None:
    """Height and width of the patches of input ``name``, in its pixels.

    The first convolution cuts patches when its windows do not overlap; else there are none.
    """
    value = next(v for v in analysis.model.graph.inputs if v.name == name)
    for node in _first_convolutions(value):
        kernel = node.attributes.get_ints("kernel_shape", ())
        strides = node.attributes.get_ints("strides", ())
        if len(strides) == 2 and tuple(kernel) == tuple(strides):
            return strides[0], strides[1]
    return None


def _first_convolutions(value: ir.Value) -> list[ir.Node]:
    found, queue = [], [value]
    while queue:
        for node, _ in queue.pop().uses():
            if node.op_type == "Conv":
                found.append(node)
            elif node.op_type in ("Cast", "Identity", "Mul", "Sub", "Div", "Add"):
                queue.extend(node.outputs)
    return found
