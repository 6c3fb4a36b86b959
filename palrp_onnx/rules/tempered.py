"""Softmax whose derivative has a higher temperature: the set of rules ``tempered``.

Where one key takes nearly all of the attention, a derivative says that no score matters: what one
key loses another takes over. At a higher temperature τ the derivative is that of a less decided
softmax. The set is for attention; the softmax of a classifier's output keeps its own derivative.
"""

from __future__ import annotations

from palrp_onnx.rules import softmax
from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language

SET = "tempered"


@rule("Softmax", under=SET, since=13)
def tempered(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = t ∘ (m − Σ t ∘ m) with t = softmax(x / τ) along ``axis``; τ is ``temperature``.

    t is computed from the scores, as small probabilities are 0 in half precision. There is no
    factor 1/τ. Shapes: x, s and m have one shape. Source: GIM (Edin et al. 2025),
    temperature-adjusted gradients, as in the authors' code. Ledger: Σ s ∘ m − Σ x ∘ m_x under
    ``softmax``.
    """
    if node.parameter("temperature") == 1.0:
        return softmax.softmax(op, node, m)
    return _tempered(op, node, m, [node.attribute("axis", -1)])


@rule("Softmax", under=SET)
def tempered_of_tail(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """As :func:`tempered`; before opset 13 it runs over all axes from ``axis`` on."""
    if node.parameter("temperature") == 1.0:
        return softmax.softmax_of_tail(op, node, m)
    return _tempered(op, node, m, softmax.tail(node))


def _tempered(op: Language[T], node: Node[T], m: T, axes: list[int]) -> Shares[T]:
    x, s = node.input(0), node.guarded_output()
    # The mean score is less than log(n) below the largest, so that no power of e overflows.
    mean = op.sum(op.relevance(x, s), axes)
    powers = op.exp(op.scale(op.sub(op.wide(x), mean), 1.0 / node.parameter("temperature")))
    t = op.cast_like(op.ratio(powers, op.sum(powers, axes), 0.0), s)
    weighed = op.mul(t, m)
    sent = op.sub(weighed, op.mul(t, op.sum(weighed, axes)))
    passed = op.sum(op.relevance(x, sent), axes)
    return Shares((sent,), {"softmax": op.sub(op.sum(op.mul(s, m), axes), passed)})
