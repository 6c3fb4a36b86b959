"""Reductions and pooling: the adjoint where they are linear, the winner where they choose."""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules.registry import Node, T, rule
from palrp_onnx.tensor.language import Language


def _axes(node: Node[T], since_input: int) -> list[int]:
    """The reduced axes, from the attribute or, from an opset on, from the second input."""
    rank = node.rank(0)
    if node.opset >= since_input and node.has(1):
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
    """m_x = m for every entry of the sum. Linear."""
    return _spread(op, node, m, _axes(node, 13)), *_rest(node)


@rule("ReduceMean")
def reduce_mean(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m / n for every one of n entries. Linear."""
    sent = _spread(op, node, m, _axes(node, 18))
    return op.mul(sent, op.mean_weight(node.input(0), m)), *_rest(node)


@rule("GlobalAveragePool")
def global_average(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m / n over the n spatial entries. Linear."""
    x = node.input(0)
    return (op.mul(op.expand_like(m, x), op.mean_weight(x, m)),)


@rule("MaxPool", since=8)
def max_pool(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m at the first largest entry of every window. Source: winner takes all."""
    if node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotImplementedError("auto_pad that depends on the size")
    names = ("kernel_shape", "strides", "pads", "dilations", "ceil_mode")
    window = {name: node.attribute(name, None) for name in names}
    return (op.max_pool_adjoint(m, node.input(0), **{k: v for k, v in window.items() if v}),)


@rule("ReduceMax", "ReduceMin")
def reduce_extreme(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m at the winner; equal winners share. Source: winner takes all."""
    axes = _axes(node, 18)
    y = node.output()
    if not node.attribute("keepdims", 1):
        m, y = op.unsqueeze(m, axes), op.unsqueeze(y, axes)
    won = op.winners(node.input(0), y)
    return op.mul(m, op.div(won, op.sum(won, axes))), *_rest(node)


@rule("ReduceL2")
def reduce_l2(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = √Σx²: m_x = m ∘ x / y, since y = Σ x · (x / y). Source: identity rule."""
    axes = _axes(node, 18)
    y = node.output()
    if not node.attribute("keepdims", 1):
        m, y = op.unsqueeze(m, axes), op.unsqueeze(y, axes)
    return op.mul(m, op.ratio(node.input(0), y, 0.0)), *_rest(node)


@rule("CumSum")
def cumulative_sum(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """The adjoint: every entry receives the sum of the multipliers it was added to. Linear."""
    sent = op.cumulative_adjoint(
        m,
        node.integers(1)[0],
        exclusive=bool(node.attribute("exclusive", 0)),
        reverse=bool(node.attribute("reverse", 0)),
    )
    return sent, None
