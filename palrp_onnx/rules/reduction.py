"""Reductions: the adjoint of a sum, all relevance to the winner of a maximum.

Shapes: x [*S]; y and m are x without the reduced axes, or with length 1 there (``keepdims``).
Nothing goes to the ledger unless a rule says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language


def _axes(node: Node[T], since_input: int) -> list[int]:
    """The reduced axes, from the attribute or, from an opset on, from the second input."""
    rank = node.rank(0)
    if node.opset >= since_input and node.has(1) and node.integers(1):
        return [a % rank for a in node.integers(1)]
    if node.opset >= since_input and node.attribute("noop_with_empty_axes", 0):
        return []
    return [a % rank for a in node.attribute("axes", tuple(range(rank)))]


def _spread(op: Language[T], node: Node[T], m: T, axes: Sequence[int]) -> T:
    if not node.attribute("keepdims", 1):
        m = op.unsqueeze(m, axes)
    return op.expand_like(m, node.input(0))


def _rest(node: Node[T]) -> tuple[None, ...]:
    return (None,) * (node.arity - 1)


@rule("ReduceSum")
def reduce_sum(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = Σ x: m_x = m for every entry. Source: ε-rule, ε → 0 (Bach et al. 2015, eq. 58)."""
    return _spread(op, node, m, _axes(node, 13)), *_rest(node)


@rule("ReduceMean")
def reduce_mean(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = Σ x / n: m_x = m / n. Source: ε-rule, ε → 0 (Bach et al. 2015, eq. 58)."""
    share = op.mul(m, op.mean_weight(node.input(0), m))
    return _spread(op, node, share, _axes(node, 18)), *_rest(node)


@rule("ReduceMax", "ReduceMin")
def reduce_extreme(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m at the winner, shared by equal winners. Source: winner takes all."""
    axes = _axes(node, 18)
    y = node.output()
    if not node.attribute("keepdims", 1):
        m, y = op.unsqueeze(m, axes), op.unsqueeze(y, axes)
    won = op.winners(node.input(0), y)
    return op.mul(m, op.div(won, op.sum(won, axes))), *_rest(node)


@rule("ReduceL2")
def reduce_l2(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = √Σx² = Σ x · (x / y): m_x = m ∘ x / y. Source: identity rule (AttnLRP, eq. 9)."""
    axes = _axes(node, 18)
    y = node.output()
    if not node.attribute("keepdims", 1):
        m, y = op.unsqueeze(m, axes), op.unsqueeze(y, axes)
    return op.mul(m, op.ratio(node.input(0), y, 0.0)), *_rest(node)


@rule("ReduceL1")
def reduce_l1(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = Σ|x| = Σ x · (|x| / x): m_x = m ∘ |x| / x. Source: identity rule (AttnLRP, eq. 9)."""
    x = node.input(0)
    sent = _spread(op, node, m, _axes(node, 18))
    return op.mul(sent, op.ratio(op.absolute(x), x, 0.0)), *_rest(node)


@rule("ReduceSumSquare")
def reduce_sum_square(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = Σx² = Σ x · x: m_x = m ∘ x. Source: identity rule (AttnLRP, eq. 9)."""
    return op.mul(_spread(op, node, m, _axes(node, 18)), node.input(0)), *_rest(node)


@rule("ReduceLogSum")
def reduce_log_sum(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = log Σx: m_x = m ∘ y / Σx. Source: identity rule (AttnLRP, eq. 9), as for ``Log``."""
    share = op.mul(m, op.mul(node.output(), op.exp(op.scale(node.output(), -1.0))))
    return _spread(op, node, share, _axes(node, 18)), *_rest(node)


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = log Σ eˣ: m_x = s ∘ m with s = eˣ⁻ʸ, the softmax of x.

    Source: first-order Taylor expansion, as for softmax (AttnLRP, prop. 3.1). Ledger: the rest,
    y ∘ m − Σ x ∘ m_x, the entropy of s times m, under ``softmax``.
    """
    axes = _axes(node, 18)
    probability = op.exp(op.sub(node.input(0), _spread(op, node, node.output(), axes)))
    sent = op.mul(probability, _spread(op, node, m, axes))
    keepdims = bool(node.attribute("keepdims", 1))
    passed = op.sum(op.relevance(node.input(0), sent), axes, keepdims=keepdims)
    rest = op.sub(op.relevance(node.output(), m), passed)
    return Shares((sent, *_rest(node)), {"softmax": rest})


@rule("CumSum")
def cumulative_sum(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x[i] = the sum of m over all sums that x[i] is part of.

    Source: ε-rule with ε → 0 (Bach et al. 2015, eq. 58).
    """
    sent = op.cumulative_adjoint(
        m,
        node.integers(1)[0],
        exclusive=bool(node.attribute("exclusive", 0)),
        reverse=bool(node.attribute("reverse", 0)),
    )
    return sent, None
