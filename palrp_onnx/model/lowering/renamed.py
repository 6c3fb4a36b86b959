"""Operations of ONNX Runtime that the standard has, too, from an opset on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused
from palrp_onnx.model.lowering.table import lowers
from palrp_onnx.model.values import constant


def _standard(op_type: str, since: int) -> Callable[[Builder, Fused], Sequence[ir.Value]]:
    def lowering(b: Builder, node: Fused) -> Sequence[ir.Value]:
        if b.opset < since:
            raise NotImplementedError(f"the standard has {op_type} from opset {since} on")
        return [b.op(op_type, *node.node.inputs, **node.attributes())]

    return lowering


for _name, _since in (("GatherND", 11), ("Pad", 11), ("Range", 11), ("Trilu", 14)):
    lowers(_name)(_standard(_name, _since))


@lowers("ExpandDims")
def _expand_dims(b: Builder, node: Fused) -> Sequence[ir.Value]:
    axis = constant(node.input(1))
    if axis is None or axis.size != 1:
        raise NotImplementedError("along an axis that is computed")
    return [b.unsqueeze(node.input(0), int(axis.item()))]
