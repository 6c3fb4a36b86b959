"""Attention whose softmax loses no relevance: the sets of rules ``kept`` and ``adaptive``.

Probabilities s of scores x are s = J x + c with J x = s ∘ (x − Σ s ∘ x) and a constant c. In a
product s V, c scales the values like a weight; J x is an activation, and takes the share λ of the
relevance of (J x) V. So all relevance of the result, Σ m ∘ (c V) + Σ m ∘ (J x V), is passed on.
λ = 0 is CP-LRP's rule, λ = ½ the uniform rule for the bilinear part. Source: this project.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from palrp_onnx.rules import products, softmax
from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language

#: (op, node, s, J x, multiplier of s) → (multiplier for the scores, matrix for the values).
_Split = Callable[[Language[Any], Node[Any], Any, Any, Any], tuple[Any, Any]]


# --- the share λ of the scores --------------------------------------------------------------------
def _constant(op: Language[T], node: Node[T], s: T, part: T, m: T) -> tuple[T, T]:
    """λ is the parameter ``kept`` of the method."""
    share = node.parameter("kept")
    return op.scale(m, share), op.sub(s, op.scale(part, share))


def _adaptive(op: Language[T], node: Node[T], s: T, part: T, m: T) -> tuple[T, T]:
    """λ = ½ |k + l| / (|k| + |l|) for every query: k = Σ c ∘ m and l = Σ J x ∘ m over its keys.

    λ = ½ where k and l have one sign; less where they cancel, so that scores never take more than
    half of the sum: |λ l| ≤ ½ |k + l|.
    """
    del node
    linear = op.sum(op.relevance(part, m), [-1])
    whole = op.sum(op.relevance(s, m), [-1])
    sizes = op.add(op.absolute(op.sub(whole, linear)), op.absolute(linear))
    share = op.cast_like(op.scale(op.ratio(op.absolute(whole), sizes, 0.0), 0.5), m)
    return op.mul(m, share), op.sub(s, op.mul(part, share))


# --- the rules ------------------------------------------------------------------------------------
def _matmul(op: Language[T], node: Node[T], m: T, split: _Split) -> Sequence[T | None]:
    """m_V = (s − λ J x)ᵀ m, m_s = λ m Vᵀ; the default rule for other products.

    Shapes: s [.., I, J], V [.., J, D], m [.., I, D]. Source: this project. Ledger: nothing.
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
    """The same for a product written as ``Einsum``."""
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
    """J x if the operand is probabilities, masked scores counted as 0; else ``None``."""
    scores = node.scores(index) if node.active(index) else None
    if scores is None:
        return None
    s = node.input(index)
    weighted = op.relevance(scores, s)
    return op.cast_like(op.sub(weighted, op.mul(s, op.sum(weighted, [-1]))), s)


def _without_constant(node: Node[T], shares: Shares[T]) -> Shares[T]:
    """m_x = s ∘ (m − Σ s ∘ m); the product has passed the constant part to its values already."""
    return Shares(shares.inputs) if node.consumers_see_scores() else shares


def _register(name: str, split: _Split) -> None:
    @rule("MatMul", under=name)
    def matmul(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
        """m_V = (s − λ J x)ᵀ m, m_s = λ m Vᵀ: see :func:`_matmul`."""
        return _matmul(op, node, m, split)

    @rule("Einsum", under=name)
    def einsum(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
        """m_V = (s − λ J x)ᵀ m, m_s = λ m Vᵀ: see :func:`_matmul`."""
        return _einsum(op, node, m, split)

    @rule("Softmax", under=name, since=13)
    def softmax_of_axis(op: Language[T], node: Node[T], m: T) -> Shares[T]:
        """m_x = s ∘ (m − Σ s ∘ m). Ledger: nothing if every consumer sees the scores."""
        return _without_constant(node, softmax.softmax(op, node, m))

    @rule("Softmax", under=name)
    def softmax_of_tail(op: Language[T], node: Node[T], m: T) -> Shares[T]:
        """The same before opset 13, over all axes from ``axis`` on."""
        return _without_constant(node, softmax.softmax_of_tail(op, node, m))


_register("kept", _constant)
_register("adaptive", _adaptive)
