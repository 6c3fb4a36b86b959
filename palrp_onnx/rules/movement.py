"""Operations that only move numbers: the adjoint movement. Nothing is lost.

All are linear with entries 0 and 1: m_x[i] is the sum of m over the places entry i was moved to.
"""

from __future__ import annotations

from collections.abc import Sequence

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language


@rule("Dropout")
def dropout(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m: nothing is dropped outside of training."""
    if node.has(2) and any(node.integers(2)):
        raise NotImplementedError("training mode")
    return m, *(None,) * (node.arity - 1)


@rule("Identity", "Cast", "CastLike")
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
    """Every part receives its piece of m."""
    parts = [node.input(i) for i in range(node.arity)]
    return op.split_like(m, parts, node.attribute("axis", 0))


@rule("Split", outputs="all")
def split(op: Language[T], node: Node[T], m: Sequence[T | None]) -> Sequence[T | None]:
    """m_x = the pieces joined, zeros for pieces that nothing reached."""
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
def pad(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m without the padding, zero where it cropped. Only padding with zeros is linear."""
    if node.attribute("mode", "constant") != "constant":
        raise NotImplementedError("padding that repeats content")
    if node.has(2) and node.number(2) != 0:
        raise NotImplementedError("padding with a number that is not zero")
    axes = node.input(3) if node.has(3) else None
    sent = op.pad_adjoint(m, node.input(0), node.input(1), axes)
    return sent, *(None,) * (node.arity - 1)


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


@rule("GatherND")
def gather_nd(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x[i] = the sum of m over the places where slice i was looked up."""
    batch_dims = node.attribute("batch_dims", 0)
    return op.gather_nd_adjoint(m, node.input(0), node.input(1), batch_dims), None


@rule("ScatterND")
def scatter_nd(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_data = m with zeros where updates were written, m_updates = m there.

    Constant updates absorb what is there, like a bias.
    """
    if node.attribute("reduction", "none") != "none":
        raise NotImplementedError("ScatterND that reduces")
    index = node.input(1)
    kept = op.scatter_nd_keep(m, index)
    if node.active(2):
        return Shares((kept, None, op.gather_nd(m, index)))
    return Shares((kept, None, None), {"bias": op.relevance(node.output(), op.sub(m, kept))})


@rule("ScatterElements")
def scatter_elements(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_data = m with zeros where updates were written, m_updates = m there.

    Constant updates absorb what is there, like a bias.
    """
    if node.attribute("reduction", "none") != "none":
        raise NotImplementedError("ScatterElements that reduces")
    index, axis = node.input(1), node.attribute("axis", 0)
    kept = op.scatter_elements_keep(m, index, axis)
    if node.active(2):
        return Shares((kept, None, op.gather_elements(m, index, axis)))
    return Shares((kept, None, None), {"bias": op.relevance(node.output(), op.sub(m, kept))})


@rule("Trilu")
def triangle(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m inside the triangle, zero outside."""
    k = node.integers(1)[0] if node.has(1) else 0
    sent = op.keep_triangle(m, k, upper=bool(node.attribute("upper", 1)))
    return sent, *(None,) * (node.arity - 1)
