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
    axis = node.attribute("axis", -1)
    return _softmax(op, node, m, axis)


@rule("Softmax")
def softmax_of_tail(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """Before opset 13 a softmax runs over all axes from ``axis`` on; otherwise the same.

    Exporters place it on the last axis, where the two agree.
    """
    axis = node.attribute("axis", 1)
    if axis not in (-1, node.rank(0) - 1):
        raise NotImplementedError("softmax over several axes")
    return _softmax(op, node, m, -1)


def _softmax(op: Language[T], node: Node[T], m: T, axis: int) -> Shares[T]:
    s = node.guarded_output()
    carried = op.mul(s, m)
    total = op.sum(carried, [axis])
    sent = op.sub(carried, op.mul(s, total))
    passed = op.sum(op.relevance(node.input(0), sent), [axis])
    return Shares((sent,), {"softmax": op.sub(total, passed)})


@rule("LogSoftmax", since=13)
def log_softmax(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = x − log Σ eˣ: m_x = m − eʸ Σ m; the rest is absorbed like softmax's constant term."""
    axis = node.attribute("axis", -1)
    probability = op.exp(node.output())
    sent = op.sub(m, op.mul(probability, op.sum(m, [axis])))
    passed = op.relevance(node.input(0), sent)
    rest = op.sub(op.relevance(node.output(), m), passed)
    return Shares((sent,), {"softmax": rest})
