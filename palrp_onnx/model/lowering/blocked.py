"""Convolutions with channels in blocks (NCHWc), as ONNX Runtime saves them for one processor.

A blocked image has the shape of the plain one, with channels padded to a multiple of the block. So
only the layout of weights is changed; everything else is the plain operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused, length_of
from palrp_onnx.model.lowering.images import convolved
from palrp_onnx.model.lowering.table import lowers
from palrp_onnx.model.values import constant
from palrp_onnx.session import saved_as_optimised
from palrp_onnx.types import Array

NCHWC = "com.microsoft.nchwc"
#: Channels of the convolution that is tried, which is no multiple of any block.
_TRIED = 20


@cache
def block_size() -> int:
    """Channels of a block on this machine; a blocked file runs on no machine with another size.

    Raises:
        NotImplementedError: The runtime does not block channels here.
    """
    weight = ir.tensor(np.ones((_TRIED, 3, 1, 1), np.float32), name="w")
    image, result = (
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        for name, shape in (("x", [1, 3, 4, 4]), ("y", [1, _TRIED, 4, 4]))
    )
    stored = ir.Value(name="w", const_value=weight)
    node = ir.node("Conv", [image, stored], outputs=[result])
    graph = ir.Graph([image], [result], nodes=[node], initializers=[stored], opset_imports={"": 13})
    data = ir.serde.serialize_model(ir.Model(graph, ir_version=8)).SerializeToString()
    optimised = ir.from_proto(saved_as_optimised(data)).graph
    for each in optimised:
        weights = each.inputs[1] if each.domain == NCHWC and each.op_type == "Conv" else None
        stored_weights = constant(weights)
        if stored_weights is not None:
            padded = stored_weights.shape[0]
            return next(size for size in (8, 16, 32) if -(-_TRIED // size) * size == padded)
    raise NotImplementedError("on a machine whose runtime does not block channels")


def plain_weights(blocked: Array, block: int) -> Array:
    """Weights [O, I, *K] from their blocked layout, which has the same shape."""
    outs, ins, *kernel = blocked.shape
    several = ins % block == 0
    inner = (block, block) if several else (block,)
    shape = (outs // block, ins // block if several else ins, *kernel, *inner)
    axes = range(2, 2 + len(kernel))
    last = 2 + len(kernel)
    order = (0, last + 1, 1, last, *axes) if several else (0, last, 1, *axes)
    return np.ascontiguousarray(blocked.reshape(shape).transpose(order).reshape(blocked.shape))


@lowers("Conv", domain=NCHWC)
def _conv(b: Builder, node: Fused) -> Sequence[ir.Value]:
    blocked = constant(node.input(1))
    if blocked is None:
        raise NotImplementedError("with weights that are not stored")
    weights = b.array(plain_weights(blocked, block_size()))
    return [convolved(b, node, node.input(0), weights, node.optional(3))]


@lowers("ReorderInput", domain=NCHWC)
def _reorder_input(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """Channels in blocks, the last of them filled up with zeros."""
    x = node.input(0)
    if node.integer("channels_last", 0):
        x = b.transpose(x, 0, 3, 1, 2)
    missing = -length_of(x, 1) % block_size()
    if not missing:
        return [x]
    return [b.op("Pad", x, b.integers(*[0] * 5, missing, 0, 0))]


@lowers("ReorderOutput", domain=NCHWC)
def _reorder_output(b: Builder, node: Fused) -> Sequence[ir.Value]:
    x = b.slice(node.input(0), 0, node.integer("channels"), 1)
    return [b.transpose(x, 0, 2, 3, 1) if node.integer("channels_last", 0) else x]


def _same(op_type: str) -> Callable[[Builder, Fused], Sequence[ir.Value]]:
    def lowering(b: Builder, node: Fused) -> Sequence[ir.Value]:
        return [b.op(op_type, node.input(0), **node.attributes())]

    return lowering


for _name in ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"):
    lowers(_name, domain=NCHWC)(_same(_name))
