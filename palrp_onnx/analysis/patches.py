"""The patches of an image."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has

#: Operations between an image and the convolution that cuts patches.
_PASSED = ELEMENTWISE | Trait.PAD | Trait.PERMUTE


def patch_size(analysis: Analysis, name: str) -> tuple[int, int] | None:
    """Height and width of the patches of input ``name``, in its pixels.

    A convolution cuts patches where its stride is its kernel size; else there are none (``None``).
    """
    value = next(v for v in analysis.model.graph.inputs if v.name == name)
    for node, _ in uses_of([value], _onward):
        if node.op_type != "Conv":
            continue
        kernel = node.attributes.get_ints("kernel_shape", ())
        strides = node.attributes.get_ints("strides", ())
        if len(strides) == 2 and tuple(kernel) == tuple(strides):
            return strides[0], strides[1]
    return None


def _onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
    return node.outputs if has(node, _PASSED) else ()
