"""Products and quotients.

Two activations share equally (uniform rule). A constant, a parameter, a gate or a statistic is a
factor that takes no share. Nothing goes to the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters

from palrp_onnx.rules.registry import Node, T, rule
from palrp_onnx.tensor.language import Language


@rule("Mul")
def multiply(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_a = ½ m ∘ b, m_b = ½ m ∘ a for two activations; m_a = m ∘ b if b is a constant.

    Shapes: a, b and m are broadcast to one shape. Source: uniform rule (AttnLRP, prop. 3.2; PA-LRP,
    eq. 10, where b is a cosine or a sine). The second factor of self-gated activations and
    normalisers is a constant.
    """
    a, b = node.active(0), node.active(1)
    share = op.scale(m, 0.5) if a and b else m
    return (
        op.mul(share, node.input(1)) if a else None,
        op.mul(share, node.input(0)) if b else None,
    )


@rule("Div")
def divide(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_a = m / b if a is content: b is then a normaliser or a scale, and receives nothing.

    m_b = m ∘ y / b if a is a constant, as y is then a function of b. Content over a position, or
    the other way round, is a product with an inverse: half each, m_a = ½ m / b, m_b = ½ m ∘ y / b.
    Source: identity rule (AttnLRP, eq. 9) for one activation, uniform rule (prop. 3.2) for two.
    Shapes: a, b and m are broadcast to one shape.
    """
    a, b = node.active(0), node.active(1)
    share = op.scale(m, 0.5) if a and b else m
    return (
        op.div(share, node.input(1)) if a else None,
        op.mul(share, op.ratio(node.output(), node.input(1), 0.0)) if b or not a else None,
    )


@rule("MatMul")
def matmul(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_A = ½ m Bᵀ, m_B = ½ Aᵀ m for two activations; m_A = m Wᵀ if B = W are weights.

    Shapes: A [.., I, K], B [.., K, J], m [.., I, J]; operands of one axis as in NumPy. Source:
    uniform rule (AttnLRP, prop. 3.3); for weights ε-rule with ε → 0 (Bach et al. 2015, eq. 58).
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
    """m_a = einsum(m, b, ..) / n over the same letters, with n active operands.

    Shapes: as the equation says. Source: uniform rule (AttnLRP, prop. 3.3). Every letter of an
    operand occurs in another operand or in the result, or is summed over alone.
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
        NotImplementedError: The equation has a diagonal or no result.
    """
    terms, arrow, result = str(node.attribute("equation", "")).replace(" ", "").partition("->")
    spelled = terms.split(",")
    hidden = [node.rank(i) - len(term.replace("...", "")) for i, term in enumerate(spelled)]
    # Axes of an ellipsis get letters that the equation leaves free.
    free = "".join(c for c in ascii_letters if c not in terms)[: max(hidden, default=0)]
    letters = [
        term.replace("...", free[len(free) - count :])
        for term, count in zip(spelled, hidden, strict=True)
    ]
    if not arrow or any(len(set(t)) < len(t) for t in letters):
        raise NotImplementedError("an equation with a diagonal or no result")
    return letters, result.replace("...", free)


def einsum_share(
    op: Language[T], operands: Sequence[T], m: T, letters: list[str], result: str, index: int
) -> T:
    """The multiplier of the operand ``index`` of an equation, given ``m`` and the others."""
    others = [i for i in range(len(operands)) if i != index]
    source = ",".join([result, *(letters[i] for i in others)])
    known = set(source)
    reachable = "".join(c for c in letters[index] if c in known)
    sent = op.einsum(f"{source}->{reachable}", [m, *(operands[i] for i in others)])
    absent = [k for k, c in enumerate(letters[index]) if c not in known]
    if not absent:
        return sent
    return op.expand_like(op.unsqueeze(sent, absent), operands[index])
