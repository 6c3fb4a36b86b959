"""Upsampling between blocked convolutions, rewritten as ``Resize``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.blocked import NCHWC
from palrp_onnx.model.lowering.builder import Builder, Fused
from palrp_onnx.model.lowering.table import lowers


@lowers("Upsample", domain=NCHWC)
def _upsample(b: Builder, node: Fused) -> Sequence[ir.Value]:
    if b.opset < 13:
        raise NotImplementedError("before opset 13, which resizes without a region")
    given = node.node.attributes.get("scales")
    if given is None:
        raise NotImplementedError("without attribute scales")
    factors = b.array(np.array(given.as_ints(), np.float32))
    resized = b.op(
        "Resize",
        node.input(0),
        None,
        factors,
        mode=node.text("mode", "nearest"),
        coordinate_transformation_mode=node.text("coordinate_transformation_mode", "asymmetric"),
        nearest_mode="floor",
    )
    return [resized]
