"""Operations that only move numbers: the adjoint movement.

All are linear with entries 0 and 1: m_x[i] is the sum of m over the places that entry i was moved
to. Unless a rule says so, nothing goes to the ledger. Shapes: x and m_x have one shape, y and m
another. Source: ε-rule with ε → 0 (Bach et al. 2015, eq. 58).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from palrp_onnx.rules.registry import Node, Shares, T, given, rule
from palrp_onnx.tensor.language import Language, Movement


@rule("Dropout")
def dropout(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m: nothing is dropped outside of training."""
    if node.has(2) and any(node.integers(2)):
        raise NotImplementedError("training mode")
    return m, *(None,) * (node.arity - 1)


@rule("Identity", "Cast")
def unchanged(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m. A cast between real types rounds; the rounding is passed straight through."""
    return op.cast_like(m, node.input(0)), *(None,) * (node.arity - 1)


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m in the shape of x."""
    return op.reshape_like(m, node.input(0)), *(None,) * (node.arity - 1)


@rule("Transpose")
def transpose(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m with the axes permuted back."""
    rank = node.rank(0)
    perm = node.attribute("perm", tuple(reversed(range(rank))))
    return (op.transpose(m, sorted(range(rank), key=lambda k: perm[k])),)


@rule("Concat")
def concat(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_i = the piece of m that came from operand i."""
    parts = [node.input(i) for i in range(node.arity)]
    return op.split_like(m, parts, node.attribute("axis", 0))


@rule("Split", outputs="all")
def split(op: Language[T], node: Node[T], m: Sequence[T | None]) -> Sequence[T | None]:
    """m_x = the multipliers of the pieces joined, zeros for a piece that has none."""
    pieces = [
        piece if piece is not None else op.zeros_like(node.output(i)) for i, piece in enumerate(m)
    ]
    return op.concat(pieces, node.attribute("axis", 0)), *(None,) * (node.arity - 1)


@rule("Slice", since=10)
def slice_(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m where the slice was taken, zero elsewhere."""
    axes = node.input(3) if node.has(3) else None
    steps = node.input(4) if node.has(4) else None
    sent = op.slice_adjoint(m, node.input(0), node.input(1), node.input(2), axes, steps)
    return sent, *(None,) * (node.arity - 1)


@rule("Expand")
def expand(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = the sum over the copies."""
    return op.sum_to(m, node.input(0)), None


@rule("Tile")
def tile(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = the sum over the copies."""
    return op.tile_adjoint(m, node.input(0)), None


@rule("Pad", since=11)
def pad(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
    """m_x = m without the padding, zero where x was cropped; repeated entries add up.

    Ledger: the relevance of padding with a number other than zero, Σ y ∘ m − Σ x ∘ m_x, under
    ``bias``.
    """
    rest = (None,) * (node.arity - 1)
    mode = node.attribute("mode", "constant")
    axes = node.input(3) if node.has(3) else None
    if mode != "constant":
        operands = [node.input(1)] if axes is None else [node.input(1), None, axes]
        return _moved(op, node, m, operands, {"mode": mode}, repeats=True), *rest
    sent = op.pad_adjoint(m, node.input(0), node.input(1), axes)
    if node.has(2) and node.number(2) != 0:
        whole, own = op.relevance(node.output(), m), op.relevance(node.input(0), sent)
        padded = _padded_axes(node)
        return Shares((sent, *rest), {"bias": op.sub(op.sum(whole, padded), op.sum(own, padded))})
    return sent, *rest


def _padded_axes(node: Node[T]) -> list[int]:
    """Axes whose length changes."""
    pads, rank = node.integers(1), node.rank(0)
    axes = node.integers(3) if node.has(3) else range(rank)
    ends = zip(axes, pads, pads[len(pads) // 2 :], strict=False)
    return sorted(axis % rank for axis, begin, end in ends if begin or end)


@rule("Pad", since=2)
def pad_with_attributes(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """As :func:`pad`, with the padding as an attribute."""
    if node.attribute("value", 0.0) != 0:
        raise NotImplementedError("padding with a number that is not zero")
    attributes = given(node, "mode", "pads")
    return (_moved(op, node, m, [], attributes, repeats=attributes.get("mode") != "constant"),)


@rule("DepthToSpace", "SpaceToDepth")
def blocks(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m moved back between channels and places."""
    return (_moved(op, node, m, [], given(node, "blocksize", "mode")),)


@rule("ReverseSequence")
def reverse_sequence(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m, reversed in the same way."""
    attributes = given(node, "batch_axis", "time_axis")
    return _moved(op, node, m, [node.input(1)], attributes), None


@rule("Compress")
def compress(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m where entries were selected, zero elsewhere."""
    if node.attribute("axis", None) is None:
        raise NotImplementedError("entries of the flattened input, which mixes samples")
    return _moved(op, node, m, [node.input(1)], given(node, "axis")), None


@rule("CenterCropPad")
def center_crop_pad(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m in the middle of x, zero where x was cropped."""
    return _moved(op, node, m, [node.input(1)], given(node, "axes")), None


def _moved(
    op: Language[T],
    node: Node[T],
    m: T,
    operands: Sequence[T | None],
    attributes: Mapping[str, Any],
    *,
    repeats: bool = False,
) -> T:
    """``m`` moved back to where the node took it from."""
    movement = Movement(node.op_type, node.opset, attributes, repeats)
    return op.moved_adjoint(m, node.input(0), movement, operands)


@rule("Gather")
def gather(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x[i] = the sum of m over the places where row i was looked up."""
    axis = node.attribute("axis", 0)
    return op.gather_adjoint(m, node.input(0), node.input(1), axis), None


@rule("GatherElements")
def gather_elements(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x[i] = the sum of m over the places where entry i was looked up."""
    axis = node.attribute("axis", 0)
    return op.gather_elements_adjoint(m, node.input(0), node.input(1), axis), None


@rule("TopK")
def top_k(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x[i] = m where entry i was put among the largest (or smallest), zero elsewhere.

    Shapes: x and m_x have one shape; y, m and the second output, the indices of the entries along
    ``axis``, another. Which of equal entries is taken is the runtime's choice.
    """
    axis = node.attribute("axis", -1)
    sent = op.gather_elements_adjoint(m, node.input(0), node.output(1), axis)
    return sent, *(None,) * (node.arity - 1)


@rule("GatherND")
def gather_nd(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x[i] = the sum of m over the places where slice i was looked up."""
    batch_dims = node.attribute("batch_dims", 0)
    return op.gather_nd_adjoint(m, node.input(0), node.input(1), batch_dims), None


@rule("ScatterND")
def scatter_nd(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_data = m with zeros where updates were written, m_updates = m at these places.

    Where updates are added, m_data = m. Ledger: the relevance of constant updates, under ``bias``.
    """
    index = node.input(1)
    rest = m if _adds(node) else op.scatter_nd_cleared(m, index)
    return _updated(op, node, m, rest, op.gather_nd(m, index))


@rule("ScatterElements")
def scatter_elements(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_data = m with zeros where updates were written, m_updates = m at these places.

    Where updates are added, m_data = m. Ledger: the relevance of constant updates, under ``bias``.
    """
    index, axis = node.input(1), node.attribute("axis", 0)
    rest = m if _adds(node) else op.scatter_elements_cleared(m, index, axis)
    return _updated(op, node, m, rest, op.gather_elements(m, index, axis))


def _adds(node: Node[T]) -> bool:
    """Whether updates are added to the data instead of replacing it."""
    reduction = node.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise NotImplementedError("updates that are multiplied or compared")
    return bool(reduction == "add")


def _updated(op: Language[T], node: Node[T], m: T, data: T, updates: T) -> Shares[T]:
    """Multipliers of the data and of the updates; constant updates are absorbed instead."""
    if node.active(2):
        return Shares((data, None, updates))
    constant = op.sub(op.relevance(node.output(), m), op.relevance(node.input(0), data))
    return Shares((data, None, None), {"bias": constant})


@rule("Trilu")
def triangle(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m inside the triangle, zero outside."""
    k = node.integers(1)[0] if node.has(1) else 0
    sent = op.triangle(m, k, upper=bool(node.attribute("upper", 1)))
    return sent, *(None,) * (node.arity - 1)
