"""The NumPy engine: a forward pass that returns intermediate values, and the walk in NumPy."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from palrp_onnx.engines.base import Outcome, find_targets, settled
from palrp_onnx.model.feeding import with_values_fed
from palrp_onnx.model.native import with_own_products
from palrp_onnx.model.open import Model
from palrp_onnx.model.signature import check_feeds
from palrp_onnx.model.values import is_float
from palrp_onnx.prepare import Planned
from palrp_onnx.relevance.ledger import close_ledger, entry_name
from palrp_onnx.relevance.plan import Plan, needed_values
from palrp_onnx.relevance.result import RawRelevance
from palrp_onnx.relevance.sinks import Sink, gather_sinks, on_no_map
from palrp_onnx.relevance.target import Target
from palrp_onnx.relevance.units import Maps, grid_of, make_maps, unit_relevance
from palrp_onnx.relevance.walk import Caught, walk
from palrp_onnx.runtime.forward import Forward, ReferenceForward, RuntimeForward
from palrp_onnx.tensor.language import Language
from palrp_onnx.tensor.numpy import Eager
from palrp_onnx.types import Array, Feeds

T = TypeVar("T")


class NumpyEngine:
    """The walk in NumPy, in float32, or in float64 with the forward pass in NumPy too.

    Args:
        planned: The planned model.
        positions: Reduction of position sinks to one number for every unit.
        dtype: ``float32`` or ``float64``.
        device: Device of the forward pass in float32: ``cpu`` or ``cuda[:N]``.
    """

    name = "numpy"

    def __init__(self, planned: Planned, *, positions: str, dtype: str, device: str) -> None:
        self.planned = planned
        self.subject = planned.subject
        self._positions = positions
        self._kind = np.dtype(dtype)
        self._device = device
        needed = needed_values(planned.plan, self._everything)
        self._names = [v.name for v in needed if v.name and v.producer()] + [planned.output]
        # Values come from the file's own kernels; in float64 all but integer products are exact.
        self._model = with_own_products(
            planned.analysis.model, frozenset(self._names), whole=self._kind == np.float64
        )
        self._forward = self._open(self._model, self._names)
        self._forward_given: dict[tuple[frozenset[str], tuple[str, ...]], Forward] = {}
        self.providers = self._forward.providers

    def _everything(
        self, op: Language[T], plan: Plan, values: Callable[[ir.Value], T], seed: T
    ) -> None:
        """All that reads forward values: the walk, and routes from sites to units."""
        caught = walk(op, plan, values, seed)
        views = self.planned.views
        gathered = gather_sinks(op, self.planned.sites, caught.positions, [v.routes for v in views])
        for view, sinks in zip(views, gathered, strict=True):
            for sink in sinks:
                if sink.route is not None:
                    view.to_input(op, values, sink.route, sink.relevance)

    def _open(self, model: Model, names: list[str]) -> Forward:
        if self._kind == np.float64:
            return ReferenceForward(model, names)
        return RuntimeForward(model, names, device=self._device)

    def output(self, feeds: Feeds) -> Array:
        """The explained output [B, …] alone."""
        return self.subject.by_sample(self.forward(feeds)[self.planned.output])

    def close(self) -> None:
        """Nothing is open."""

    def explain(self, feeds: Feeds, target: Target | Sequence[Target]) -> Outcome:
        """Explain one batch."""
        self.subject.check_rows(feeds)
        start = time.perf_counter()
        values = self.forward(feeds)
        forward = (time.perf_counter() - start) * 1e3
        output = self.subject.by_sample(values[self.planned.output])
        targets = find_targets(self.subject, feeds, output, target)
        seed = np.stack([t.seed(row) for t, row in zip(targets, output, strict=True)])
        raw = self.propagate(values, seed)
        tensors: dict[str, Array] = {f"site/{s.name}": s.relevance for s in raw.sinks}
        samples = len(raw.content)  # several images of one sample are one entry
        others = {n: r if len(r) == samples else r[None] for n, r in raw.others.items()}
        tensors.update((f"input/{name}", r) for name, r in others.items())
        first, *rest = self.planned.views
        nowhere = on_no_map([raw.sinks, *raw.further_sinks])
        maps = self._maps(first, raw.content, raw.sinks, feeds, values, nowhere)
        tensors["content"] = unit_relevance(self.subject, raw.content, maps.grid)
        if maps.grid is not None:
            tensors["pixels"] = raw.content
        further = {
            view.explained: self._maps(view, raw.others[view.explained], sinks, feeds, values)
            for view, sinks in zip(rest, raw.further_sinks, strict=True)
            if view.explained in raw.others
        }
        ledger = settled(raw.ledger, targets)
        return Outcome(output, targets, maps, ledger, tensors, {"forward": forward}, further)

    def _maps(
        self,
        view: Planned,
        raw: Array,
        sinks: Sequence[Sink],
        feeds: Feeds,
        values: Mapping[str, Array],
        nowhere: Sequence[Sink] = (),
    ) -> Maps:
        subject = next(s for s in self.subject.views if s.input == view.explained)
        grid = grid_of(subject, feeds[subject.input])
        content = unit_relevance(subject, raw, grid)
        op = Eager(len(content), content.dtype)

        def at_units(sink: Sink, numbers: Array) -> Array:
            assert sink.route is not None
            of_input = view.to_input(op, self._values_of(values), sink.route, numbers)
            return np.asarray(unit_relevance(subject, of_input, grid).sum(-1, dtype=np.float64))

        return make_maps(
            op,
            content,
            sinks,
            at_units,
            positions=self._positions,
            ranking=self.planned.plan.method.ranking,
            grid=grid,
            nowhere=nowhere,
        )

    def forward(self, feeds: Feeds) -> dict[str, Array]:
        """Forward values that the walk reads, the explained output among them."""
        check_feeds(self.planned.analysis.model.inputs, feeds, self.subject.masks)
        return self._numbers({**feeds, **self._forward(feeds)})

    def forward_from(
        self, names: Collection[str], wanted: Sequence[str] = ()
    ) -> Callable[[Feeds], dict[str, Array]]:
        """A forward pass that takes the values of these names in addition to the inputs.

        Args:
            names: The values that are given.
            wanted: Names of the values that it returns; what the walk reads by default.
        """
        given, asked = frozenset(names), tuple(wanted)
        if (given, asked) not in self._forward_given:
            model = with_values_fed(self._model, given)
            rest = [name for name in asked or self._names if name not in given]
            self._forward_given[given, asked] = self._open(model, rest)
        forward = self._forward_given[given, asked]
        graph = self.planned.analysis.model.graph
        made = (v for node in graph for v in node.outputs if v.name in given)
        kinds = {v.name: np.float64 if self._kind == np.float64 else _kind(v) for v in made}

        def run(feeds: Feeds) -> dict[str, Array]:
            fitting = {n: a.astype(kinds[n]) if n in kinds else a for n, a in feeds.items()}
            return self._numbers({**feeds, **forward(fitting)})

        return run

    def _numbers(self, values: Feeds) -> dict[str, Array]:
        return {
            name: value.astype(self._kind) if value.dtype.kind == "f" else value
            for name, value in values.items()
        }

    def propagate(self, values: Mapping[str, Array], seed: Array) -> RawRelevance:
        """Walk back from ``seed``, the multiplier of the explained output, samples first [B, …].

        Relevance is linear in the seed, so that any seed is allowed. ``values`` come from
        :meth:`forward`.
        """
        planned = self.planned
        op = Eager(len(seed), self._kind)
        caught = self._walk(op, values, seed)
        caught.require(*planned.required)
        views = {view.explained: view for view in planned.views}
        arrays = {
            name: views.get(name, replace(planned, explained=name)).tokens(op, relevance)
            for name, relevance in caught.content.items()
        }
        aligns = [view.routes for view in planned.views]
        sinks, *further = gather_sinks(op, planned.sites, caught.positions, aligns)
        entries = {entry_name(e, planned.explained): v for e, v in caught.ledger.items()}
        # Other entries of the output may be infinite: classes that are switched off.
        output = self.subject.by_sample(values[planned.output])
        explained = op.relevance(output.astype(np.float64), seed)
        target = explained.reshape(len(seed), -1).sum(axis=1)
        return RawRelevance(
            content=arrays.pop(planned.explained),
            others=arrays,
            sinks=tuple(sinks),
            ledger=close_ledger(entries, target),
            further_sinks=tuple(map(tuple, further)),
        )

    def multipliers(
        self, values: Mapping[str, Array], seed: Array, watch: Collection[ir.Value]
    ) -> dict[ir.Value, Array]:
        """Multipliers of those of the watched values that receive any, by the same walk."""
        return self._walk(Eager(len(seed), self._kind), values, seed, watch).watched

    def _walk(
        self,
        op: Eager,
        values: Mapping[str, Array],
        seed: Array,
        watch: Collection[ir.Value] = (),
    ) -> Caught[Array]:
        self.subject.refuse_mixing(len(seed))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            sent = self.subject.in_place(seed.astype(self._kind))
            return walk(op, self.planned.plan, self._values_of(values), sent, watch=watch)

    def _values_of(self, values: Mapping[str, Array]) -> Callable[[ir.Value], Array]:
        """Forward values, and stored ones."""
        constants: dict[ir.Value, Array] = {}

        def value_of(value: ir.Value) -> Array:
            name = value.name or ""
            if name in values:
                return values[name]
            if value not in constants:
                assert value.const_value is not None
                array = value.const_value.numpy()
                constants[value] = array.astype(self._kind) if is_float(value) else array
            return constants[value]

        return value_of


def _kind(value: ir.Value) -> np.dtype[Any]:
    """The NumPy type of a value in the file."""
    return np.dtype(np.float32) if value.dtype is None else np.dtype(value.dtype.numpy())
