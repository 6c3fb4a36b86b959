"""Which axes of a content value run over the batch and over tokens, and which tokens they hold.

Axes are followed from the explained inputs through the graph with the shapes of one trial run. So
static and dynamic axes work alike, and nothing is guessed from sizes. What an axis is made of is in
:mod:`palrp_onnx.analysis.layout`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.analysis.content import dependencies, routed_values
from palrp_onnx.analysis.dims import How, Link, OperandAxis, index_entries, links_of
from palrp_onnx.analysis.input_axes import BATCH as BATCH
from palrp_onnx.analysis.input_axes import TOKEN as TOKEN
from palrp_onnx.analysis.input_axes import InputAxes
from palrp_onnx.analysis.inputs import InputRoles, from_entries
from palrp_onnx.analysis.layout import (
    Axes,
    Axis,
    Factor,
    Layout,
    Pick,
    Piece,
    Source,
    axis_of,
    distributed,
    factors,
    flag_of,
    foreign,
    is_batch,
    is_single,
    length,
    opaque,
    part_of,
    regroup,
    regrouped,
    sources,
    united,
    with_picks,
)
from palrp_onnx.analysis.picked import (
    gathered_places,
    numbered,
    repeated_places,
    scattered_places,
)
from palrp_onnx.model.follow import from_inputs
from palrp_onnx.model.ops import SAME_NUMBERS, Trait, has
from palrp_onnx.types import Shape


@dataclass(frozen=True)
class Mixing:
    """Why entries along the batch are not separate.

    Attributes:
        reason: What combines them.
        alone: Whether a batch of one sample can still be explained.
        sources: The axes of explained inputs whose entries are combined; none where unknown.
    """

    reason: str
    alone: bool
    sources: frozenset[Source] = frozenset()


@dataclass(frozen=True)
class Layouts:
    """What the axes of every content value run along.

    Attributes:
        layouts: Content value → what each of its axes runs along.
        mixing: Values in which entries along the batch are combined.
        same: Axis of an explained input → the representative of the axes that are aligned with it.
        ragged: Values with rows of several samples in one axis, how many of each and in what order
            only a run shows. Their samples have to be explained one at a time.
    """

    layouts: Mapping[ir.Value, Layout]
    mixing: Mapping[ir.Value, Mixing]
    same: Mapping[Source, Source]
    ragged: frozenset[ir.Value] = frozenset()

    def flags(self, batches: Collection[Source] | None = None) -> dict[ir.Value, Axes]:
        """Flags of every axis.

        Args:
            batches: Representatives of the axes that count as a batch; by default all do. Further
                batches are rows of units.
        """

        def flag_in(factor: Factor) -> int:
            if batches is None or factor.source is None or not factor.flag & BATCH:
                return factor.flag
            return factor.flag if self.canonical(factor.source) in batches else TOKEN

        return {
            value: tuple(united(flag_in(f) for f in factors(axis)) for axis in layout)
            for value, layout in self.layouts.items()
        }

    def canonical(self, source: Source) -> Source:
        """The representative of an axis of an explained input."""
        return self.same.get(source, source)

    def batch(self, value: ir.Value, axis: int = 0) -> Source | None:
        """The batch that an axis of a value runs along, if it is exactly one."""
        layout = self.layouts.get(value, ())
        found = {
            self.canonical(f.source)
            for f in (factors(layout[axis]) if layout else ())
            if f.source is not None and f.flag & BATCH
        }
        return next(iter(found)) if len(found) == 1 else None

    def along(self, value: ir.Value, batch: Source) -> int | None:
        """The axis of a value that runs along a batch alone, if there is one."""
        layout = self.layouts.get(value, ())
        pure = (k for k, axis in enumerate(layout) if is_batch(axis))
        return next((k for k in pure if self.batch(value, k) == batch), None)

    def keeps(self, value: ir.Value, batch: Source) -> bool:
        """Whether a value has an axis for the samples of a batch, as far as is known."""
        return self.starts_with(value, batch) or self.along(value, batch) is not None

    def starts_with(self, value: ir.Value, batch: Source) -> bool:
        """Whether the first axis of a value runs along a batch, or along an unknown one."""
        layout = self.layouts.get(value, ())
        if not layout or (found := self.batch(value)) not in (batch, None):
            return False
        return is_batch(layout[0]) if found else bool(flag_of(layout[0]) & BATCH)

    def crossed(self, value: ir.Value) -> bool:
        """Whether two axes of a value run over batches."""
        return sum(bool(flag_of(axis) & BATCH) for axis in self.layouts.get(value, ())) > 1


def find_layouts(
    graph: ir.Graph,
    roles: InputRoles,
    content: Mapping[ir.Value, None],
    shapes: Mapping[ir.Value, Shape],
    indices: Mapping[str, NDArray[Any]],
    known: Mapping[str, InputAxes],
) -> Layouts:
    """Follow the axes of the explained inputs to every content value.

    Args:
        graph: The plain graph.
        roles: Roles of its inputs.
        content: Content values in topological order.
        shapes: Shapes of a trial run.
        indices: Integer and boolean values of that run by name.
        known: Axes of every explained input.
    """
    follower = _Follower(graph, shapes, indices, content)
    for value in graph.inputs:
        if value in content:
            follower.begin([value], value.name or "", known[value.name or ""])
    for node in graph:
        outputs = [v for v in node.outputs if v in content]
        if node in roles.lookups:
            name = roles.lookups[node]
            follower.begin(outputs, name, known[name])
        elif outputs:
            follower.follow(node, outputs)
    return follower.result()


class _Follower:
    """Layouts of content values, node by node in topological order."""

    def __init__(
        self,
        graph: ir.Graph,
        shapes: Mapping[ir.Value, Shape],
        indices: Mapping[str, NDArray[Any]],
        content: Mapping[ir.Value, None],
    ) -> None:
        self._graph = graph
        self._shapes = shapes
        self._indices = indices
        self._routed = routed_values(graph, content)
        self._fed = dependencies(graph, [v.name or "" for v in graph.inputs])
        self._layouts: dict[ir.Value, Layout] = {}
        self._mixing: dict[ir.Value, Mixing] = {}
        self._ragged: set[ir.Value] = set()
        self._parents: dict[Source, Source] = {}
        self._node: ir.Node | None = None
        self._output: ir.Value | None = None

    def result(self) -> Layouts:
        same = {source: self._canonical(source) for source in self._parents}
        return Layouts(self._layouts, self._mixing, same, frozenset(self._ragged))

    def begin(self, values: Iterable[ir.Value], name: str, axes: InputAxes) -> None:
        """Layout of an input or its lookup: the input's own axes, then those of looked-up rows."""
        for value in values:
            shape = self._shapes[value]
            flags = (*axes.flags, *(0,) * len(shape))[: len(shape)]
            self._layouts[value] = tuple(
                axis_of(Factor(size, flag, (name, k) if flag else None))
                for k, (size, flag) in enumerate(zip(shape, flags, strict=True))
            )

    def follow(self, node: ir.Node, outputs: Iterable[ir.Value]) -> None:
        """Find the layouts of results of ``node``."""
        self._node = node
        for value in outputs:
            self._output = value
            layout = self._propagate(node, value)
            self._layouts[value] = self._sized(layout, self._shapes[value])

    def _sized(self, layout: Layout, shape: Shape) -> Layout:
        """The layout with the lengths of the trial run; an axis that differs is opaque."""
        if len(layout) != len(shape):
            layout = _fit(layout, shape)
        return tuple(
            axis if length(axis) == size else axis_of(opaque(axis, size))
            for axis, size in zip(layout, shape, strict=True)
        )

    def _mixed(self, reason: str, axes: Iterable[Axis], *, alone: bool = True) -> None:
        """Store that the entries of the batches that run along ``axes`` are combined."""
        assert self._output is not None
        batches = {f.source for axis in axes for f in factors(axis) if f.flag & BATCH}
        known = self._mixing.get(self._output, Mixing(reason, alone))
        own = frozenset(source for source in batches if source is not None)
        self._mixing[self._output] = replace(
            known, alone=known.alone and alone, sources=known.sources | own
        )

    def _note_ragged(self) -> None:
        assert self._output is not None
        self._ragged.add(self._output)

    # --- aligned axes -------------------------------------------------------------------------
    def _canonical(self, source: Source) -> Source:
        while (parent := self._parents.get(source, source)) != source:
            source = parent
        return source

    def _join(self, axes: Sequence[Axis]) -> None:
        """Join axes that an operation aligns entry by entry, where their factors agree."""
        for other in axes[1:]:
            own, theirs = list(factors(axes[0])), list(factors(other))
            for flag in (BATCH, TOKEN):
                self._join_factors(
                    [f for f in own if f.flag & flag], [f for f in theirs if f.flag & flag]
                )

    def _join_factors(self, own: Sequence[Factor], theirs: Sequence[Factor]) -> None:
        if [(f.size, f.step, f.of) for f in own] != [(f.size, f.step, f.of) for f in theirs]:
            return
        for one, other in zip(own, theirs, strict=True):
            if one.source is not None and other.source is not None:
                first, second = self._canonical(one.source), self._canonical(other.source)
                self._parents[second] = self._parents[first] = first

    # --- operations ---------------------------------------------------------------------------
    def _propagate(self, node: ir.Node, output: ir.Value) -> Layout:
        """The layout of a result, link by link."""
        if not any(self._layouts.get(v) for v in node.inputs if v is not None):
            return ()  # content only as a scalar, or inside a subgraph
        links = links_of(node, output, self._shapes, self._index)
        if links is None:
            self._check_unknown(node, self._operand(node, 0)[1:])
            return _fit(self._operand(node, 0), self._shapes[output])
        found: dict[int, Axis] = {}
        for link in links:
            axes = self._read(node, output, link)
            found.update(zip(link.results, axes, strict=True))
        return tuple(found[k] for k in sorted(found))

    def _read(self, node: ir.Node, output: ir.Value, link: Link) -> Sequence[Axis]:
        """The axes of a result that a link describes."""
        after = self._shapes[output]
        sizes = [after[k] for k in link.results]
        match link.how:
            case How.NEW:
                return [axis_of(Factor(size)) for size in sizes]
            case How.REGROUPED:
                return regrouped(self._axes(node, link), self._sizes(node, link), sizes)
            case How.REPEATED:
                return [self._repeated(node, link, sizes[0])]
            case How.CUT:
                return [self._cut(node, link, output)]
            case How.JOINED:
                return [self._joined(node, link, sizes[0])]
            case How.SELECTED if node.op_type == "GatherElements":
                self._mix_along(node, link, "entries are picked along the batch")
                return [axis_of(opaque(axis, sizes[0])) for axis in self._axes(node, link)]
            case How.SELECTED if _at(node, 1) in self._routed:
                return self._routed_rows(node, link, sizes)
            case How.SELECTED if node.op_type == "Gather":
                return self._gathered(node, link, sizes)
            case How.SELECTED:
                return self._gathered_nd(node, link, sizes)
            case How.SCATTERED:
                return self._scattered(node, link, sizes)
            case How.LOOSE if 0 not in link.results:
                self._check_unknown(node, self._axes(node, link))
            case How.SUMMED:
                return self._summed(node, link)
            case How.POOLED:
                (axis,), (was,) = self._axes(node, link), self._sizes(node, link)
                self._mix_along(node, link, "windows cover several samples of the batch")
                return [_pooled(axis, was, sizes[0], stride(node, link.results[0] - 2))]
            case How.CHOSEN:
                self._mix_along(node, link, f"{node.op_type} chooses along the batch")
                return [axis_of(opaque(axis, sizes[0])) for axis in self._axes(node, link)]
            case How.NORMALISED:
                self._mix_along(node, link, f"{node.op_type} runs along the batch")
            case How.ACCUMULATED:
                self._mix_along(node, link, "it is summed up along the batch")
        return [self._combined([a for a in self._axes(node, link) if a], size) for size in sizes]

    def _check_unknown(self, node: ir.Node, axes: Iterable[Axis]) -> None:
        """Note samples along axes that are not the first; those along the first stay separate."""
        batches = [axis for axis in axes if flag_of(axis) & BATCH]
        if batches:
            reason = f"what {node.op_type} does along the batch is not known"
            self._mixed(reason, batches, alone=False)

    def _operand(self, node: ir.Node, index: int) -> Layout:
        value = _at(node, index)
        return self._layouts.get(value, ()) if value is not None else ()

    def _axis_of(self, node: ir.Node, where: OperandAxis) -> Axis:
        index, axis = where
        layout = self._operand(node, index)
        return layout[axis] if layout and axis is not None else ()

    def _axes(self, node: ir.Node, link: Link) -> list[Axis]:
        """What the operands' axes of a link run along, () for those without content."""
        return [self._axis_of(node, where) for where in link.axes]

    def _sizes(self, node: ir.Node, link: Link) -> list[int]:
        """Lengths of the operands' axes of a link."""
        return [self._shapes[node.inputs[i]][k] for i, k in link.axes]  # type: ignore[index]

    def _mix_along(self, node: ir.Node, link: Link, reason: str) -> None:
        """Entries along these axes are combined: samples are mixed where one is the batch."""
        axes = self._axes(node, link)
        if any(flag_of(axis) & BATCH for axis in axes):
            self._mixed(reason, axes)

    def _combined(self, axes: Sequence[Axis], size: int) -> Axis:
        """One axis of the result from those of the operands that are aligned with it."""
        self._join(axes)
        if not axes:
            return axis_of(Factor(size)) if size != 1 else ()
        flag = united(flag_of(axis) for axis in axes)
        full = [axis for axis in axes if length(axis) == size]
        if not full:
            if flag & BATCH:
                self._mixed("one sample is repeated along the batch", axes, alone=False)
            return axis_of(Factor(size, flag))
        best = with_picks(
            max(full, key=lambda axis: (flag_of(axis) == flag, bool(sources(axis)))), full
        )
        tokens = {self._tokens(axis) for axis in full if flag_of(axis) & TOKEN}
        if flag_of(best) != flag or len(tokens) > 1:
            return axis_of(Factor(size, flag))
        return best

    def _tokens(self, axis: Axis) -> tuple[tuple[Source | None, int], ...]:
        """The sources and sizes of the token factors of an axis, in order."""
        return tuple(
            (self._canonical(f.source) if f.source is not None else None, f.size)
            for f in factors(axis)
            if f.flag & TOKEN
        )

    def _repeated(self, node: ir.Node, link: Link, size: int) -> Axis:
        axis = next(iter(self._axes(node, link)), ())
        was = next(iter(self._sizes(node, link)), 1)
        if size == was:
            return axis
        if node.op_type == "Tile" and len(axis) == 1 and flag_of(axis) == BATCH | TOKEN:
            self._note_ragged()
            return ((Factor(size // was), *axis[0]),)
        if flag_of(axis) & BATCH:
            self._mixed("samples are repeated along the batch", [axis], alone=False)
        return axis_of(opaque(axis, size))

    def _summed(self, node: ir.Node, link: Link) -> Sequence[Axis]:
        product = has(node, Trait.PRODUCT | Trait.LAYER)
        what = "a product sums over the batch" if product else "it is reduced over the batch"
        self._mix_along(node, link, what)
        return [axis_of(opaque(axis, 1)) for axis in self._axes(node, link) if link.results]

    def _gathered(self, node: ir.Node, link: Link, sizes: Sequence[int]) -> Sequence[Axis]:
        (own,), (length_before,) = self._axes(node, link), self._sizes(node, link)
        index, rank = self._index(node.inputs[1]), len(sizes)
        if rank == 1 and index is not None and (one := _one_of_each(own, index)) is not None:
            return [one]
        each = rank > 1 and index is not None and _by_sample(index)
        if flag_of(own) == BATCH and _sorts(node.inputs[1], index, length_before):
            self._mixed("samples are put in another order", [own])
            return [own]
        if flag_of(own) == BATCH and length_before > 1 and not each:
            self._mixed("samples are picked along the batch", [own], alone=False)
        if rank == 1 and node.inputs[1] in self._fed:
            return self._routed_rows(node, link, sizes)
        if rank == 1:
            whole = index is not None and np.array_equal(index, np.arange(length_before))
            return [own if whole else axis_of(opaque(own, sizes[0]))]
        if each and flag_of(own) & BATCH:
            return [axis_of(Factor(sizes[0], BATCH)), *((),) * (rank - 1)]
        return [()] * rank

    def _gathered_nd(self, node: ir.Node, link: Link, sizes: Sequence[int]) -> Sequence[Axis]:
        """Selected entries have the flags of the axes that were indexed."""
        axes, rows = self._axes(node, link), self._index(node.inputs[1])
        batch_dims = node.attributes.get_int("batch_dims", 0)
        samples = axes[0] if axes and not batch_dims and rows is not None and rows.ndim == 2 else ()
        if rows is not None and flag_of(samples) == BATCH and _counts(rows[:, 0], samples):
            return [samples]  # one entry of every sample
        if node.inputs[1] in self._fed and not batch_dims and len(sizes) == 1:
            return self._routed_rows(node, link, sizes)
        merged = united(flag_of(axis) for axis in axes)
        lead = BATCH if merged & BATCH else merged
        return [axis_of(Factor(size, lead)) if not k else () for k, size in enumerate(sizes)]

    def _routed_rows(self, node: ir.Node, link: Link, sizes: Sequence[int]) -> Sequence[Axis]:
        """Entries that an index selects whose entries in the trial run say nothing of others."""
        axes, lengths = self._axes(node, link), tuple(self._sizes(node, link))
        if any(flag_of(axis) & BATCH for axis in axes):
            self._note_ragged()
        if _is_given(node.inputs[1]):
            self._mix_along(node, link, "an input says which rows are selected")
        merged = opaque(tuple(piece for axis in axes for piece in axis), next(iter(sizes), 1))
        if len(sizes) == 1:
            merged = replace(merged, picks=self._picks(node, axes, lengths))
        return [axis_of(merged) if not k else () for k in range(len(sizes))]

    def _picks(
        self, node: ir.Node, axes: Sequence[Axis], sizes: tuple[int, ...]
    ) -> frozenset[Pick]:
        index, value = self._index(node.inputs[1]), node.inputs[1]
        places = None if index is None else gathered_places(node, index, sizes)
        if places is None or value is None:
            return frozenset()
        return frozenset([Pick(self._numbers[value], tuple(axes), sizes, places)])

    @cached_property
    def _numbers(self) -> Mapping[ir.Value, int]:
        """Equal numbers for values that are computed in the same way."""
        return numbered(self._graph)

    def _scattered(self, node: ir.Node, link: Link, sizes: Sequence[int]) -> Sequence[Axis]:
        """The axes that indices name: picked rows have their old places, others unknown ones."""
        data, updates = (
            [self._axis_of(node, where) for where in link.axes if where[0] == k] for k in (0, 2)
        )
        index, known = _at(node, 1), bool(self._operand(node, 2))
        fed = index is not None and index in self._fed
        written = self._put_back(node, link, updates, sizes) if known and fed else None
        if written is not None:
            pairs = ([axis for axis in pair if axis] for pair in zip(data, written, strict=True))
            return list(map(self._combined, pairs, sizes))
        self._check_unknown(node, data[link.results[0] == 0 :])
        if fed and any(flag_of(axis) & BATCH for axis in updates):
            self._note_ragged()
        return _placed(data, updates, sizes) if known else data

    def _put_back(
        self, node: ir.Node, link: Link, updates: Sequence[Axis], sizes: Sequence[int]
    ) -> Sequence[Axis] | None:
        """The axes of picked rows in their old places; ``None`` where these are others."""
        value = node.inputs[1]
        index = self._index(value)
        if index is None or not index.ndim or value is None or len(updates) != 1:
            return None
        row = list(factors(updates[0])) if len(updates[0]) == 1 else []
        first = row[0] if row else Factor(1)
        after = self._shapes[node.outputs[0]]
        written = scattered_places(node, index, after)
        for pick in first.picks:
            count = len(pick.sizes)
            rest = tuple(sizes[count:])
            same = pick.index == self._numbers[value] and pick.sizes == tuple(sizes[:count])
            if same and written == repeated_places(pick.places, rest):
                return (*pick.axes, *distributed(row[1:], rest))
        return None

    def _index(self, value: ir.Value | None) -> NDArray[Any] | None:
        """An index in the trial run."""
        return index_entries(value, self._indices)

    def _cut(self, node: ir.Node, link: Link, output: ir.Value) -> Axis:
        """The axis after a slice, a split or padding, which may change its length."""
        ((_, at),) = link.axes
        (axis,), (was,), before = self._axes(node, link), self._sizes(node, link), self._first(node)
        assert at is not None
        size = self._shapes[output][at]
        if was == size:
            if node.op_type != "Slice" or not self._reversed(node, at, len(before)):
                return axis
            if flag_of(axis) & BATCH:
                self._mixed("samples are reversed along the batch", [axis])
            return axis_of(opaque(axis, size))
        if flag_of(axis) == BATCH:
            self._mixed("samples are cut out along the batch", [axis], alone=False)
        elif flag_of(axis) & BATCH:  # of samples × tokens, how many of each
            self._note_ragged()
        begin = self._begin(node, at, before, output)
        if begin is None:
            return axis_of(opaque(axis, size))
        if has(node, Trait.PAD):
            padded = (foreign(begin), *axis, foreign(size - was - begin))
            return tuple(piece for piece in padded if piece)
        return part_of(axis, begin, size)

    def _first(self, node: ir.Node) -> Shape:
        value = node.inputs[0]
        return self._shapes[value] if value is not None else ()

    def _begin(self, node: ir.Node, axis: int, before: Shape, output: ir.Value) -> int | None:
        """The first entry along ``axis`` that remains, or how many are added before it."""
        rank = len(before)
        if node.op_type == "Split":
            index = list(node.outputs).index(output)
            earlier = [self._shapes.get(v) for v in node.outputs[:index]]
            sizes = [shape[axis] for shape in earlier if shape is not None]
            return sum(sizes) if len(sizes) == index else None
        if has(node, Trait.PAD):
            if node.attributes.get_string("mode", "constant") != "constant":
                return None
            stored = node.attributes.get("pads")
            pads = np.array(stored.as_ints()) if stored else self._index(_at(node, 1))
            axes = self._listed(node, 3, rank)
            if pads is None or axes is None or axis not in axes:
                return None
            front = int(pads[axes.index(axis)])
            return front if front >= 0 else None
        place = self._place(node, axis, rank)
        if place is None:
            return None
        starts, steps, at = place
        if steps is not None and int(steps[at]) != 1:
            return None
        start = int(starts[at])
        return min(max(start + before[axis] if start < 0 else start, 0), before[axis])

    def _reversed(self, node: ir.Node, axis: int, rank: int) -> bool:
        place = self._place(node, axis, rank)
        return place is not None and place[1] is not None and int(place[1][place[2]]) < 0

    def _place(
        self, node: ir.Node, axis: int, rank: int
    ) -> tuple[NDArray[Any], NDArray[Any] | None, int] | None:
        """Starts and steps of a slice, and the index of ``axis`` among them."""
        stored = node.attributes.get("starts")
        starts = np.array(stored.as_ints()) if stored else self._index(_at(node, 1))
        axes = self._listed(node, 3, rank)
        if starts is None or axes is None:
            return None
        if axis not in axes[: len(starts)]:
            return None
        return starts, self._index(_at(node, 4)), axes.index(axis)

    def _listed(self, node: ir.Node, index: int, rank: int) -> list[int] | None:
        """The axes that an operation lists; all axes where it lists none."""
        if "axes" in node.attributes:
            return [int(a) % rank for a in node.attributes.get_ints("axes", ())]
        value = _at(node, index)
        if value is None:
            return list(range(rank))
        axes = self._index(value)
        return None if axes is None else [int(a) % rank for a in axes.ravel()]

    def _joined(self, node: ir.Node, link: Link, size: int) -> Axis:
        """Concatenated pieces; the piece of an operand without content is foreign."""
        axes = self._axes(node, link)
        self._join([axis for axis in axes if axis])
        flag = united(map(flag_of, axes))
        along = link.results[0]
        shapes = [self._shapes.get(v) for v in node.inputs if v is not None]
        sizes = [None if shape is None else shape[along] for shape in shapes]
        if flag & BATCH and sum(each != 0 for each in sizes) > 1:
            if flag == BATCH:
                reason = "samples are joined with others along the batch"
                self._mixed(reason, axes, alone=False)
            else:
                self._note_ragged()
        pieces: list[Piece] = []
        for axis, each in zip(axes, sizes, strict=True):
            if each is None:
                return axis_of(Factor(size, flag))
            pieces.extend(axis or [piece for piece in (foreign(each, flag),) if piece])
        return tuple(pieces)


def _is_given(index: ir.Value | None) -> bool:
    """Whether an index is an input of the graph, moved or with offsets."""
    return index is not None and from_inputs(index, lambda node: has(node, SAME_NUMBERS))


def _fit(layout: Layout, shape: Shape) -> Layout:
    """The layout where nothing is known: the first axis is the batch."""
    if not shape:
        return ()
    batch = {f.source for axis in layout for f in factors(axis) if f.source and f.flag & BATCH}
    source = next(iter(batch)) if len(batch) == 1 else None
    return (axis_of(Factor(shape[0], BATCH, source)), *(axis_of(Factor(n)) for n in shape[1:]))


def batch_axis(axes: Axes) -> int:
    """The axis (from the right) whose outermost part is the batch.

    Of a value without a batch axis, which all samples share, the outermost one.
    """
    return next((a for a in range(-len(axes), 0) if axes[a] & BATCH), -len(axes))


@dataclass(frozen=True)
class SamplePlace:
    """Where the samples are in a value.

    Attributes:
        axis: Their axis, from the right; of a value that all samples share, the outermost one.
        inner: Entries along that axis for each of them, where they come after other entries, as in
            [T × B]; 0 where they come first, as in [B × T].
        between: Whether they are between tokens, where they cannot be separated.
    """

    axis: int
    inner: int = 0
    between: bool = False


def sample_place(axes: Axes, layout: Layout) -> SamplePlace:
    """Where the samples are in a value with these flags."""
    axis = batch_axis(axes)
    pieces = layout[axis] if layout and axes[axis] & BATCH else ()
    row = pieces[0] if len(pieces) == 1 else ()
    at = next((k for k, factor in enumerate(row) if factor.flag & BATCH), 0)
    if prod(f.size for f in row[:at]) == 1:
        return SamplePlace(axis)
    if any(f.flag & TOKEN for f in row[at + 1 :]):
        return SamplePlace(axis, between=True)
    return SamplePlace(axis, prod(f.size for f in row[at + 1 :]))


def sample_axis(axes: Axes) -> int | None:
    """The axis, from the right, that runs over samples alone, if there is one."""
    return next((k - len(axes) for k, flag in enumerate(axes) if flag == BATCH), None)


def _at(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _by_sample(index: NDArray[Any]) -> bool:
    """Whether an index holds 0, 1, 2, … in row-major order."""
    return bool(np.array_equal(index.ravel(), np.arange(index.size)))


def _counts(index: NDArray[Any], samples: Axis) -> bool:
    """Whether an index selects every sample once, in order."""
    return np.array_equal(index, np.arange(length(samples)))


def _sorts(value: ir.Value | None, index: NDArray[Any] | None, length: int) -> bool:
    """Whether an index that depends on entries of inputs, as on lengths, permutes samples."""
    if value is None or index is None or index.ndim != 1:
        return False
    return np.array_equal(np.sort(index), np.arange(length)) and from_entries(value)


def _one_of_each(axis: Axis, index: NDArray[Any]) -> Axis | None:
    """The samples, where an axis runs over samples × tokens and one entry of each is selected."""
    row = list(factors(axis))
    if index.ndim != 1 or len(row) < 2 or len(axis) != 1 or row[0].flag != BATCH:
        return None
    samples = axis_of(row[0])
    tokens = length(axis) // row[0].size
    selected = index % length(axis) // tokens
    return samples if flag_of(axis) & TOKEN and _counts(selected, samples) else None


def _axis_of(node: ir.Node, shape: Shape) -> int:
    return node.attributes.get_int("axis", 0) % len(shape)


def _placed(data: Sequence[Axis], updates: Sequence[Axis], sizes: Sequence[int]) -> list[Axis]:
    """Axes after a scatter of content to unknown places along them: flags alone."""
    if len(updates) != len(sizes):
        flags = regroup((united(map(flag_of, updates)),), (prod(sizes),), tuple(sizes))
        updates = [axis_of(Factor(1, flag)) for flag in flags]
    both = ((*own, *written) for own, written in zip(data, updates, strict=True))
    return [
        axis_of(opaque(axis, size)) if flag_of(axis) else axis_of(Factor(size))
        for axis, size in zip(both, sizes, strict=True)
    ]


def stride(node: ir.Node, place: int) -> int:
    """Stride of windows along a spatial axis; 0 where places are inserted instead."""
    strides = node.attributes.get_ints("strides", ())
    if node.op_type == "ConvTranspose" or (strides and place >= len(strides)):
        return 0
    return strides[place] if strides else 1


def _pooled(axis: Axis, was: int, size: int, stride: int) -> Axis:
    """The axis after windows, each of which covers ``stride`` places."""
    single = axis[0][0] if is_single(axis) else None
    if single is None or stride == 0 or size not in (was // stride, -(-was // stride)):
        return axis_of(opaque(axis, size))
    return axis_of(replace(single, size=size, step=single.step * stride, picks=frozenset()))
