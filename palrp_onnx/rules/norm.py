"""Normalisation layers in one operation: the linear part; the deviation is a constant."""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language


@rule("LayerNormalization", books={2: "norm"})
def layer_normalization(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = γ ∘ (x − μ)/σ + β: m_x = u − mean(u) with u = γ ∘ m / σ; m_β = m.

    Shapes: x, m [.., *N], normalised over N, the axes from ``axis`` on. Source: AttnLRP prop. 3.4
    (identity rule); σ is a constant, the mean is not. R_y − β ∘ m = R_x exactly.
    """
    rank = node.rank(0)
    axes = list(range(node.attribute("axis", -1) % rank, rank))
    x = node.input(0)
    mean = op.mul(op.sum(x, axes), op.mean_weight(x, op.sum(x, axes)))
    centred = op.sub(x, mean)
    square = op.sum(op.mul(centred, centred), axes)
    variance = op.mul(square, op.mean_weight(x, square))
    deviation = op.power(op.shift(variance, node.attribute("epsilon", 1e-5)), 0.5)
    u = op.div(op.mul(m, node.input(1)), deviation)
    total = op.sum(u, axes)
    sent = op.sub(u, op.mul(total, op.mean_weight(x, total)))
    return (sent, None, m) if node.has(2) else (sent, None)


@rule("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = γ ∘ x / √(mean(x²) + ε): m_x = m ∘ γ / √(mean(x²) + ε).

    Shapes: x, m [.., *N], normalised over the axes from ``axis`` on. Source: AttnLRP prop. 3.4.
    """
    rank = node.rank(0)
    axes = list(range(node.attribute("axis", -1) % rank, rank))
    x = node.input(0)
    square = op.sum(op.mul(x, x), axes)
    mean = op.mul(square, op.mean_weight(x, square))
    root = op.power(op.shift(mean, node.attribute("epsilon", 1e-5)), 0.5)
    return op.div(op.mul(m, node.input(1)), root), None


@rule("InstanceNormalization", books={2: "norm"})
def instance_normalization(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = γ (x − μ)/σ + β per sample and channel: as LayerNormalization over the spatial axes.

    Shapes: x, m [B, C, *S]; γ, β [C].
    """
    rank = node.rank(0)
    axes = list(range(2, rank))
    x = node.input(0)
    mean = op.mul(op.sum(x, axes), op.mean_weight(x, op.sum(x, axes)))
    centred = op.sub(x, mean)
    square = op.sum(op.mul(centred, centred), axes)
    variance = op.mul(square, op.mean_weight(x, square))
    deviation = op.power(op.shift(variance, node.attribute("epsilon", 1e-5)), 0.5)
    gamma, beta = (op.unsqueeze(node.input(k), range(1, rank - 1)) for k in (1, 2))
    u = op.div(op.mul(m, gamma), deviation)
    total = op.sum(u, axes)
    sent = op.sub(u, op.mul(total, op.mean_weight(x, total)))
    return Shares((sent, None, None), {"norm": op.mul(m, beta)})
