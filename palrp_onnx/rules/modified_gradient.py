"""Exact slopes of element-wise functions alone: the set of rules ``slopes``.

With halves at products and frozen statistics of norms, which the usual rules have, these are the
gradients of GIM (Edin et al. 2025). A product of a value with a function of itself (``x · σ(x)``)
is a function of one value, and has its derivative; in products of two activations each still takes
half. Denominators are constants, as in norms. What is not linear, y ∘ m − x ∘ m_x, is entered under
``other``.
"""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules import gradient, products
from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language

SET = "slopes"

for _name, _slope in gradient.ELEMENTWISE.items():
    rule(_name, under=SET)(_slope)


@rule("Mul", under=SET)
def multiply(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
    """m_a = m ∘ b, m_b = m ∘ a for two functions of one value; else the usual rule.

    Shapes: a, b and m are broadcast to one shape. Source: product rule. Ledger: −y ∘ m under
    ``other`` for two functions of one value.
    """
    return (gradient.multiply if node.self_gated() else products.multiply)(op, node, m)
