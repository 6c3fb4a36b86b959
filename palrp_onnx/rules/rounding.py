"""Rounding, as quantised models do it, and remainders."""

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


@rule("Mod")
def remainder(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = x − n ∘ d: m_x = m; the multiples n ∘ d that were taken off, (y − x) ∘ m, are absorbed.

    The derivative, as n is constant between jumps. Source: straight through.
    """
    if node.active(1):
        raise NotImplementedError("a remainder of a division by content")
    change = op.sub(node.output(), node.input(0))
    return Shares((m, None), {"other": op.relevance(change, m)})
