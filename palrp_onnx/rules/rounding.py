"""Rounding, as quantised models do it."""

from __future__ import annotations

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language


@rule("Round")
def straight_through(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = m; what rounding changed, (round(x) − x) ∘ m, is absorbed. Source: straight through."""
    change = op.sub(node.output(), node.input(0))
    return Shares((m,), {"rounding": op.relevance(change, m)})
