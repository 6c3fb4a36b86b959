"""Linear layers with weights in the file: the transposed linear map; the bias goes to the books."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language


@rule("Gemm")
def gemm(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = α A' B' + β C: m_A = α m B'ᵀ (transposed back), ½ each between activations, m_C = β m.

    Shapes: A' [M, K], B' [K, N], m [M, N]. Source: ε-rule with ε → 0. Where only C is an activation
    the constant α A' B' is absorbed like a bias.
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
    """m_x = the transposed convolution of m; R_bias = b ∘ m is absorbed.

    Shapes: x [B, C, *S], weight [O, C/group, *K], m [B, O, *S']. Source: ε-rule with ε → 0.
    """
    return _with_bias(
        op, node, m, op.conv_adjoint(m, node.input(1), node.input(0), **_window(node))
    )


@rule("ConvTranspose")
def transposed_convolution(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = the convolution of m with the same weights; R_bias = b ∘ m is absorbed.

    Shapes: x [B, C, *S], weight [C, O/group, *K], m [B, O, *S']. Source: ε-rule with ε → 0.
    """
    if node.attribute("output_shape", None) is not None:
        raise NotImplementedError("padding that depends on the size")
    return _with_bias(op, node, m, op.conv(m, node.input(1), **_window(node)))


def _window(node: Node[T]) -> dict[str, Any]:
    """How the window of a convolution moves."""
    if node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotImplementedError("auto_pad that depends on the size")
    rank = node.rank(1) - 2
    return {
        "strides": node.attribute("strides", (1,) * rank),
        "pads": node.attribute("pads", (0,) * 2 * rank),
        "dilations": node.attribute("dilations", (1,) * rank),
        "group": node.attribute("group", 1),
    }


def _with_bias(op: Language[T], node: Node[T], m: T, sent: T) -> Shares[T]:
    """``sent`` to the image; what the bias [O] adds is absorbed."""
    if not node.has(2):
        return Shares((sent, None))
    bias = op.unsqueeze(node.input(2), range(1, node.rank(1) - 1))
    return Shares((sent, None, None), {"bias": op.mul(m, bias)})


_RESIZING = (
    "antialias",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "mode",
    "nearest_mode",
)


@rule("Resize", since=13)
def resize(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = A x along every axis of the plane: m_x = Aᵀ m. Interpolation is linear and separable.

    Shapes: x [B, C, *S], m [B, C, *S'] with one or two axes in S, A [S', S] what the operation
    makes of an identity matrix. Source: ε-rule with ε → 0.
    """
    rank = node.rank(0)
    attributes = {k: v for k in _RESIZING if (v := node.attribute(k, None)) is not None}
    if rank not in (3, 4) or node.attribute("axes", None) is not None:
        raise NotImplementedError("along other axes than those of a plane")
    if node.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise NotImplementedError("of a region")
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotImplementedError("that keeps the ratio of the sides")
    scales = node.reals(2) if node.has(2) else ()
    for axis in range(2, rank):
        scale = scales[axis] if scales else None
        matrix = op.interpolation(node.input(0), node.output(), axis, scale, attributes)
        last = axis == rank - 1
        m = op.matmul(m, matrix) if last else op.matmul(matrix, m, transpose_a=True)
    return m, *(None,) * (node.arity - 1)


@rule("BatchNormalization")
def batch_normalization(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = γ (x − μ)/√(σ² + ε) + β, statistics stored: m_x = γ m / √(σ² + ε); the rest is booked.

    Shapes: x, m [B, C, *S]; γ, β, μ, σ² [C]. Source: ε-rule on an affine map.
    """
    if node.attribute("training_mode", 0):
        raise NotImplementedError("statistics of the batch")
    axes = range(1, node.rank(0) - 1)
    gamma, variance = op.unsqueeze(node.input(1), axes), op.unsqueeze(node.input(4), axes)
    deviation = op.power(op.shift(variance, node.attribute("epsilon", 1e-5)), 0.5)
    sent = op.mul(m, op.div(gamma, deviation))
    offset = op.sub(op.mul(m, node.output()), op.mul(sent, node.input(0)))
    return Shares((sent, None, None, None, None), {"norm": offset})
