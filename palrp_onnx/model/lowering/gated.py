"""Layers of ONNX Runtime around gates: of linear attention, and of mixed residual streams."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused, length_of, rank_of
from palrp_onnx.model.lowering.norms import rms_norm
from palrp_onnx.model.lowering.table import lowers


@lowers("GatedRMSNorm")
def _gated_rms_norm(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """γ ∘ x / √(mean(x²) + ε) ∘ f(gate), over rows as long as γ: one head each."""
    x, gamma, gate = node.input(0), node.input(1), node.input(2)
    normed = _by_rows(b, x, gamma, node.real("epsilon", 1e-5))
    open_ = b.op("Sigmoid", gate)
    if node.text("activation", "silu") != "sigmoid":
        open_ = b.op("Mul", gate, open_)
    return [b.op("Mul", normed, open_)]


def _by_rows(b: Builder, x: ir.Value, gamma: ir.Value, epsilon: float) -> ir.Value:
    """An RMS norm of every piece of the last axis that is as long as γ."""
    ahead = [0] * (rank_of(x) - 1)
    rows = b.reshape(x, *ahead, -1, length_of(gamma, 0))
    normed, _ = rms_norm(b, rows, b.cast_like(gamma, x), epsilon)
    return b.reshape(normed, *ahead, -1)


@lowers("GatedAdd")
def _gated_add(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """x + y ∘ gate."""
    if node.optional(3) is not None:
        raise NotImplementedError("with a gate that is projected")
    return [b.op("Add", node.input(0), b.op("Mul", node.input(1), node.input(2)))]


@lowers("ScaledSiLU")
def _scaled_silu(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """z ∘ σ(z) of z = x times a number."""
    x, factor = node.input(0), node.optional(1)
    z = b.scale(x, node.real("alpha", 1.0)) if factor is None else b.op("Mul", x, factor)
    return [b.op("Mul", z, b.op("Sigmoid", z))]


@lowers("LinearAttentionGate")
def _attention_gate(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    """decay ∘ softplus(a + bias), and the sigmoid of b."""
    a = b.cast(node.input(0), ir.DataType.FLOAT)
    decay = b.op("Mul", b.op("Softplus", b.op("Add", a, node.input(1))), node.input(2))
    rate = None if node.optional(3) is None else b.op("Sigmoid", node.input(3))
    return [b.cast_like(decay, node.input(0)), rate]
