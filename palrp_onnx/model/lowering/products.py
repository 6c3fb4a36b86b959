"""Matrix products of ONNX Runtime fused with transposes, scales and activations."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.activations import PARAMETERS, activated, tanh_gelu
from palrp_onnx.model.lowering.builder import Builder, Fused, rank_of
from palrp_onnx.model.lowering.table import lowers


@lowers("FusedMatMul", "TransposeMatMul")
def _fused_matmul(b: Builder, node: Fused) -> Sequence[ir.Value]:
    left, right = (
        _transposed(
            b, node.input(k), node.integer(f"trans{x}", 0), node.integer(f"transBatch{x}", 0)
        )
        for k, x in enumerate("AB")
    )
    return [b.scale(b.op("MatMul", left, right), node.real("alpha", 1.0))]


def _transposed(b: Builder, x: ir.Value, matrix: int, batch: int) -> ir.Value:
    """``batch``: the first axis comes after the batch axes; ``matrix``: then the last two swap."""
    if not matrix and not batch:
        return x
    order = list(range(rank_of(x)))
    if batch:
        order.insert(-1, order.pop(0))
    if matrix:
        order[-2:] = reversed(order[-2:])
    return b.transpose(x, *order)


@lowers("FusedGemm")
def _fused_gemm(b: Builder, node: Fused) -> Sequence[ir.Value]:
    fused = [name for name in node.node.attributes if name.startswith("activation")]
    product = b.op("Gemm", *node.node.inputs, **node.attributes(*fused))
    kind = node.text("activation", "")
    numbers = [node.real(f"activation_{name}", 0.0) for name in PARAMETERS.get(kind, ())]
    return [activated(b, product, kind, numbers)]


@lowers("GemmFastGelu")
def _gemm_fast_gelu(b: Builder, node: Fused) -> Sequence[ir.Value]:
    product = b.op("MatMul", node.input(0), node.input(1))
    return [tanh_gelu(b, b.total(product, node.optional(2)))]
