"""Rounding, as quantised models do it."""

from __future__ import annotations

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language


@rule("Round")
def straight_through(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = m.

    Shapes: x and m have one shape. Source: straight-through estimator (Bengio et al. 2013). Ledger:
    what rounding changes, (round(x) − x) ∘ m, under ``rounding``.
    """
    change = op.sub(node.output(), node.input(0))
    return Shares((m,), {"rounding": op.relevance(change, m)})
