"""The patches of an image."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has

#: Operations between an image and the convolution that cuts patches.
_PASSED = ELEMENTWISE | Trait.PAD | Trait.PERMUTE
_VIDEO = 5


def patch_size(analysis: Analysis, name: str) -> tuple[int, ...] | None:
    """Height and width of the patches of input ``name`` in its pixels.

    Before them comes the number of pictures that a patch of a video has, if it may have several.

    A convolution cuts patches where its stride is its kernel size; else there are none (``None``).
    """
    value = next(v for v in analysis.model.graph.inputs if v.name == name)
    video = len(analysis.shapes[value]) == _VIDEO

    def onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
        passed = has(node, _PASSED) or (video and has(node, Trait.RESHAPE))
        return node.outputs if passed else ()

    for node, _ in uses_of([value], onward):
        if node.op_type != "Conv":
            continue
        weight = analysis.shapes.get(node.inputs[1], ())  # type: ignore[arg-type]
        kernel = node.attributes.get_ints("kernel_shape", ()) or weight[2:]
        strides = node.attributes.get_ints("strides", ())
        if len(strides) in (2, 3 if video else 2) and tuple(kernel) == tuple(strides):
            return tuple(strides)
    return None
