"""Pooling: the adjoint of an average, all relevance to the winner of a maximum.

Nothing goes to the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from palrp_onnx.rules.registry import Node, T, given, rule
from palrp_onnx.rules.resizing import along
from palrp_onnx.tensor.language import Language, Pooling


@rule("GlobalAveragePool")
def global_average(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m / n over the n spatial entries.

    Shapes: x [B, C, *S], m [B, C, 1, ..]. Source: ε-rule with ε → 0 (Bach et al. 2015, eq. 58).
    """
    x = node.input(0)
    return (op.expand_like(op.mul(m, op.mean_weight(x, m)), x),)


@rule("GlobalMaxPool")
def global_max(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m at the largest spatial entry, shared by equal ones.

    Shapes: x [B, C, *S], m [B, C, 1, ..]. Source: winner takes all.
    """
    won = op.winners(node.input(0), node.output())
    return (op.mul(m, op.div(won, op.sum(won, range(2, node.rank(0))))),)


@rule("AveragePool")
def average_pool(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = A x along each spatial axis, as windows are boxes: m_x = Aᵀ m along each.

    Shapes: x [B, C, *S], m [B, C, *S'], A [S', S] for an axis of S places. Source: ε-rule with
    ε → 0 (Bach et al. 2015, eq. 58).
    """
    rank = node.rank(0)
    for axis in range(2, rank):
        window = of_axis(node, axis - 2)
        if dilations := node.attribute("dilations", None):
            window["dilations"] = [dilations[axis - 2], 1]
        m = along(op, m, op.averaging(node.input(0), axis, window), axis, rank)
    return (m,)


def of_axis(node: Node[T], axis: int, covered: Sequence[int] = ()) -> Pooling:
    """The windows along one spatial axis, as pooling of images [S, S] along their rows.

    Args:
        node: A pooling or a convolution.
        axis: The spatial axis, from 0.
        covered: Lengths of its windows, by default its ``kernel_shape``.
    """
    kernel = covered or node.attribute("kernel_shape", ())
    rank = len(kernel)
    window: dict[str, Any] = given(node, "auto_pad", "ceil_mode", "count_include_pad")
    window["kernel_shape"] = [kernel[axis], 1]
    if strides := node.attribute("strides", None):
        window["strides"] = [strides[axis], 1]
    if pads := node.attribute("pads", None):
        window["pads"] = [pads[axis], 0, pads[axis + rank], 0]
    return cast(Pooling, window)


@rule("MaxPool", since=8)
def max_pool(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m at the first largest entry of every window.

    Shapes: x [B, C, *S], m [B, C, *S']. Source: winner takes all.
    """
    names = ("kernel_shape", "strides", "pads", "dilations", "ceil_mode", "auto_pad")
    return (op.max_pool_adjoint(m, node.input(0), cast(Pooling, given(node, *names))),)
