"""Normalisation layers in one operation: their linear part; the deviation counts as a constant."""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language

#: The number that MeanVarianceNormalization adds to the deviation, by the ONNX standard.
EPSILON = 1e-9


@rule("LayerNormalization", ledger={2: "norm"})
def layer_normalization(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = γ ∘ (x − μ)/σ + β: m_x = u − mean(u) with u = γ ∘ m / σ; m_β = m.

    Shapes: x, m [.., *N], normalised over N, the axes from ``axis`` on; γ, β [*N]. Source: AttnLRP,
    prop. 3.4 (identity rule): σ is a constant, the mean is not. Ledger: β ∘ m under ``norm``;
    R_x = R_y − β ∘ m exactly.
    """
    rank = node.rank(0)
    axes = list(range(node.attribute("axis", -1) % rank, rank))
    sent = _centred_share(op, node, op.mul(m, node.input(1)), axes)
    return (sent, None, m) if node.has(2) else (sent, None)


def _centred_share(op: Language[T], node: Node[T], scaled: T, axes: list[int]) -> T:
    """u − mean(u) with u = γ ∘ m / σ: the linear part of (x − μ)/σ over ``axes``."""
    x = op.wide(node.input(0))
    centred = op.sub(x, op.mean(x, axes))
    variance = op.mean(op.mul(centred, centred), axes)
    deviation = op.power(op.shift(variance, node.attribute("epsilon", 1e-5)), 0.5)
    u = op.div(scaled, deviation)
    return op.cast_like(op.sub(u, op.mean(u, axes)), node.input(0))


@rule("RMSNormalization")
def rms_normalization(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = γ ∘ x / √(mean(x²) + ε): m_x = m ∘ γ / √(mean(x²) + ε).

    Shapes: x, m [.., *N], normalised over N, the axes from ``axis`` on; γ [*N]. Source: AttnLRP,
    prop. 3.4. Ledger: nothing; R_x = R_y exactly.
    """
    rank = node.rank(0)
    axes = list(range(node.attribute("axis", -1) % rank, rank))
    x = op.wide(node.input(0))
    mean = op.mean(op.mul(x, x), axes)
    root = op.power(op.shift(mean, node.attribute("epsilon", 1e-5)), 0.5)
    sent = op.div(op.mul(m, node.input(1)), root)
    return op.cast_like(sent, node.input(0)), None


@rule("InstanceNormalization", ledger={2: "norm"})
def instance_normalization(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = γ (x − μ)/σ + β per sample and channel: as LayerNormalization over the spatial axes.

    Shapes: x, m [B, C, *S]; γ, β [C]. Source: AttnLRP, prop. 3.4. Ledger: β ∘ m under ``norm``.
    """
    rank = node.rank(0)
    gamma, beta = (op.unsqueeze(node.input(k), range(1, rank - 1)) for k in (1, 2))
    sent = _centred_share(op, node, op.mul(m, gamma), list(range(2, rank)))
    return Shares((sent, None, None), {"norm": op.mul(m, beta)})


@rule("MeanVarianceNormalization")
def mean_variance_normalization(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = (x − μ)/(σ + ε): m_x = u − mean(u) with u = m / (σ + ε).

    Shapes: x and m have one shape. Source: AttnLRP, prop. 3.4; ε is that of the ONNX standard.
    Ledger: nothing.
    """
    axes = node.attribute("axes", (0, 2, 3))
    if 0 in axes or -node.rank(0) in axes:
        raise NotImplementedError("statistics measured over the batch")
    x = op.wide(node.input(0))
    centred = op.sub(x, op.mean(x, axes))
    variance = op.mean(op.mul(centred, centred), axes)
    u = op.div(m, op.shift(op.power(variance, 0.5), EPSILON))
    return (op.cast_like(op.sub(u, op.mean(u, axes)), node.input(0)),)


@rule("LpNormalization")
def lp_normalization(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = x / ‖x‖ along an axis: m_x = m / ‖x‖, and 0 where ‖x‖ = 0.

    Shapes: x and m have one shape. Source: AttnLRP, prop. 3.4: the norm is a constant, as the
    deviation of LayerNormalization is. Ledger: nothing.
    """
    axes = [node.attribute("axis", -1)]
    x = op.wide(node.input(0))
    if node.attribute("p", 2) == 1:
        norm = op.sum(op.absolute(x), axes)
    else:
        norm = op.power(op.sum(op.mul(x, x), axes), 0.5)
    return (op.cast_like(op.ratio(m, norm, 0.0), node.input(0)),)
