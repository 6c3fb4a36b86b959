"""Sums, differences and choices: operands receive the multiplier as it is (ε-rule, ε → 0).

Shapes: operands and m are broadcast to one shape. No rule absorbs anything; the walk enters b ∘ m
for a constant operand b.
"""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules.registry import Node, T, rule
from palrp_onnx.tensor.language import Language


@rule("Add", "Sum")
def add(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_a = m, m_b = m; so R_a = a ∘ R_y / (a + b).

    Source: ε-rule with ε → 0 (Bach et al. 2015, eq. 58; AttnLRP, eq. 8; PA-LRP, eq. 5, where b is
    a table of positions).
    """
    return (m,) * node.arity


@rule("Sub")
def subtract(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_a = m, m_b = −m. Source: ε-rule with ε → 0 for a + (−b) (Bach et al. 2015, eq. 58)."""
    return m, op.scale(m, -1.0)


@rule("Mean")
def average(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_i = m / n for each of n operands. Source: ε-rule, ε → 0 (Bach et al. 2015, eq. 58)."""
    return (op.scale(m, 1.0 / node.arity),) * node.arity


@rule("Neg")
def negate(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = −m. Source: ε-rule with ε → 0 (Bach et al. 2015, eq. 58)."""
    return (op.scale(m, -1.0),)


@rule("Max", "Min")
def extreme(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_i = m where operand i is the winner, shared by equal winners. Source: winner takes all."""
    won = [op.winners(node.input(i), node.output()) for i in range(node.arity)]
    total = won[0]
    for more in won[1:]:
        total = op.add(total, more)
    return [op.mul(m, op.div(w, total)) for w in won]


@rule("Where")
def where(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_a = m where the condition holds, m_b = m where it does not.

    A guard against NaN, ``Where(IsNaN(x), 0, x)``, passes all of m on to x, whose rule reads 0 in
    place of NaN. Source: ε-rule with ε → 0 (Bach et al. 2015, eq. 58).
    """
    if node.only_guards():
        return None, None, m
    condition = node.input(0)
    return None, op.select(m, condition, True), op.select(m, condition, False)
