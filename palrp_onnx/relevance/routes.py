"""From places of a site to units of the explained input, by the movement of tokens in the graph.

A place belongs to the entries of the explained input that the graph moved there. So its relevance
is moved back by the same adjoint movements as multipliers are, in the same language: for every
shape, and in both engines. Along axes that no unit runs along, and where several entries are merged
into one place (merged patches, strides, pools), each gets an equal share; every movement keeps the
sum. What arrives at entries of no unit (class tokens, padding) is off the map.

Most operations leave units where they are. Of several operands that have all the axes, the one that
was computed first is followed, which is the residual stream. So a route has steps only where places
move, and most routes have none.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import onnx_ir as ir

from palrp_onnx.analysis.axes import sample_place, stride
from palrp_onnx.analysis.dims import How, Link, index_entries
from palrp_onnx.analysis.input_axes import BATCH, InputAxes
from palrp_onnx.analysis.sites import SinkSite
from palrp_onnx.analysis.unit_axes import ends_of, links_in, unit_axes
from palrp_onnx.errors import UnsupportedError
from palrp_onnx.model.ops import MOVES, AxisRule, Trait, has, row_of
from palrp_onnx.relevance.plan import Plan, View, describe
from palrp_onnx.rules import Shares, find_rule
from palrp_onnx.rules.pooling import of_axis
from palrp_onnx.rules.resizing import along
from palrp_onnx.tensor.language import Language, Pooling

T = TypeVar("T")
Axes = tuple[int, ...]

#: Links whose entries stay where they are, if the lengths are equal.
_STAYING = (How.SAME, How.LOOSE, How.NORMALISED, How.ACCUMULATED, How.REPEATED)
#: Operations that only move entries, and interpolation, whose rule is the adjoint as well.
_MOVING = MOVES | Trait.JOIN | Trait.PAD | Trait.SCATTER | Trait.RESIZE
_WINDOWS = (AxisRule.CONVOLVED, AxisRule.POOLED)


@dataclass(frozen=True)
class Origin:
    """The part of a result that comes from one operand.

    Attributes:
        index: Index of the operand.
        axes: Axes of the operand that units run along.
        to: The value from which entries of these axes were only handed on until the operand.
        order: The axes in the order that they have in ``to``.
        share: Its share, where operands are joined along an axis that no unit runs along; else 1.
    """

    index: int
    axes: Axes
    to: ir.Value
    order: Axes
    share: float = 1.0


@dataclass(frozen=True)
class Move:
    """An operation that moves, merges or divides places.

    Attributes:
        value: Its result.
        axes: Axes of the result that units run along.
        origins: Where its entries come from.
        how: ``moved`` by the rule of a movement, ``windows`` or ``shared``.
    """

    value: ir.Value
    axes: Axes
    origins: tuple[Origin, ...]
    how: str


@dataclass(frozen=True)
class Route:
    """How the places of a site are moved back to the explained input.

    Attributes:
        start: Value whose axes the site has.
        batch: Its axis of samples, from the right.
        tokens: Its token axes, from the right.
        plain: Whether these are two axes, of which one holds samples alone.
        first: The value from which entries were only handed on until ``start``.
        order: The axes of ``start`` in the order that they have in ``first``.
        moves: Steps from ``first`` to the explained input.
        ends: Where the input is collected, each with the axes that units run along there.
        partial: Whether some places belong to no unit.
        signature: Equal for routes that do the same.
    """

    start: ir.Value
    batch: int
    tokens: Axes
    plain: bool
    first: ir.Value
    order: Axes
    moves: tuple[Move, ...]
    ends: tuple[tuple[ir.Value, Axes], ...]
    partial: bool
    signature: tuple[object, ...]


class Routes:
    """Finds the routes of sites to one explained input.

    Args:
        plan: The plan of the walk.
        explained: Name of the input.
    """

    def __init__(self, plan: Plan, explained: str) -> None:
        self._analysis = analysis = plan.analysis
        self._along = unit_axes(analysis, explained)
        self._ends = frozenset(ends_of(analysis, explained))
        self._at = {value: k for k, value in enumerate(analysis.content)}
        self._links: dict[ir.Value, tuple[Link, ...] | None] = {}
        self._known: dict[tuple[ir.Value, Axes], tuple[ir.Value, Axes]] = {}
        axes = analysis.input_axes(explained)
        source = next(v for v in analysis.model.graph.inputs if v.name == explained)
        self._samples = 1 if axes.batch is None else analysis.shapes[source][axes.batch]

    def __call__(self, site: SinkSite, tokens: Sequence[int]) -> Route | None:
        """The route of a site's places along token axes (from the right); ``None`` if unknown."""
        value, rank = site.along, len(site.axes)
        place = sample_place(site.axes, site.layout)
        own = [axis % rank for axis in tokens]
        if place.inner or place.between or not self._along.get(value, frozenset()).issuperset(own):
            return None
        batch = place.axis % rank
        axes = tuple(sorted({*own, *({batch} & self._along[value])}))
        first, order = self._settled(value, axes)
        found = self._moves(first, tuple(sorted(order)))
        if found is None:
            return None
        moves, ends, partial = found
        whole = self._analysis.shapes[value][batch] == self._samples
        plain = len(own) == 1 and axes == tuple(sorted((batch, *own))) and batch not in own
        return Route(
            start=value,
            batch=place.axis,
            tokens=tuple(tokens),
            plain=plain and whole,
            first=first,
            order=order,
            moves=tuple(moves),
            ends=tuple(ends),
            partial=partial,
            signature=(axes.index(batch) if plain else axes, *map(self._signature, moves)),
        )

    def _moves(
        self, first: ir.Value, axes: Axes
    ) -> tuple[list[Move], list[tuple[ir.Value, Axes]], bool] | None:
        """The steps from a value, later values first."""
        waiting, queue = {first: axes}, [(-self._at[first], first.name, first)]
        moves: list[Move] = []
        ends: list[tuple[ir.Value, Axes]] = []
        partial = False
        while queue:
            value = heapq.heappop(queue)[-1]
            own = waiting[value]
            if value in self._ends:
                ends.append((value, own))
                continue
            if (move := self._move(value, own)) is None:
                return None
            moves.append(move)
            partial = partial or self._drops(move)
            for origin in move.origins:
                arriving = tuple(sorted(origin.order))
                if waiting.setdefault(origin.to, arriving) != arriving:
                    return None
                entry = (-self._at[origin.to], origin.to.name, origin.to)
                if entry not in queue:
                    heapq.heappush(queue, entry)
        return moves, ends, partial

    # --- operations that hand entries on ----------------------------------------------------------
    def _settled(self, value: ir.Value, axes: Axes) -> tuple[ir.Value, Axes]:
        """The value from which entries along ``axes`` were only handed on, and these axes there."""
        path = []
        while (found := self._known.get((value, axes))) is None:
            onward = self._handed_on(value, axes)
            if onward is None:
                found = self._known[value, axes] = value, axes
                break
            path.append((value, axes))
            value, axes = onward
        self._known.update(dict.fromkeys(path, found))
        return found

    def _handed_on(self, value: ir.Value, axes: Axes) -> tuple[ir.Value, Axes] | None:
        """The operand whose entries along these axes a result has in the same places."""
        node = value.producer()
        if node is None or value in self._ends:
            return None
        fitting = self._fitting(node, value, axes)
        if has(node, Trait.JOIN):
            ways = {self._settled(operand, own) for _, operand, own in fitting}
            every = len(fitting) == sum(v in self._along for v in node.inputs)
            return next(iter(ways)) if every and len(ways) == 1 else None
        first = min(fitting, key=lambda each: self._at[each[1]], default=None)
        return None if first is None else first[1:]

    def _fitting(
        self, node: ir.Node, value: ir.Value, axes: Axes
    ) -> list[tuple[int, ir.Value, Axes]]:
        """Operands that have all of these axes, and move none that units run along."""
        found = []
        for index, operand in enumerate(node.inputs):
            if operand is None or operand not in self._along:
                continue
            same, moves = self._same(node, value, index, operand)
            if all(axis in same for axis in axes) and not moves.intersection((*axes, None)):
                found.append((index, operand, tuple(same[axis] for axis in axes)))
        return found

    def _same(
        self, node: ir.Node, value: ir.Value, index: int, operand: ir.Value
    ) -> tuple[dict[int, int], set[int | None]]:
        """Axes of a result that are axes of an operand, and axes along which entries are moved.

        ``None`` is among the latter where axes of the operand that units run along are moved.
        """
        if value not in self._links:
            self._links[value] = links_in(self._analysis, value)
        links, row = self._links[value], row_of(node)
        if links is None or (row.axes is AxisRule.LOOSE and has(node, _MOVING)):
            return {}, {None}
        same: dict[int, int] = {}
        moved: set[int | None] = set()
        for link in links:
            own = [k for i, k in link.axes if i == index and k is not None]
            pair = self._pair(node, link, value, operand, own)
            if pair is not None:
                same[pair[0]] = pair[1]
            elif own and not _ends(node, link):
                moved.update(link.results)
                if any(k in self._along[operand] for k in own):
                    moved.add(None)
        return same, moved

    def _pair(
        self, node: ir.Node, link: Link, value: ir.Value, operand: ir.Value, own: Sequence[int]
    ) -> tuple[int, int] | None:
        """The axes of result and operand, where entries of one stay where they are."""
        after, before = self._analysis.shapes[value], self._analysis.shapes[operand]
        if len(link.results) != 1 or len(own) != 1 or after[link.results[0]] != before[own[0]]:
            return None
        windows = link.how is How.POOLED and stride(node, own[0] - 2) == 1
        stays = link.how in _STAYING or link.how is How.REGROUPED or windows
        return (link.results[0], own[0]) if stays else None

    # --- operations that move places --------------------------------------------------------------
    def _move(self, value: ir.Value, axes: Axes) -> Move | None:
        """The step at a result whose operation does not only hand entries on."""
        node = value.producer()
        if node is None:
            return None
        if has(node, Trait.JOIN) and (fitting := self._fitting(node, value, axes)):
            along = node.attributes.get_int("axis", 0)
            sizes = [self._analysis.shapes[operand][along] for _, operand, _ in fitting]
            origins = [
                self._origin(index, operand, own, size / sum(sizes))
                for (index, operand, own), size in zip(fitting, sizes, strict=True)
            ]
            return Move(value, axes, tuple(origins), "shared")
        if has(node, _MOVING):
            origins = [
                self._origin(index, operand, self._before(node, value, axes, index, operand))
                for index, operand in enumerate(node.inputs)
                if operand in self._along
                and operand is not None
                and self._moves_operand(node, index)
            ]
            return Move(value, axes, tuple(origins), "moved") if origins else None
        operand = node.inputs[0]
        windows = row_of(node).axes in _WINDOWS and not has(node, Trait.REDUCTION)
        if windows and operand in self._along and operand is not None:
            whole = all(step == 1 for step in node.attributes.get_ints("dilations", ()))
            slides = whole and node.op_type != "ConvTranspose" and 1 not in axes
            origin = self._origin(0, operand, axes)
            return Move(value, axes, (origin,), "windows") if slides else None
        return None

    def _moves_operand(self, node: ir.Node, index: int) -> bool:
        return row_of(node).moves(index) or has(node, Trait.RESIZE)

    def _origin(self, index: int, operand: ir.Value, axes: Axes, share: float = 1.0) -> Origin:
        return Origin(index, axes, *self._settled(operand, axes), share)

    def _before(
        self, node: ir.Node, value: ir.Value, axes: Axes, index: int, operand: ir.Value
    ) -> Axes:
        """Axes of an operand whose entries along the axes of a result were moved."""
        same, _ = self._same(node, value, index, operand)
        gone = {own for axis, own in same.items() if axis not in axes}
        return tuple(sorted(self._along[operand] - gone))

    def _drops(self, move: Move) -> bool:
        """Whether some entries of a result come from no operand that units run along."""
        node = move.value.producer()
        assert node is not None
        if move.how != "moved" or not has(node, Trait.JOIN | Trait.PAD | Trait.SCATTER):
            return False
        if has(node, Trait.PAD):
            return True  # or else none is found to be missing
        parts = [v for k, v in enumerate(node.inputs) if self._moves_operand(node, k)]
        return len(move.origins) < len(parts)

    def _signature(self, move: Move) -> tuple[object, ...]:
        """What a step does, without the names of its values."""
        node, shapes = move.value.producer(), self._analysis.shapes
        assert node is not None
        entries = [
            None if found is None else (found.shape, found.tobytes())
            for v in node.inputs
            if v not in self._along and v is not None
            for found in [index_entries(v, self._analysis.indices) if move.how == "moved" else None]
        ]
        computed = None in entries and has(node, Trait.SELECT | Trait.SCATTER)
        origins = [
            (p.index, p.axes, p.order, p.share, *(shapes[node.inputs[p.index]][a] for a in p.axes))  # type: ignore[index]
            for p in move.origins
        ]
        return (
            node.op_type,
            str(sorted((k, str(v.value)) for k, v in node.attributes.items())),
            move.axes,
            tuple(shapes[move.value][a] for a in move.axes),
            tuple(entries),
            tuple(origins),
            node if computed else None,
        )


def _ends(node: ir.Node, link: Link) -> bool:
    """Whether entries along the axes of a link become one."""
    return link.how is How.SUMMED or (link.how is How.POOLED and has(node, Trait.REDUCTION))


# --- along a route --------------------------------------------------------------------------------
def to_input(
    op: Language[T],
    plan: Plan,
    values: Callable[[ir.Value], T],
    route: Route,
    tokens: T,
    axes: InputAxes,
    rows: int | None = None,
) -> T:
    """Numbers of the places of a site [B, T] as numbers of the explained input's entries.

    The sum stays the same, without the places that belong to no unit.

    Args:
        op: The tensor language.
        plan: The plan of the walk.
        values: Forward values, of which only shapes and indices are read.
        route: The route.
        tokens: The numbers.
        axes: Axes of the explained input.
        rows: See :func:`bring_to_tokens`.

    Returns:
        As :func:`bring_to_tokens` returns relevance: [B, T, 1], and for
        an image [B, 1, H, W].

    Raises:
        UnsupportedError: The rule of a movement does not cover this use of it.
    """
    if route.plain:
        sent = tokens if route.batch < route.tokens[0] else op.transpose(tokens, (1, 0))
    else:
        sent = op.unfold(tokens, values(route.start), route.batch, route.tokens)
    arrived = {route.first: _sorted(op, sent, route.order)}
    for move in route.moves:
        node = move.value.producer()
        assert node is not None
        view = View(plan, node, values)
        for origin, part in zip(
            move.origins, _back(op, view, node, move, arrived[move.value]), strict=True
        ):
            part = _sorted(op, part, origin.order)
            known = arrived.get(origin.to)
            arrived[origin.to] = part if known is None else op.add(known, part)
    found = [_at_end(op, values(v), arrived[v], own, axes, rows) for v, own in route.ends]
    total = found[0]
    for each in found[1:]:
        total = op.add(total, each)
    return total


def _sorted(op: Language[T], a: T, order: Axes) -> T:
    """Axes of ``a``, which are these axes of a value, in the order of that value."""
    perm = sorted(range(len(order)), key=lambda k: order[k])
    return a if perm == list(range(len(order))) else op.transpose(a, perm)


def _at_end(op: Language[T], value: T, a: T, own: Axes, axes: InputAxes, rows: int | None) -> T:
    """Numbers along some axes of the explained input, or of its lookup, for all of its entries."""
    rank = len(axes.flags) + axes.vectors
    whole = _among(op, a, own, rank)
    if any(flag and k not in own for k, flag in enumerate(axes.flags)):
        whole = _spread(op, whole, value)
    return bring_to_tokens(op, whole, axes, rows=rows)


def _among(op: Language[T], a: T, axes: Axes, rank: int) -> T:
    """The axes of ``a`` among those of a value of this rank; the others have length one."""
    return op.unsqueeze(a, [k for k in range(rank) if k not in axes])


def _spread(op: Language[T], a: T, like: T) -> T:
    """Equal shares along all axes of length one; the sum stays the same."""
    return op.mul(op.expand_like(a, like), op.mean_weight(like, a))


def _back(op: Language[T], view: View[T], node: ir.Node, move: Move, a: T) -> list[T]:
    """Numbers of a result for each operand that its entries come from, along their axes."""
    if move.how == "shared":
        return [op.scale(a, origin.share) for origin in move.origins]
    rank = view.result_rank(move.value)
    whole = _among(op, a, move.axes, rank)
    if move.how == "windows":
        for axis in move.axes:
            if axis > 1:
                matrix = op.averaging(op.wide(view.input(0)), axis, _windows(view, node, axis - 2))
                whole = along(op, whole, matrix, axis, rank)
        sent: Sequence[Any] = [whole]
    else:
        sent = _moved_back(op, view, node, move, _spread(op, whole, view.value(move.value)))
    found = []
    for origin in move.origins:
        rest = [k for k in range(view.rank(origin.index)) if k not in origin.axes]
        found.append(op.sum(sent[origin.index], rest, keepdims=False))
    return found


def _moved_back(
    op: Language[T], view: View[T], node: ir.Node, move: Move, whole: T
) -> Sequence[T | None]:
    """The adjoint of a movement, by its rule."""
    entry = find_rule(node.domain, node.op_type, view.opset)
    assert entry is not None
    m: Any = whole
    if entry.outputs == "all":
        m = tuple(whole if value is move.value else None for value in node.outputs)
    try:
        shares = entry.rule(op, view, m)
    except NotImplementedError as error:
        raise UnsupportedError(
            f"Places cannot be followed: the rule does not cover this: {error}",
            place=describe(node),
        ) from error
    return cast("Sequence[T | None]", shares.inputs if isinstance(shares, Shares) else shares)


def _windows(view: View[T], node: ir.Node, axis: int) -> Pooling:
    """The windows of a convolution or pooling along one spatial axis, as an average of entries."""
    kernel = node.attributes.get_ints("kernel_shape", ()) or view.shape(1)[2:]
    found: Mapping[str, Any] = of_axis(view, axis, kernel)
    return cast(Pooling, {**found, "count_include_pad": 0})


def bring_to_tokens(
    op: Language[T], relevance: T, axes: InputAxes, *, rows: int | None = None
) -> T:
    """Relevance of an explained input with these axes as [B, T, F]; of an image as [B, C, H, W].

    Entries along ``rows`` are among the tokens, T = rows × places; those of images stay apart.
    """
    flags = axes.flags
    if axes.channels is not None:
        order = (flags.index(BATCH), axes.channels, *axes.units)
        return relevance if order == (0, 1, 2, 3) else op.transpose(relevance, order)
    batch = flags.index(BATCH) if BATCH in flags else 0
    tokens = axes.units if rows is None else (rows, *axes.units)
    return op.arrange(relevance, batch_axis=batch, token_axes=tokens, feature_axes=axes.features)
