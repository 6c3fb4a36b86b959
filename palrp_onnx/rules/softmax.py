"""Softmax."""

from __future__ import annotations

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language


@rule("Softmax", since=13)
def softmax(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = s ∘ (m − Σ s ∘ m) along the axis; the rest of s ∘ m, a constant term, is absorbed.

    Source: Deep Taylor (AttnLRP prop. 3.1). A row whose entries are all −∞ has s = NaN, or 0 where
    the file guards it. Masked entries have s = 0.
    """
    return _softmax(op, node, m, [node.attribute("axis", -1)])


@rule("Softmax")
def softmax_of_tail(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """Before opset 13 a softmax runs over all axes from ``axis`` on; otherwise the same."""
    return _softmax(op, node, m, _tail(node))


def _tail(node: Node[T]) -> list[int]:
    rank = node.rank(0)
    return list(range(node.attribute("axis", 1) % rank, rank))


def _softmax(op: Language[T], node: Node[T], m: T, axes: list[int]) -> Shares[T]:
    s = node.guarded_output()
    carried = op.mul(s, m)
    total = op.sum(carried, axes)
    sent = op.sub(carried, op.mul(s, total))
    passed = op.sum(op.relevance(node.input(0), sent), axes)
    return Shares((sent,), {"softmax": op.sub(total, passed)})


@rule("LogSoftmax", since=13)
def log_softmax(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = x − log Σ eˣ: m_x = m − eʸ Σ m; the rest is absorbed like softmax's constant term."""
    return _log_softmax(op, node, m, [node.attribute("axis", -1)])


@rule("LogSoftmax")
def log_softmax_of_tail(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """Before opset 13 a softmax runs over all axes from ``axis`` on; otherwise the same."""
    return _log_softmax(op, node, m, _tail(node))


def _log_softmax(op: Language[T], node: Node[T], m: T, axes: list[int]) -> Shares[T]:
    probability = op.exp(node.output())
    sent = op.sub(m, op.mul(probability, op.sum(m, axes)))
    passed = op.relevance(node.input(0), sent)
    rest = op.sub(op.relevance(node.output(), m), passed)
    return Shares((sent,), {"softmax": rest})
