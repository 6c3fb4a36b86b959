"""The explanation as a graph: forward pass and relevance pass in one ONNX model.

The relevance pass is the same walk with the same rules, in the language that appends nodes. The
target is chosen inside the graph, by optional inputs; by default it is the predicted class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np
import onnx_ir as ir
from msgspec import structs
from numpy.typing import NDArray

from palrp_onnx.analysis.lengths import follow_from_numbers
from palrp_onnx.analysis.sizes import sizes_of
from palrp_onnx.compiler.blocks import ROWS, put_in_blocks
from palrp_onnx.compiler.halves import Halves
from palrp_onnx.compiler.interface import (
    AGAINST,
    CONTENT,
    DEFAULT_SCALE,
    FEATURES,
    LEDGER,
    OFF_MAP,
    POSITION,
    SCORE,
    SEED_SCALE,
    SITES,
    TARGET,
    TARGET_POSITION,
    TARGET_SEED,
    TARGET_VECTOR,
    TOTAL,
    source_name,
)
from palrp_onnx.compiler.late_weights import read_late
from palrp_onnx.compiler.manifest import Aligned, Manifest
from palrp_onnx.compiler.recompute import recompute
from palrp_onnx.compiler.squares import ByRows, Squares
from palrp_onnx.compiler.trial_shapes import TrialShapes
from palrp_onnx.errors import UnsupportedError
from palrp_onnx.model.native import OwnProducts
from palrp_onnx.prepare import Planned
from palrp_onnx.record import Warning_
from palrp_onnx.relevance.ledger import entry_name, in_order
from palrp_onnx.relevance.method import Ranking
from palrp_onnx.relevance.methods import own_method
from palrp_onnx.relevance.single_row import Rows
from palrp_onnx.relevance.sinks import (
    Sink,
    check_reduction,
    gather_sinks,
    on_no_map,
    reduce_sinks,
)
from palrp_onnx.relevance.units import GRID
from palrp_onnx.relevance.walk import Caught, walk
from palrp_onnx.subject import Subject
from palrp_onnx.tensor.onnx import NARROW, Emit
from palrp_onnx.types import Shape
from palrp_onnx.version import own_version

#: Lowest opset of a graph that the relevance pass can be appended to.
OPSET = 13


@dataclass(frozen=True)
class CompileSettings:
    """Options that are fixed when a graph is compiled.

    Attributes:
        positions: Reduction of position sinks to one number for every unit, for the score.
        ledger: Whether the ledger is an output.
        features: Whether sinks and content are also outputs with a feature axis.
        portable: Whether only operations of the ONNX standard are used.
        wide: Whether the multiplier of the whole output is an input, ``target_seed``, instead of a
            target at one of its places.
        required: Whether inputs of the target have no default, for bindings that pass only inputs
            without one; callers then give the values that would be their defaults.
        memory: ``fast`` keeps what the way back reads of the forward pass; ``bounded`` computes it
            again, layer by layer, and attention for some queries at a time.
            :func:`palrp_onnx.compiler.file.compile_model` takes ``auto`` and sizes too.
        rows: Number of these queries.
    """

    positions: str = "relu"
    ledger: bool = True
    features: bool = False
    portable: bool = False
    wide: bool = False
    required: bool = False
    memory: str = "fast"
    rows: int = ROWS


def compile_graph(
    planned: Planned, settings: CompileSettings, shapes: Mapping[str, Shape] | None = None
) -> tuple[ir.Model, Manifest]:
    """Append the relevance pass to the planned model, in place; return it and its manifest.

    Optional inputs for an output of two or three axes:

    - ``target`` and ``target_against``, int64 [B]: classes. −1, the default, is the predicted class
      and no class.
    - ``target_position``, int64 [B], if the output has a token axis. −1, the default, is the last
      unmasked token.
    - ``target_vector``, float [B, D]: explain its product with the output, or with the row at
      ``target_position``. For a row of zeros, the default, ``target`` is explained.

    In the three integer inputs −2 is the last index of an axis, −3 the last but one; an index
    outside of its axis stops the run; on a GPU, which does not notice it, relevance is NaN. For an
    output of four axes or more ``target``, int64 [B, axes − 1], is required and names one element;
    an output of one axis has no choice. Graphs in half precision take ``seed_scale``, float [1]; a
    smaller one is needed if relevance overflows.

    Outputs, in units of the target: those of the model, the explained value if it is none of them,
    ``relevance_content``, ``relevance_position`` and ``relevance_total``, their sum [B, units]
    (signed), ``relevance_score`` [B, units], by which the method ranks, ``relevance_sites``
    [B, sites, units] (signed), ``relevance_off_map`` [B, sites] where places of sites belong to no
    unit (with a further column for sites that are on no map, if there are any),
    ``relevance_ledger`` [B, entries]; with ``features`` also
    ``features/content`` and ``features/site/LAYER/PART`` [B, tokens, features]. The manifest names
    sites and entries. A further explained input NAME has outputs of its own,
    ``relevance_content/NAME`` and so on; the ledger is one for all.

    With ``required`` none of these inputs has a default: the values above are given instead.

    Inputs and outputs of the model with one of these names are renamed (:func:`source_name`).

    Args:
        planned: The planned model.
        settings: The options.
        shapes: Shapes of inputs that the graph will get, by which ``bounded`` weighs what to keep.

    Raises:
        UnsupportedError: The opset is older than the appended operations, or a rule cannot be
            compiled for this graph.
        TargetError: No relevance reaches the explained input.
        UsageError: ``positions`` is no reduction of sinks.
    """
    check_reduction(settings.positions)
    opset = planned.analysis.model.graph_opset
    if opset < OPSET:
        raise UnsupportedError(f"Opset {opset} is older than {OPSET}")
    return _Compiler(planned, settings, shapes or {}).run()


#: Brings numbers of a sink's tokens [B, T] to units [B, units].
AtUnits = Callable[[Sink, ir.Value], ir.Value]


class _Compiler:
    def __init__(
        self, planned: Planned, settings: CompileSettings, shapes: Mapping[str, Shape]
    ) -> None:
        self._shapes = shapes
        self._plan = planned.plan
        self._analysis = planned.analysis
        self._sites = planned.sites
        self._subject = planned.subject
        self._planned = planned
        self._explained = explained = planned.explained
        self._settings = settings
        self._graph = self._analysis.model.graph
        self._own = OwnProducts(self._analysis.model)
        self._public = list(self._graph.inputs)
        self._computed = [v for node in self._graph for v in node.outputs]
        self._rename_reserved(self._graph.initializers.values())
        if not settings.portable:
            self._analysis.model.proto.opset_imports.setdefault("com.microsoft", 1)
        source = next(v for v in self._graph.inputs if v.name == explained)
        opset = self._analysis.model.graph_opset
        lengths = [length for value in self._graph.inputs for length in value.shape or (None,)]
        self._little = settings.memory == "bounded"
        self._squares = Squares(self._analysis, settings.rows)
        back_end = partial(ByRows, self._squares) if self._little else Emit
        self._op: Emit = back_end(
            self._graph,
            source,
            self._analysis.shapes,
            opset=opset,
            portable=settings.portable,
            bounded=self._little,
            fixed=all(isinstance(n, int) for n in lengths) and not follow_from_numbers(self._graph),
        )
        axis = self._subject.batched.get(explained)
        self._required: list[str] = []
        self._inside: list[ir.Value] = []  # whether indices of the target are inside their axes
        self._op.batch = self._op.constant([1]) if axis is None else self._op.dims(source, [axis])

    def run(self) -> tuple[ir.Model, Manifest]:
        if self._plan.output not in self._graph.outputs:
            self._graph.outputs.append(self._plan.output)
        seed, rows = self._seed()
        caught = self._walk(seed, rows)
        caught.require(*self._planned.required)
        reached = tuple(e for e in self._subject.further if e.input in caught.content)
        self._subject = structs.replace(self._subject, further=reached)
        views = [v for v in self._planned.views if v.explained in caught.content]
        routes = [view.routes for view in views]
        gathered = gather_sinks(self._op, self._sites, caught.positions, routes)
        for view, subject, sinks in zip(views, self._subject.views, gathered, strict=True):
            nowhere = on_no_map(gathered) if view is views[0] else []
            self._maps(view, subject, caught.content[view.explained], _on_map(sinks), nowhere)
        self._ledger_names: list[str] = []
        if self._settings.ledger:
            self._publish(LEDGER, self._ledger(caught.ledger))
        if self._settings.features:
            self._features(caught, gathered[0])
        self._op.drop_unused()
        self._own.put_back(portable=self._settings.portable, named=source_name)
        if self._little:
            self._squares.repeat(self._op, self._graph)
        halves = Halves(self._op, self._graph)
        halves.put()
        if self._little:
            self._keep_little(halves, seed)
        read_late(self._op, self._graph, bounded=self._little)
        manifest = self._manifest([_aligned(sinks) for sinks in gathered])
        self._analysis.model.proto.metadata_props.update(manifest.properties())
        self._rename_reserved(self._public)
        self._rename_reserved(self._computed)
        return self._analysis.model.proto, manifest

    def _keep_little(self, halves: Halves, seed: ir.Value) -> None:
        """Compute values again, layer by layer, and attention for some queries at a time."""
        analysis, squares = self._analysis, self._squares
        size_of = sizes_of(analysis, self._shapes)
        squares.origin.update(recompute(self._op, self._graph, halves, seed, size_of))
        shapes = TrialShapes(analysis.shapes, analysis.indices)
        shapes.update(
            (copy, shapes[value]) for copy, value in squares.origin.items() if value in shapes
        )
        again = (copy for copy, value in squares.origin.items() if value in analysis.content)
        content = {*analysis.content, *again}
        whole = put_in_blocks(
            self._op, self._graph, shapes, content, squares.pairs, self._settings.rows
        )
        if whole:
            first = squares.origin.get(whole[0], whole[0]).name
            text = f"scores are kept whole, as their rows depend on each other: {first!r}"
            faults = (*self._subject.faults, Warning_(code="whole-scores", message=text))
            self._subject = structs.replace(self._subject, faults=faults)

    def _walk(self, seed: ir.Value, rows: Rows[ir.Value] | None) -> Caught[ir.Value]:
        """The walk; in half precision with a larger seed, so that no multiplier underflows."""
        op = self._op
        if not any(v.dtype in NARROW for v in self._analysis.content):
            op.seed = None if self._settings.wide else seed
            return walk(op, self._plan, lambda value: value, seed, rows, by_products=True)
        scale = self._optional(SEED_SCALE, np.array([DEFAULT_SCALE], np.float32))
        op.seed = raised = op.mul(seed, op.cast_like(scale, seed))
        caught = walk(op, self._plan, lambda value: value, raised, rows, by_products=True)
        return caught.map(lambda relevance: op.div(op.wide(relevance), scale))

    def _rename_reserved(self, values: Iterable[ir.Value]) -> None:
        """Rename source values that clash with explainer names."""
        for value in list(values):
            value.name = source_name(value.name or "")

    # --- the target -------------------------------------------------------------------------------
    def _input(self, name: str) -> ir.Value:
        """An int64 input [B]; −1 by default."""
        value = self._optional(name, np.array([-1], np.int64))
        return self._op.integers("Expand", value, self._op.batch)

    def _optional(self, name: str, default: NDArray[Any]) -> ir.Value:
        """An input with a default, or without one if it is required."""
        value = ir.val(name)
        if self._settings.required:
            self._required.append(name)
        else:
            value.const_value = ir.tensor(default, name=name)
            self._graph.register_initializer(value)
        self._declare(value, [None] * default.ndim, ir.DataType.from_numpy(default.dtype))
        return value

    def _declare(self, value: ir.Value, shape: Sequence[int | None], kind: ir.DataType) -> None:
        value.dtype, value.shape = kind, ir.Shape(shape)
        self._graph.inputs.append(value)
        self._op.declare(value, len(shape))

    def _chosen(self, name: str, default: ir.Value, size: ir.Value) -> ir.Value:
        """The index that an input gives: −1 is ``default``, −2 the last, −3 the last but one.

        An index outside of an axis of this ``size`` [1] stops the run.
        """
        given, one = self._input(name), self._op.constant(1)
        from_end = self._op.integers("Add", given, one)
        negative = self._op.flags("Less", given, self._op.constant(0))
        absent = self._op.flags("Equal", given, self._op.constant(-1))
        index = self._op.integers("Where", negative, from_end, given)
        known = self._op.integers("Where", absent, self._op.constant(0), index)
        return self._op.integers("Where", absent, default, self._bounded(known, size))

    def _bounded(self, index: ir.Value, size: ir.Value) -> ir.Value:
        """An index as 0 … size − 1; the lookup fails for one outside of the axis.

        On a GPU lookups never fail: there an index outside makes the seed NaN.
        """
        op = self._op
        found = op.integers("Gather", op.counting(op.integers("Squeeze", size)), index)
        negative = op.flags("Less", index, op.constant(0))
        wanted = op.integers("Where", negative, op.integers("Add", index, size), index)
        self._inside.append(op.flags("Equal", found, wanted))
        return found

    def _checked(self, seed: ir.Value) -> ir.Value:
        """The seed, or NaN where an index of its sample is outside of its axis."""
        op = self._op
        for inside in self._inside:
            factor = op.choose(inside, op.real(1.0, seed), op.real(np.nan, seed))
            seed = op.mul(seed, op.unsqueeze(factor, list(range(1, op.rank(seed)))))
        return seed

    def _seed(self) -> tuple[ir.Value, Rows[ir.Value] | None]:
        """+1 at the target, −1 at the class it is compared with; one row of a token axis."""
        output = self._by_sample()
        seed, rows = self._seed_by_sample(output)
        batch = self._subject.output_batch
        if batch == 0:
            return seed, rows
        if rows is not None:
            seed = rows.put(self._op, seed, output)
        return self._in_place(seed, batch), None

    def _by_sample(self) -> ir.Value:
        """The explained output with the axis of samples first: :meth:`Subject.by_sample`."""
        op, output, batch = self._op, self._plan.output, self._subject.output_batch
        if batch is None:
            return op.unsqueeze(output, [0])
        rest = (a for a in range(op.rank(output)) if a != batch)
        return output if batch == 0 else op.transpose(output, [batch, *rest])

    def _in_place(self, seed: ir.Value, batch: int | None) -> ir.Value:
        """The inverse of :meth:`_by_sample`."""
        op, rank = self._op, self._op.rank(seed)
        if batch is None:
            return op.node("Squeeze", [seed, op.constant([0])], rank - 1, dtype=seed.dtype)
        return op.transpose(seed, [*range(1, batch + 1), 0, *range(batch + 1, rank)])

    def _seed_by_sample(self, output: ir.Value) -> tuple[ir.Value, Rows[ir.Value] | None]:
        op, rank = self._op, self._op.rank(output)
        if self._settings.wide:
            seed = ir.val(TARGET_SEED)
            self._declare(seed, [None] * rank, ir.DataType.FLOAT)
            return op.cast_like(seed, output), None
        if rank not in (2, 3):
            return self._element(output, rank), None
        rows = Rows(self._place(output), -3, -2) if rank == 3 else None
        logits = output
        if rows is not None:
            axis = op.constant([1])
            logits = op.node("Squeeze", [rows.take(op, output), axis], 2)
        best = op.integers("ArgMax", logits, axis=-1, keepdims=0)
        classes = op.dims(output, [-1])
        chosen = op.one_hot(self._chosen(TARGET, best, classes), classes, output)
        no_one = op.constant([np.iinfo(np.int64).max])
        against = self._chosen(AGAINST, no_one, classes)
        seed = op.sub(chosen, op.one_hot(against, classes, output))
        # For the runtime the shape depends on that of inputs, even where it is always the same.
        shape = op.integers("Concat", op.batch, classes, axis=0)
        seed = op.reshape(self._checked(self._vector_or(seed)), shape, 2)
        return seed if rows is None else op.unsqueeze(seed, [1]), rows

    def _vector_or(self, seed: ir.Value) -> ir.Value:
        """The input ``target_vector`` [B, D] as the seed, or ``seed`` for rows of zeros."""
        op = self._op
        given = self._optional(TARGET_VECTOR, np.zeros((1, 1), np.float32))
        nothing = op.sum(op.absolute(given), [1])
        absent = op.flags("Equal", nothing, op.real(0.0, given))
        return op.cast_like(op.choose(absent, op.cast_like(seed, given), given), seed)

    def _element(self, output: ir.Value, rank: int) -> ir.Value:
        """+1 at the element that the input ``target`` [B, axes − 1] names, or at the only one."""
        op = self._op
        if rank == 1:
            return op.shift(op.zeros_like(output), 1.0)
        value = ir.val(TARGET)
        self._declare(value, [None, rank - 1], ir.DataType.INT64)
        seed = op.shift(op.zeros_like(output), 1.0)
        for axis in range(1, rank):
            index = op.integers("Gather", value, op.constant(axis - 1), axis=1)
            size = op.dims(output, [axis])
            hot = op.one_hot(self._bounded(index, size), size, output)
            seed = op.mul(seed, op.unsqueeze(hot, [a for a in range(1, rank) if a != axis]))
        return self._checked(seed)

    def _place(self, output: ir.Value) -> ir.Value:
        """The chosen position, by default the last unmasked one [B]."""
        op = self._op
        length = op.dims(output, [1])
        numbers = op.counting(op.integers("Squeeze", length))
        last = op.integers("Expand", op.integers("Sub", length, op.constant([1])), op.batch)
        mask = next((v for v in self._graph.inputs if v.name == self._subject.mask), None)
        if mask is not None:
            axis = self._subject.mask_axis(self._subject.mask or "")
            if axis != 0:
                mask = op.unsqueeze(mask, [0]) if axis is None else op.transpose(mask, [1, 0])
            unmasked = op.node("Cast", [mask], 2, to=ir.DataType.BOOL, dtype=ir.DataType.BOOL)
            if self._subject.mask in self._subject.hiding:
                unmasked = op.node("Not", [unmasked], 2, dtype=ir.DataType.BOOL)
            flags, places = (
                op.node("Cast", [v], op.rank(v), to=ir.DataType.FLOAT) for v in (unmasked, numbers)
            )
            # If every token is masked, the small second term selects the last one.
            rising = op.add(op.mul(flags, op.shift(places, 1.0)), op.scale(places, 1e-6))
            last = op.integers("ArgMax", rising, axis=-1, keepdims=0)
        return self._chosen(TARGET_POSITION, last, length)

    # --- the outputs ------------------------------------------------------------------------------
    def _maps(
        self,
        view: Planned,
        subject: Subject,
        relevance: ir.Value,
        aligned: Sequence[Sink],
        nowhere: Sequence[Sink],
    ) -> None:
        """The maps of one explained input; names of outputs end in that of a further input."""
        op = self._op
        suffix = "" if view.explained == self._explained else f"/{view.explained}"

        def at_units(sink: Sink, tokens: ir.Value) -> ir.Value:
            assert sink.route is not None
            of_input = view.to_input(op, lambda value: value, sink.route, tokens)
            return op.sum(self._units(subject, of_input), [2], keepdims=False)

        summed = op.sum(self._units(subject, view.tokens(op, relevance)), [2], keepdims=False)
        places = [op.sum(s.relevance, [2], keepdims=False) for s in aligned]
        signed = [at_units(s, each) for s, each in zip(aligned, places, strict=True)]
        position = reduce(op.add, signed) if signed else op.zeros_like(summed)
        self._publish(CONTENT + suffix, summed)
        self._publish(POSITION + suffix, position)
        self._publish(TOTAL + suffix, op.add(summed, position))
        self._publish(SCORE + suffix, self._score(aligned, summed, at_units))
        if signed:
            rows = [op.unsqueeze(s, [1]) for s in signed]
            self._publish(SITES + suffix, op.concat(rows, 1))
        partial = [s.route is not None and s.route.partial for s in aligned]
        if any(partial) or nowhere:
            off = [
                op.sub(op.sum(every, [1]), op.sum(own, [1]))
                if some
                else op.sum(op.zeros_like(own), [1])
                for some, every, own in zip(partial, places, signed, strict=True)
            ]
            if nowhere:
                lost = (op.sum(s.relevance, [1, 2], keepdims=False) for s in nowhere)
                off.append(op.unsqueeze(reduce(op.add, lost), [1]))
            self._publish(OFF_MAP + suffix, op.concat(off, 1))

    def _features(self, caught: Caught[ir.Value], sinks: Sequence[Sink]) -> None:
        """Raw relevance, with its features."""
        for sink in sinks:
            self._publish(f"{FEATURES}site/{sink.name}", sink.relevance)
        for name, relevance in caught.content.items():
            key = "content" if name == self._explained else f"input/{name}"
            view = replace(self._planned, explained=name)
            raw = view.tokens(self._op, relevance)
            if view.rows is not None and self._op.rank(raw) == _IMAGE:
                raw = self._op.unsqueeze(raw, [0])  # several images of one sample
            self._publish(f"{FEATURES}{key}", raw)

    def _publish(self, name: str, value: ir.Value) -> None:
        rank = self._op.rank(value)
        copy = self._op.node("Identity", [value], rank)
        copy.name = name
        copy.shape = ir.Shape([None] * rank)
        self._graph.outputs.append(copy)

    def _units(self, subject: Subject, raw: ir.Value) -> ir.Value:
        """Entries of an input by unit [B, units, F]; an image's patches are summed."""
        op = self._op
        if subject.image is None:
            return raw
        plane = op.sum(raw, [1], keepdims=False)
        *depth, height, width = subject.patch or (None, None)
        rows, columns = self._blocks(plane, -2, height), self._blocks(plane, -1, width)
        summed = op.matmul(op.matmul(rows, plane), columns, transpose_b=True)
        if depth:  # pictures of a video that share their units
            pictures = self._blocks(plane, 1, depth[0])
            kept = op.integers("Concat", op.dims(summed, [0, 1]), op.constant([-1]), axis=0)
            summed = op.matmul(pictures, op.reshape(summed, kept, 3))
        shape = op.integers("Concat", op.batch, op.constant([-1]), op.constant([1]), axis=0)
        return op.reshape(summed, shape, 3)

    def _blocks(self, plane: ir.Value, axis: int, side: int | None) -> ir.Value:
        """Which pixels of one axis each block holds, as ones and zeros [blocks, pixels]."""
        op = self._op
        size = op.integers("Squeeze", op.dims(plane, [axis]))
        if side is None:
            count = op.integers("Min", size, op.constant(GRID))
        else:
            count = op.integers("Div", size, op.constant(side))
        pixels, blocks = op.counting(size), op.counting(count)
        begin, end = (
            op.integers("Div", op.integers("Mul", n, size), count)
            for n in (blocks, op.integers("Add", blocks, op.constant(1)))
        )
        begin, end = (op.integers("Unsqueeze", n, op.constant([1])) for n in (begin, end))
        before, after = op.flags("Less", pixels, begin), op.flags("GreaterOrEqual", pixels, end)
        outside = op.flags("Or", before, after)
        op.declare(outside, 2)
        return op.choose(outside, op.real(0.0), op.real(1.0))

    def _score(self, sinks: Sequence[Sink], content: ir.Value, at_units: AtUnits) -> ir.Value:
        """What the method ranks by; the sinks as one number a unit: see :func:`reduce_sinks`."""
        op, ranking = self._op, self._plan.method.ranking
        score = self._signed_score(sinks, content, at_units, ranking)
        if not ranking.magnitude:
            return score
        sizes = op.scale(op.absolute(score), ranking.magnitude)
        return op.add(op.scale(score, 1.0 - ranking.magnitude), sizes)

    def _signed_score(
        self, sinks: Sequence[Sink], content: ir.Value, at_units: AtUnits, ranking: Ranking
    ) -> ir.Value:
        op, kind = self._op, ranking.kind
        if kind == "content" or not sinks:
            return op.zeros_like(content) if kind == "position" else content
        sums: dict[object, tuple[Sink, ir.Value]] = {}
        for sink, term in reduce_sinks(op, sinks, self._settings.positions, ranking.layer_weight):
            key = sink.route and sink.route.signature
            sums[key] = sink, op.add(sums[key][1], term) if key in sums else term
        reduced = reduce(op.add, (at_units(sink, term) for sink, term in sums.values()))
        if ranking.position_weight != 1.0:
            reduced = op.scale(reduced, ranking.position_weight)
        return reduced if kind == "position" else op.add(content, reduced)

    def _entries(self, ledger: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        named = {entry_name(entry, self._explained): v for entry, v in ledger.items()}
        return {name: named[name] for name in in_order(named)}

    def _ledger(self, ledger: Mapping[str, ir.Value]) -> ir.Value:
        entries = self._entries(ledger)
        self._ledger_names = list(entries)
        return self._op.concat([self._op.unsqueeze(v, [1]) for v in entries.values()], 1)

    def _manifest(self, aligned: Sequence[Aligned]) -> Manifest:
        return Manifest(
            **structs.asdict(self._subject),
            version=own_version(),
            method=self._plan.method.text,
            own=own_method(self._plan.method),
            positions=self._settings.positions,
            sites=aligned[0].sites,
            unaligned=aligned[0].unaligned,
            further_aligned=tuple(aligned[1:]),
            ledger=tuple(self._ledger_names),
            memory=self._settings.memory,
            required=",".join(self._required),
            roles={name: role.value for name, role in self._analysis.overrides.items()},
        )


def _on_map(sinks: Sequence[Sink]) -> list[Sink]:
    return [sink for sink in sinks if sink.route is not None]


def _aligned(sinks: Sequence[Sink]) -> Aligned:
    return Aligned(
        sites=tuple((s.kind, s.layer, s.part) for s in _on_map(sinks)),
        unaligned=tuple(s.name for s in sinks if s.route is None),
    )


#: Number of axes of an image.
_IMAGE = 4
