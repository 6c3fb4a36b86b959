"""Products and quotients.

Two activations share equally (uniform rule); a constant, a parameter, a gate or a statistic scales.
"""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules.registry import Node, T, rule
from palrp_onnx.tensor.language import Language


@rule("Mul")
def multiply(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_a = ½ m ∘ b, m_b = ½ m ∘ a between activations; m_a = m ∘ b beside a constant.

    Source: uniform rule (AttnLRP prop. 3.3; PA-LRP eq. 10 where b is a cosine or sine). Self-gated
    activations and normalisers are recognised beforehand: their second factor is a constant.
    """
    a, b = node.active(0), node.active(1)
    share = op.scale(m, 0.5) if a and b else m
    return (
        op.mul(share, node.input(1)) if a else None,
        op.mul(share, node.input(0)) if b else None,
    )


@rule("Div")
def divide(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_a = m / b; a denominator of content is a normaliser or a scale and receives nothing.

    A constant over an activation is a function of it: identity rule, m_b = m ∘ y / b. Where
    content and a position share the quotient, it is the product of one and the inverse of the
    other: half each, m_a = ½ m / b and m_b = ½ m ∘ y / b. Source: uniform rule.
    """
    a, b = node.active(0), node.active(1)
    share = op.scale(m, 0.5) if a and b else m
    return (
        op.div(share, node.input(1)) if a else None,
        op.mul(share, op.ratio(node.output(), node.input(1), 0.0)) if b or not a else None,
    )


@rule("MatMul")
def matmul(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_A = ½ m Bᵀ, m_B = ½ Aᵀ m between activations; m_A = m Wᵀ beside weights.

    Shapes: A [.., I, K], B [.., K, J], m [.., I, J]; operands of one axis as NumPy has them.
    Source: uniform rule (AttnLRP prop. 3.3); ε-rule with ε → 0 for weights.
    """
    a, b = node.active(0), node.active(1)
    share = op.scale(m, 0.5) if a and b else m
    return (
        _left(op, node, share) if a else None,
        _right(op, node, share) if b else None,
    )


def _left(op: Language[T], node: Node[T], m: T) -> T:
    if node.rank(1) == 1:  # y[.., i] = Σ_k A[.., i, k] b[k]
        return op.mul(op.unsqueeze(m, [-1]), node.input(1))
    if node.rank(0) == 1:  # y[.., j] = Σ_k a[k] B[.., k, j]
        return op.sum(op.matmul(node.input(1), op.unsqueeze(m, [-1])), [-1], keepdims=False)
    return op.matmul(m, node.input(1), transpose_b=True)


def _right(op: Language[T], node: Node[T], m: T) -> T:
    if node.rank(0) == node.rank(1) == 1:  # y = Σ_k a[k] b[k]
        return op.mul(op.unsqueeze(m, [-1]), node.input(0))
    if node.rank(0) == 1:
        return op.outer_first(node.input(0), m)
    if node.rank(1) == 1:
        return op.sum(op.mul(op.unsqueeze(m, [-1]), node.input(0)), [-2], keepdims=False)
    return op.matmul(node.input(0), m, transpose_a=True)


@rule("Einsum")
def einsum(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_a = c · einsum(m, b) over the same letters; c = ½ between two activations, else 1.

    Source: uniform rule; every operand's letters occur in the other operand or the result.
    """
    letters, result = equation_of(node)
    active = [node.active(i) for i in range(node.arity)]
    share = op.scale(m, 1.0 / sum(active)) if sum(active) > 1 else m
    operands = [node.input(i) for i in range(node.arity)]
    return [
        einsum_share(op, operands, share, letters, result, i) if active[i] else None
        for i in range(node.arity)
    ]


def equation_of(node: Node[T]) -> tuple[list[str], str]:
    """Letters of every operand, and of the result.

    Raises:
        NotImplementedError: The equation has more than letters.
    """
    terms, arrow, result = str(node.attribute("equation", "")).replace(" ", "").partition("->")
    letters = terms.split(",")
    if not arrow or "." in terms or any(len(set(t)) < len(t) for t in letters):
        raise NotImplementedError("an equation with dots, a diagonal, or no result")
    return letters, result


def einsum_share(
    op: Language[T], operands: Sequence[T], m: T, letters: list[str], result: str, index: int
) -> T:
    """What one operand of an equation gets of ``m``, given the others."""
    others = [i for i in range(len(operands)) if i != index]
    source = ",".join([result, *(letters[i] for i in others)])
    known = set(source)
    reachable = "".join(c for c in letters[index] if c in known)
    sent = op.einsum(f"{source}->{reachable}", [m, *(operands[i] for i in others)])
    absent = [k for k, c in enumerate(letters[index]) if c not in known]
    if not absent:
        return sent
    return op.expand_like(op.unsqueeze(sent, absent), operands[index])
