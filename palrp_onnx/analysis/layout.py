"""What the axes of a value run along: pieces, each a product of factors.

An axis is a sequence of pieces (from concatenations), and a piece is a product of factors (from
reshapes that merge axes), so that a reshape and its inverse restore the layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from palrp_onnx.analysis.dims import groups
from palrp_onnx.analysis.input_axes import BATCH, TOKEN
from palrp_onnx.types import Shape

#: Flags of every axis: ``BATCH``, ``TOKEN``, their union or 0.
Axes = tuple[int, ...]
#: Name of an explained input, and the index of one of its axes.
Source = tuple[str, int]


@dataclass(frozen=True)
class Factor:
    """``size`` entries of one kind.

    Attributes:
        size: Number of entries.
        flag: ``BATCH``, ``TOKEN``, their union or 0.
        source: The axis of an explained input that they run along, ``None`` where it is unknown.
        step: Number of entries along that axis for each entry here: the stride of convolutions.
        of: Length of the factor that this is a part of; 0 where it is whole, −1 where entries
            were removed.
        picks: How its entries were picked by computed indices.
    """

    size: int
    flag: int = 0
    source: Source | None = None
    step: int = 1
    of: int = 0
    picks: frozenset[Pick] = frozenset()


#: A product of factors in row-major order.
Piece = tuple[Factor, ...]
#: Concatenated pieces; none for an axis of length 1 along which nothing runs.
Axis = tuple[Piece, ...]
Layout = tuple[Axis, ...]


@dataclass(frozen=True)
class Pick:
    """Entries along axes that a computed index has picked.

    Attributes:
        index: Number of the index: see :func:`palrp_onnx.analysis.picked.numbered`.
        axes: What the axes run along.
        sizes: Their lengths.
        places: The places of the entries among those of the axes, in the trial run.
    """

    index: int
    axes: tuple[Axis, ...]
    sizes: tuple[int, ...]
    places: tuple[int, ...]


def factors(axis: Axis) -> Iterator[Factor]:
    """All factors of an axis."""
    return (factor for piece in axis for factor in piece)


def length(axis: Axis) -> int:
    """Entries of an axis."""
    return sum(prod(f.size for f in piece) for piece in axis) if axis else 1


def flag_of(axis: Axis) -> int:
    """``BATCH``, ``TOKEN``, their union or 0."""
    return united(factor.flag for factor in factors(axis))


def is_batch(axis: Axis) -> bool:
    """Whether nothing but samples runs along an axis."""
    rest = (f.size for f in factors(axis) if not f.flag & BATCH)
    return flag_of(axis) == BATCH and prod(rest) == 1


def sources(axis: Axis) -> frozenset[Source]:
    """Axes of explained inputs that an axis runs along."""
    return frozenset(f.source for f in factors(axis) if f.source is not None)


def axis_of(factor: Factor) -> Axis:
    """An axis of one factor."""
    return ((factor,),)


def foreign(size: int, flag: int = 0) -> Piece:
    """Entries that come from no explained input."""
    return (Factor(size, flag),) if size > 0 else ()


def opaque(axis: Axis, size: int) -> Factor:
    """Entries whose origin along an axis is unknown; a batch stays that batch."""
    found = {f.source for f in factors(axis) if f.source is not None and f.flag & BATCH}
    flag = flag_of(axis)
    source = next(iter(found)) if len(found) == 1 and flag == BATCH else None
    return Factor(size, flag, source, of=-1)


def with_picks(axis: Axis, others: Iterable[Axis]) -> Axis:
    """An axis of picked entries with what is known of them from axes that are aligned with it."""
    known = [other[0][0].picks for other in others if is_single(other)]
    picks = frozenset().union(*known)
    return axis_of(replace(axis[0][0], picks=picks)) if picks and is_single(axis) else axis


def is_single(axis: Axis) -> bool:
    """Whether an axis has one factor alone."""
    return len(axis) == 1 and len(axis[0]) == 1


def united(flags: Iterable[int]) -> int:
    """The union of flags."""
    found = 0
    for flag in flags:
        found |= flag
    return found


def part_of(axis: Axis, start: int, size: int) -> Axis:
    """Part of an axis: whole pieces as they are; of pieces that are cut, only the flag."""
    found: list[Piece] = []
    at = 0
    for piece in axis or ((Factor(1),),):
        stop = at + prod(f.size for f in piece)
        low, high = max(at, start), min(stop, start + size)
        if (low, high) == (at, stop):
            found.append(piece)
        elif low < high:
            found.append((opaque((piece,), high - low),))
        at = stop
    return tuple(found)


# --- reshapes ----------------------------------------------------------------------------------
def regroup(flags: Axes, before: Shape, after: Shape) -> Axes:
    """Flags of axes after a reshape: see :func:`regroup_layout`."""
    layout = tuple(axis_of(Factor(n, f)) for n, f in zip(before, flags, strict=True))
    return tuple(map(flag_of, regroup_layout(layout, before, after)))


def regroup_layout(layout: Layout, before: Shape, after: Shape) -> Layout:
    """Layout after a reshape: groups of axes with equal products, in row-major order."""
    found: list[Axis] = []
    for own, new in groups(before, after):
        sizes = before[own.start : own.stop], after[new.start : new.stop]
        found.extend(regrouped(layout[own.start : own.stop], *sizes))
    return tuple(found)


def regrouped(axes: Sequence[Axis], before: Sequence[int], after: Sequence[int]) -> list[Axis]:
    """Merge and split axes with equal products.

    Factors are distributed where they fit. Where they do not, the batch is the outermost new axis,
    and every later new axis longer than one runs over tokens (the outermost if there is none).
    """
    if len(before) == len(after) == 1:
        return list(axes)
    return distributed(_row(axes, before), after)


def _row(axes: Sequence[Axis], sizes: Sequence[int]) -> list[Factor]:
    """The factors of axes in row-major order; a concatenated axis is one factor."""
    found: list[Factor] = []
    for axis, size in zip(axes, sizes, strict=True):
        if len(axis) > 1:
            found.append(opaque(axis, size))
        else:
            found.extend(axis[0] if axis else [Factor(size)] if size != 1 else [])
    return found


def distributed(row: Sequence[Factor], sizes: Sequence[int]) -> list[Axis]:
    """Distribute factors over axes of these sizes."""
    if not sizes:
        return []
    queue, found = list(row), []
    for size in sizes:
        own: list[Factor] = []
        need = size
        if size == 1 and queue and queue[0].size == 1:
            own.append(queue.pop(0))
        elif size == 1 and queue and queue[0].flag == BATCH | TOKEN and queue[0].source is None:
            own.append(Factor(1, BATCH))
            queue[0] = replace(queue[0], flag=TOKEN)
        while need > 1:
            if not queue:
                return _spread(row, sizes)
            factor = queue.pop(0)
            if not factor.size:
                return _spread(row, sizes)
            if need % factor.size == 0:
                own.append(factor)
                need //= factor.size
            elif factor.size % need == 0:
                outer, inner = _divided(factor, need)
                own.append(outer)
                queue.insert(0, inner)
                need = 1
            else:
                return _spread(row, sizes)
        found.append(own)
    found[-1] += queue  # factors of size one
    return [(_merged(own),) if own else () for own in found]


def _divided(factor: Factor, outer: int) -> tuple[Factor, Factor]:
    """A factor as a product of ``outer`` and the remaining size."""
    inner = factor.size // outer
    of = factor.of or factor.size
    flag, inner_flag = factor.flag, factor.flag
    if factor.source is None and flag & BATCH:  # merged from unknown factors
        inner_flag = flag & ~BATCH
        flag = BATCH
    whole = replace(factor, of=of, picks=frozenset())
    one = replace(whole, size=outer, flag=flag, step=factor.step * inner)
    return one, replace(whole, size=inner, flag=inner_flag)


def _merged(row: Sequence[Factor]) -> Piece:
    """Merge neighbouring parts of one factor into that factor."""
    found: list[Factor] = []
    for factor in row:
        last = found[-1] if found else None
        same = last is not None and (last.source, last.of) == (factor.source, factor.of)
        if last is not None and same and factor.of > 0 and last.step == factor.step * factor.size:
            size = last.size * factor.size
            whole = 0 if size == factor.of else factor.of
            found[-1] = replace(factor, size=size, flag=last.flag | factor.flag, of=whole)
        elif last is not None and not last.flag and not factor.flag:
            found[-1] = Factor(last.size * factor.size)
        else:
            found.append(factor)
    return tuple(found)


def _spread(row: Sequence[Factor], sizes: Sequence[int]) -> list[Axis]:
    """Flags alone, where factors do not fit."""
    merged = united(f.flag for f in row)
    flags = [0] * len(sizes)
    tokens = list(range(len(sizes)))
    if merged & BATCH:
        flags[0] |= BATCH
        tokens = tokens[1:] or tokens
    if merged & TOKEN:
        for k in [k for k in tokens if sizes[k] > 1] or tokens[:1]:
            flags[k] |= TOKEN
    return [axis_of(Factor(n, f, of=-1)) for n, f in zip(sizes, flags, strict=True)]
