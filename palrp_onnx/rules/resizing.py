"""Images of another size: interpolation is linear, with one matrix for every axis.

Nothing goes to the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from palrp_onnx.rules.registry import Node, T, given, rule
from palrp_onnx.tensor.language import Interpolation, Language

_RESIZING = (
    "antialias",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "mode",
    "nearest_mode",
)


@rule("Resize", since=11)
def resize(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """y = A x along every axis: m_x = Aᵀ m along every axis.

    Shapes: x [*S], m [*S'], A [S', S] for an axis of S places. Source: ε-rule with ε → 0 (Bach et
    al. 2015, eq. 58).
    """
    places = node.attribute("coordinate_transformation_mode", "half_pixel")
    if places == "tf_crop_and_resize":
        raise NotImplementedError("resizing of a region")
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotImplementedError("resizing that keeps the aspect ratio")
    rank = node.rank(0)
    named = node.attribute("axes", None)
    scales = node.reals(2) if node.has(2) else ()
    if places == "align_corners" and any(scale % 1.0 for scale in scales):
        raise NotImplementedError("aligned corners with a rounded length, where runtimes differ")
    # Sizes do not say which axes keep their length; the batch always does.
    axes = range(0 if scales else 1, rank) if named is None else named
    factors = scales or (None,) * len(axes)
    how = cast(Interpolation, given(node, *_RESIZING))
    sent = _resized(op, node, m, dict(zip(axes, factors, strict=True)), how)
    return sent, *(None,) * (node.arity - 1)


def _resized(
    op: Language[T],
    node: Node[T],
    m: T,
    factors: Mapping[int, float | None],
    how: Interpolation,
) -> T:
    """Aᵀ m along each of these axes, the last first; an axis with the factor 1 is unchanged."""
    rank = node.rank(0)
    for axis, factor in sorted((axis % rank, factor) for axis, factor in factors.items())[::-1]:
        if factor != 1.0:
            matrix = op.interpolation(node.input(0), node.output(), axis, factor, how)
            m = along(op, m, matrix, axis, rank)
    return m


def along(op: Language[T], m: T, matrix: T, axis: int, rank: int) -> T:
    """Aᵀ m along one axis; A [entries of y, entries of x]."""
    if axis == rank - 1:
        return op.matmul(m, matrix)
    if axis == rank - 2:
        return op.matmul(matrix, m, transpose_a=True)
    order = [a for a in range(rank) if a != axis] + [axis]
    moved = op.matmul(op.transpose(m, order), matrix)
    return op.transpose(moved, sorted(range(rank), key=lambda a: order[a]))
