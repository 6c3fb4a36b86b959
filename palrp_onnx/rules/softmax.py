"""Softmax and its logarithm: the first-order Taylor expansion around the input itself."""

from __future__ import annotations

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language


@rule("Softmax", since=13)
def softmax(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = s ∘ (m − Σ s ∘ m), summed along ``axis``.

    Masked entries have s = 0. A row whose entries are all −∞ has s = NaN, or 0 where the graph
    replaces NaN by 0. Shapes: x, s and m have one shape. Source: Deep Taylor decomposition
    (AttnLRP, prop. 3.1). Ledger: the constant term, Σ s ∘ m − Σ x ∘ m_x, under ``softmax``.
    """
    return _softmax(op, node, m, [node.attribute("axis", -1)])


@rule("Softmax")
def softmax_of_tail(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """As :func:`softmax`; before opset 13 it runs over all axes from ``axis`` on."""
    return _softmax(op, node, m, tail(node))


def tail(node: Node[T]) -> list[int]:
    """The axes that a softmax before opset 13 runs over."""
    rank = node.rank(0)
    return list(range(node.attribute("axis", 1) % rank, rank))


def _softmax(op: Language[T], node: Node[T], m: T, axes: list[int]) -> Shares[T]:
    s = node.guarded_output()
    total = op.sum(op.mul(s, m), axes)
    sent = op.mul(s, op.sub(m, total))
    return Shares((sent,), {"softmax": op.sub(total, _passed(op, node, sent, axes))})


def _passed(op: Language[T], node: Node[T], sent: T, axes: list[int]) -> T:
    """The relevance of the scores, summed along the axes."""
    return op.sum(op.relevance(node.input(0), sent), axes)


def with_total(op: Language[T], node: Node[T], m: T, total: T, *, rest: bool) -> Shares[T]:
    """:func:`softmax` along the last axis, whose total Σ s ∘ m is known.

    Ledger: the constant term; with ``rest`` the total alone, from which Σ x ∘ m_x is still to be
    taken.
    """
    sent = op.mul(node.guarded_output(), op.sub(m, op.cast_like(total, m)))
    absorbed = total if rest else op.sub(total, _passed(op, node, sent, [-1]))
    return Shares((sent,), {"softmax": absorbed})


@rule("LogSoftmax", since=13)
def log_softmax(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = x − log Σ eˣ: m_x = m − eʸ Σ m.

    Shapes: x, y and m have one shape. Source: Deep Taylor decomposition, as for softmax (AttnLRP,
    prop. 3.1). Ledger: the constant term, y ∘ m − x ∘ m_x, under ``softmax``.
    """
    return _log_softmax(op, node, m, [node.attribute("axis", -1)])


@rule("LogSoftmax")
def log_softmax_of_tail(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """As :func:`log_softmax`; before opset 13 it runs over all axes from ``axis`` on."""
    return _log_softmax(op, node, m, tail(node))


def _log_softmax(op: Language[T], node: Node[T], m: T, axes: list[int]) -> Shares[T]:
    probability = op.exp(node.output())
    sent = op.sub(m, op.mul(probability, op.sum(m, axes)))
    passed = op.relevance(node.input(0), sent)
    rest = op.sub(op.relevance(node.output(), m), passed)
    return Shares((sent,), {"softmax": rest})
