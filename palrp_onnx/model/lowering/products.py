"""Matrix products of ONNX Runtime fused with transposes, scales and activations."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.activations import tanh_gelu
from palrp_onnx.model.lowering.builder import Builder, Fused, rank_of
from palrp_onnx.model.lowering.table import lowers


@lowers("FusedMatMul", "TransposeMatMul")
def _fused_matmul(b: Builder, node: Fused) -> Sequence[ir.Value]:
    if node.integer("transBatchA", 0) or node.integer("transBatchB", 0):
        raise NotImplementedError("with transposed batch axes")
    left, right = (
        _transposed(b, node.input(k)) if node.integer(name, 0) else node.input(k)
        for k, name in enumerate(("transA", "transB"))
    )
    return [b.scale(b.op("MatMul", left, right), node.real("alpha", 1.0))]


def _transposed(b: Builder, x: ir.Value) -> ir.Value:
    rank = rank_of(x)
    return b.transpose(x, *range(rank - 2), rank - 1, rank - 2)


@lowers("FusedGemm")
def _fused_gemm(b: Builder, node: Fused) -> Sequence[ir.Value]:
    attributes = {k: v.value for k, v in node.node.attributes.items() if k in _GEMM}
    product = b.op("Gemm", *node.node.inputs, **attributes)
    return [_activated(b, node, product)]


_GEMM = ("alpha", "beta", "transA", "transB")
#: Activation → the attributes that hold its parameters, in order.
_PARAMETERS = {"Elu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "LeakyRelu": ("alpha",)}


def _activated(b: Builder, node: Fused, x: ir.Value) -> ir.Value:
    """The activation that the attributes name, applied to ``x``."""
    kind = node.text("activation", "")
    if not kind:
        return x
    names = _PARAMETERS.get(kind, ())
    own = {name: node.real(f"activation_{name}", 0.0) for name in names}
    return b.op(kind, x, **own)


@lowers("GemmFastGelu")
def _gemm_fast_gelu(b: Builder, node: Fused) -> Sequence[ir.Value]:
    product = b.op("MatMul", node.input(0), node.input(1))
    return [tanh_gelu(b, b.total(product, node.optional(2)))]
