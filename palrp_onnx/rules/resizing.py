"""Images of another size: interpolation is linear, and every axis has a matrix of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palrp_onnx.rules.registry import Node, T, given, rule
from palrp_onnx.tensor.language import Language

_RESIZING = (
    "antialias",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "mode",
    "nearest_mode",
)
#: What the first forms of ``Resize`` and ``Upsample`` had no attributes for.
_FIRST_FORM = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@rule("Resize", since=11)
def resize(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = A x along every axis: m_x = Aᵀ m. Interpolation is linear and separable.

    Shapes: x [*S], m [*S'], A [S', S] of an axis what the operation makes of an identity matrix.
    Source: ε-rule with ε → 0.
    """
    places = node.attribute("coordinate_transformation_mode", "half_pixel")
    if places == "tf_crop_and_resize":
        raise NotImplementedError("of a region")
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotImplementedError("that keeps the ratio of the sides")
    rank = node.rank(0)
    named = node.attribute("axes", None)
    scales = node.reals(2) if node.has(2) else ()
    if places == "align_corners" and any(scale % 1.0 for scale in scales):
        raise NotImplementedError("to a rounded length between corners, where runtimes differ")
    # Lengths alone do not tell which axes stay; that of the samples always does.
    axes = range(0 if scales else 1, rank) if named is None else named
    factors = scales or (None,) * len(axes)
    sent = _shrunk(op, node, m, dict(zip(axes, factors, strict=True)), given(node, *_RESIZING))
    return sent, *(None,) * (node.arity - 1)


@rule("Upsample", since=7)
@rule("Resize", since=10)
def upsample(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = A x along every axis: m_x = Aᵀ m. Places are counted from the first, and rounded down.

    Shapes: as of :func:`resize`. Source: ε-rule with ε → 0.
    """
    scales = node.reals(1) if node.arity > 1 else node.attribute("scales", ())
    if min(scales) < 1.0:
        raise NotImplementedError("that makes smaller")
    attributes = {"mode": node.attribute("mode", "nearest"), **_FIRST_FORM}
    sent = _shrunk(op, node, m, dict(enumerate(scales)), attributes)
    return sent, *(None,) * (node.arity - 1)


def _shrunk(
    op: Language[T],
    node: Node[T],
    m: T,
    factors: Mapping[int, float | None],
    attributes: Mapping[str, Any],
) -> T:
    """Aᵀ m along each of these axes, the last first; a factor of 1 leaves an axis as it is."""
    rank = node.rank(0)
    for axis, factor in sorted((axis % rank, factor) for axis, factor in factors.items())[::-1]:
        if factor != 1.0:
            matrix = op.interpolation(node.input(0), node.output(), axis, factor, attributes)
            m = along(op, m, matrix, axis, rank)
    return m


def along(op: Language[T], m: T, matrix: T, axis: int, rank: int) -> T:
    """Aᵀ m along one axis, A [entries of the result, entries of x]."""
    if axis == rank - 1:
        return op.matmul(m, matrix)
    if axis == rank - 2:
        return op.matmul(matrix, m, transpose_a=True)
    order = [a for a in range(rank) if a != axis] + [axis]
    moved = op.matmul(op.transpose(m, order), matrix)
    return op.transpose(moved, sorted(range(rank), key=lambda a: order[a]))
