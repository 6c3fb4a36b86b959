"""Attention that loses nothing in its softmax: the set of rules ``kept``.

Probabilities are s = J x + c of their scores x, with J x = s ∘ (x − Σ s ∘ x) and c constant. In a
product s V, c scales the values like a weight; J x is an activation, and takes the share λ of what
it makes with V. Relevance of the result is Σ m ∘ (c V) + Σ m ∘ (J x V), and all of it is handed on.
λ = 0 is CP-LRP's rule; λ = ½ the uniform rule for what is bilinear. Source: ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules import products, softmax
from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language


@rule("MatMul", under="kept")
def matmul(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_V = (s − λ J x)ᵀ m, m_s = λ m Vᵀ.

    Shapes: s [.., I, J], V [.., J, D], m [.., I, D].
    """
    for index in (0, 1):
        part = _linear(op, node, index)
        if part is None or node.rank(0) < 2 or node.rank(1) < 2:
            continue
        share = node.parameter("kept")
        rest = op.sub(node.input(index), op.scale(part, share))
        own = op.scale(m, share)
        if index == 0:
            sent = op.matmul(own, node.input(1), transpose_b=True)
            return sent, op.matmul(rest, m, transpose_a=True)
        return op.matmul(m, rest, transpose_b=True), op.matmul(node.input(0), own, transpose_a=True)
    return products.matmul(op, node, m)


@rule("Einsum", under="kept")
def einsum(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """The same where the product is written with letters."""
    found = [_linear(op, node, index) for index in range(node.arity)]
    index = next((i for i, part in enumerate(found) if part is not None), None)
    if index is None or node.arity != 2:
        return products.einsum(op, node, m)
    letters, result = products.equation_of(node)
    share, part = node.parameter("kept"), found[index]
    assert part is not None
    operands = [node.input(0), node.input(1)]
    own = products.einsum_share(op, operands, op.scale(m, share), letters, result, index)
    operands[index] = op.sub(operands[index], op.scale(part, share))
    sent = products.einsum_share(op, operands, m, letters, result, 1 - index)
    return (own, sent) if index == 0 else (sent, own)


def _linear(op: Language[T], node: Node[T], index: int) -> T | None:
    """J x of probabilities; masked scores count as 0."""
    scores = node.scores(index) if node.active(index) else None
    if scores is None:
        return None
    s = node.input(index)
    weighed = op.relevance(scores, s)
    return op.sub(weighed, op.mul(s, op.sum(weighed, [-1])))


@rule("Softmax", under="kept", since=13)
def softmax_kept(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = s ∘ (m − Σ s ∘ m); the constant part is where the product took it."""
    return _without_books(node, softmax.softmax(op, node, m))


@rule("Softmax", under="kept")
def softmax_of_tail(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """The same before opset 13."""
    return _without_books(node, softmax.softmax_of_tail(op, node, m))


def _without_books(node: Node[T], shares: Shares[T]) -> Shares[T]:
    return Shares(shares.inputs) if node.keeps() else shares
