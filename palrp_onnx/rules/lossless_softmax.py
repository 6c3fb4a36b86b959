"""Attention that loses nothing in its softmax: the sets of rules ``kept`` and ``adaptive``.

Probabilities are s = J x + c of their scores x, with J x = s ∘ (x − Σ s ∘ x) and c constant. In a
product s V, c scales the values like a weight; J x is an activation, and takes the share λ of what
it makes with V. Relevance of the result is Σ m ∘ (c V) + Σ m ∘ (J x V), and all of it is handed on.
λ = 0 is CP-LRP's rule; λ = ½ the uniform rule for what is bilinear. Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from palrp_onnx.rules import products, softmax
from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language

#: Probabilities, J x, and the multiplier that all of s has → what scores are sent of that
#: multiplier, and what weighs the values.
_Split = Callable[[Language[Any], Node[Any], Any, Any, Any], tuple[Any, Any]]


# --- how much the scores take ---------------------------------------------------------------------
def _constant(op: Language[T], node: Node[T], s: T, part: T, m: T) -> tuple[T, T]:
    """λ is the method's."""
    share = node.parameter("kept")
    return op.scale(m, share), op.sub(s, op.scale(part, share))


def _adaptive(op: Language[T], node: Node[T], s: T, part: T, m: T) -> tuple[T, T]:
    """λ = ½ |k + l| / (|k| + |l|) for every query, of k = Σ c ∘ m and l = Σ J x ∘ m over its keys.

    ½ where both speak for the same; less where they cancel, so that scores never take more than
    half of the size of what there is: |λ l| ≤ ½ |k + l|.
    """
    del node
    linear = op.sum(op.relevance(part, m), [-1])
    whole = op.sum(op.relevance(s, m), [-1])
    sizes = op.add(op.absolute(op.sub(whole, linear)), op.absolute(linear))
    share = op.cast_like(op.scale(op.ratio(op.absolute(whole), sizes, 0.0), 0.5), m)
    return op.mul(m, share), op.sub(s, op.mul(part, share))


# --- the rules ------------------------------------------------------------------------------------
def _matmul(op: Language[T], node: Node[T], m: T, split: _Split) -> Sequence[T | None]:
    """m_V = (s − λ J x)ᵀ m, m_s = λ m Vᵀ.

    Shapes: s [.., I, J], V [.., J, D], m [.., I, D].
    """
    for index in (0, 1):
        part = _linear(op, node, index)
        if part is None or node.rank(0) < 2 or node.rank(1) < 2:
            continue
        first, second = node.input(0), node.input(1)
        if index == 0:
            sent, rest = split(op, node, first, part, op.matmul(m, second, transpose_b=True))
            return sent, op.matmul(rest, m, transpose_a=True)
        sent, rest = split(op, node, second, part, op.matmul(first, m, transpose_a=True))
        return op.matmul(m, rest, transpose_b=True), sent
    return products.matmul(op, node, m)


def _einsum(op: Language[T], node: Node[T], m: T, split: _Split) -> Sequence[T | None]:
    """The same where the product is written with letters."""
    found = [_linear(op, node, index) for index in range(node.arity)]
    index = next((i for i, part in enumerate(found) if part is not None), None)
    if index is None or node.arity != 2:
        return products.einsum(op, node, m)
    letters, result = products.equation_of(node)
    operands = [node.input(0), node.input(1)]
    whole = products.einsum_share(op, operands, m, letters, result, index)
    own, operands[index] = split(op, node, operands[index], found[index], whole)
    sent = products.einsum_share(op, operands, m, letters, result, 1 - index)
    return (own, sent) if index == 0 else (sent, own)


def _linear(op: Language[T], node: Node[T], index: int) -> T | None:
    """J x of probabilities; masked scores count as 0."""
    scores = node.scores(index) if node.active(index) else None
    if scores is None:
        return None
    s = node.input(index)
    weighed = op.relevance(scores, s)
    return op.cast_like(op.sub(weighed, op.mul(s, op.sum(weighed, [-1]))), s)


def _without_books(node: Node[T], shares: Shares[T]) -> Shares[T]:
    """m_x = s ∘ (m − Σ s ∘ m); the constant part is where the product took it."""
    return Shares(shares.inputs) if node.keeps() else shares


def _register(name: str, split: _Split) -> None:
    @rule("MatMul", under=name)
    def matmul(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
        """Probabilities and values."""
        return _matmul(op, node, m, split)

    @rule("Einsum", under=name)
    def einsum(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
        """Probabilities and values."""
        return _einsum(op, node, m, split)

    @rule("Softmax", under=name, since=13)
    def softmax_kept(op: Language[T], node: Node[T], m: T) -> Shares[T]:
        """Scores."""
        return _without_books(node, softmax.softmax(op, node, m))

    @rule("Softmax", under=name)
    def softmax_of_tail(op: Language[T], node: Node[T], m: T) -> Shares[T]:
        """Scores, before opset 13."""
        return _without_books(node, softmax.softmax_of_tail(op, node, m))


_register("kept", _constant)
_register("adaptive", _adaptive)
