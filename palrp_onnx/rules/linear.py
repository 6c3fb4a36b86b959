"""Linear layers: the transposed linear map; what the bias adds goes to the ledger."""

from __future__ import annotations

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language, Window


@rule("Gemm")
def gemm(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = α A' B' + β C: m_A = α m B'ᵀ (transposed back), m_C = β m; ½ each if A and B are active.

    Shapes: A' [M, K], B' [K, N], C [M, N] or broadcast to it, m [M, N]. Source: ε-rule with ε → 0
    (Bach et al. 2015, eq. 58); uniform rule between A and B (AttnLRP, prop. 3.3). Ledger: nothing;
    where only C is an activation, (α A' B') ∘ m under ``bias``.
    """
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    flip_a, flip_b = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    a, b = node.active(0), node.active(1)
    share = op.scale(m, alpha * (0.5 if a and b else 1.0))
    left = right = None
    if a:
        left = op.matmul(share, node.input(1), transpose_b=not flip_b)
        left = op.transpose(left, [1, 0]) if flip_a else left
    if b:
        right = op.matmul(node.input(0), share, transpose_a=not flip_a)
        right = op.transpose(right, [1, 0]) if flip_b else right
    third = op.scale(m, beta) if node.has(2) else None
    sent = (left, right, third)[: node.arity]
    if a or b:
        return Shares(sent)
    constant = op.sub(node.output(), op.scale(node.input(2), beta))
    return Shares(sent, {"bias": op.mul(m, constant)})


@rule("Conv")
def convolution(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = the transposed convolution of m.

    Shapes: x [B, C, *S], weight [O, C/group, *K], b [O], m [B, O, *S']. Source: ε-rule with ε → 0
    (Bach et al. 2015, eq. 58). Ledger: b ∘ m under ``bias``.
    """
    return _with_bias(op, node, m, op.conv_adjoint(m, node.input(1), node.input(0), window(node)))


@rule("ConvTranspose")
def transposed_convolution(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = the convolution of m with the same weights.

    Shapes: x [B, C, *S], weight [C, O/group, *K], b [O], m [B, O, *S']. Source: ε-rule with ε → 0
    (Bach et al. 2015, eq. 58). Ledger: b ∘ m under ``bias``.
    """
    return _with_bias(op, node, m, op.conv(m, node.input(1), node.input(0), window(node)))


def window(node: Node[T]) -> Window:
    """How the window of a convolution moves."""
    rank = node.rank(1) - 2
    same = node.attribute("auto_pad", "NOTSET")
    pads = node.attribute("pads", (0,) * 2 * rank)
    if same.startswith("SAME"):
        pads = same
    elif node.attribute("output_shape", None) is not None:  # an odd padding has more at the start
        pads = "SAME_LOWER"
    return Window(
        strides=node.attribute("strides", (1,) * rank),
        pads=pads,
        dilations=node.attribute("dilations", (1,) * rank),
        group=node.attribute("group", 1),
        output_padding=node.attribute("output_padding", (0,) * rank),
    )


def _with_bias(op: Language[T], node: Node[T], m: T, sent: T) -> Shares[T]:
    """``sent`` to the image; what the bias [O] adds is absorbed."""
    if not node.has(2):
        return Shares((sent, None))
    bias = op.unsqueeze(node.input(2), range(1, node.rank(1) - 1))
    return Shares((sent, None, None), {"bias": op.mul(m, bias)})


@rule("BatchNormalization", since=7)
def batch_normalization(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = γ (x − μ)/√(σ² + ε) + β with stored statistics: m_x = γ m / √(σ² + ε).

    Shapes: x, m [B, C, *S]; γ, β, μ, σ² [C]. Source: ε-rule with ε → 0 (Bach et al. 2015, eq. 58)
    for an affine map. Ledger: the offset, (β − γ μ / √(σ² + ε)) ∘ m, under ``norm``.
    """
    if node.attribute("training_mode", 0):
        raise NotImplementedError("statistics measured over the batch")
    if not node.attribute("spatial", 1):
        raise NotImplementedError("statistics for every place")
    axes = range(1, node.rank(0) - 1)
    gamma, beta, mean, variance = (op.unsqueeze(node.input(k), axes) for k in range(1, 5))
    deviation = op.power(op.shift(variance, node.attribute("epsilon", 1e-5)), 0.5)
    factor = op.div(gamma, deviation)
    sent = op.mul(m, factor)
    offset = op.mul(m, op.sub(beta, op.mul(mean, factor)))
    return Shares((sent, None, None, None, None), {"norm": offset})
