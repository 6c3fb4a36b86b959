"""The two engines: the same walk, computed in NumPy or compiled into the model's own graph."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.compiler import (
    AGAINST,
    LEDGER,
    PREFIX,
    TARGET,
    TARGET_POSITION,
    Settings,
    compile_graph,
)
from palrp_onnx.errors import TargetError, UsageError
from palrp_onnx.forward import Forward, ReferenceForward, RuntimeForward, open_session, run_session
from palrp_onnx.graph.inputs import is_float
from palrp_onnx.planning import Planned, check_feeds
from palrp_onnx.relevance.ledger import close_books, entry_name
from palrp_onnx.relevance.plan import needed_values
from palrp_onnx.relevance.result import Relevance
from palrp_onnx.relevance.sinks import Sink, bring_to_tokens, gather_sinks
from palrp_onnx.relevance.target import Resolved, Target, resolve
from palrp_onnx.relevance.walk import walk
from palrp_onnx.tensor.eager import Eager

Array = NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Outcome:
    """What an engine hands back: where the target lies in every row, and the relevance."""

    targets: list[Resolved]
    relevance: Relevance
    ms: dict[str, float]


class Engine(Protocol):
    """An opened engine. ``name`` and ``providers`` go into the record."""

    name: str
    providers: list[str]
    planned: Planned

    def explain(self, feeds: Feeds, target: Target) -> Outcome:
        """Explain one batch."""
        ...


class NumpyEngine:
    """The auditor's engine: forward values from a forward pass, the walk in NumPy."""

    name = "numpy"

    def __init__(self, planned: Planned, *, dtype: str, device: str) -> None:
        self.planned = planned
        self._kind = np.dtype(dtype)
        model = planned.analysis.model
        names = [v.name for v in needed_values(planned.plan, walk) if v.name and v.producer()]
        names.append(planned.output)
        self._forward: Forward
        if dtype == "float64":
            self._forward = ReferenceForward(model, names)
        else:
            self._forward = RuntimeForward(model, names, device=device)
        self.providers = self._forward.providers

    def explain(self, feeds: Feeds, target: Target) -> Outcome:
        """Explain one batch."""
        start = time.perf_counter()
        values = self.forward(feeds)
        forward = (time.perf_counter() - start) * 1e3
        output = values[self.planned.output]
        targets = find_targets(self.planned, feeds, output, target)
        seed = np.stack([t.seed(row) for t, row in zip(targets, output, strict=True)])
        return Outcome(targets, self.propagate(values, seed), {"forward": forward})

    def forward(self, feeds: Feeds) -> dict[str, Array]:
        """Forward values the walk reads, the explained output among them."""
        check_feeds(self.planned.analysis.model, feeds)
        values = {**feeds, **self._forward(feeds)}
        return {
            name: value.astype(self._kind) if value.dtype.kind == "f" else value
            for name, value in values.items()
        }

    def propagate(self, values: Mapping[str, Array], seed: Array) -> Relevance:
        """Walk back from ``seed``, the multiplier of the explained output [B, …].

        Any seed is allowed: relevance is linear in it. ``values`` come from :meth:`forward`.
        """
        planned = self.planned
        planned.refuse_mixing(len(seed))
        op = Eager(len(seed), self._kind)
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

        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            caught = walk(op, planned.plan, value_of, seed.astype(self._kind))
        caught.require(planned.explained)
        arrays = {name: bring_to_tokens(op, r, r.ndim) for name, r in caught.content.items()}
        entries = {entry_name(e, planned.explained): v for e, v in caught.ledger.items()}
        output = values[planned.output].astype(np.float64)
        target = (output * seed).reshape(len(seed), -1).sum(axis=1)
        return Relevance(
            content=arrays.pop(planned.explained),
            others=arrays,
            sinks=tuple(gather_sinks(op, planned.sites, caught.positions)),
            ledger=close_books(entries, target),
        )


class RuntimeEngine:
    """The relevance pass as nodes behind the forward graph, in one ONNX Runtime session.

    ``planned`` must be of a model that nobody else uses: compiling appends to its graph.
    """

    name = "onnxruntime"

    def __init__(self, planned: Planned, *, positions: str, device: str) -> None:
        self.planned = planned
        compiled = compile_graph(planned, Settings(positions=positions, features=True))
        facts = compiled.metadata_props
        self._sites = [tuple(site) for site in json.loads(facts[f"{PREFIX}.sites"])]
        self._entries = json.loads(facts[f"{PREFIX}.ledger"])
        self._session = open_session(
            ir.serde.serialize_model(compiled),
            planned.analysis.model.path,
            device=device,
            optimise=True,
        )
        self.providers = list(self._session.get_providers())
        self._inputs = {i.name for i in self._session.get_inputs()} | {
            i.name for i in self._session.get_overridable_initializers()
        }

    def explain(self, feeds: Feeds, target: Target) -> Outcome:
        """Explain one batch."""
        planned = self.planned
        check_feeds(planned.analysis.model, feeds)
        samples = len(feeds[planned.explained])
        planned.refuse_mixing(samples)
        start = time.perf_counter()
        chosen = {k: np.full(samples, v, np.int64) for k, v in _indices(target).items()}
        unknown = set(chosen) - self._inputs
        if unknown:
            raise TargetError("The output has no token axis", hint="Use a class index or label.")
        names = [o.name for o in self._session.get_outputs()]
        values = run_session(self._session, names, {**feeds, **chosen})
        session = (time.perf_counter() - start) * 1e3
        output = values[planned.output]
        targets = find_targets(planned, feeds, output, target)
        sums = np.array([t.value for t in targets])
        entries = dict(zip(self._entries, values[LEDGER].T.astype(np.float64), strict=True))
        sinks = [
            Sink(kind, layer, part, (r := values[f"site/{layer}/{part}"]), r.shape[-1])
            for kind, layer, part in self._sites
        ]
        relevance = Relevance(
            content=values["content"],
            others={
                k.removeprefix("input/"): v for k, v in values.items() if k.startswith("input/")
            },
            sinks=tuple(sinks),
            ledger=close_books(entries, sums),
        )
        return Outcome(targets, relevance, {"session": session})


def _indices(target: Target) -> dict[str, int]:
    """The target as inputs of the compiled graph."""
    if target.kind == "element" or min(target.index or 0, target.against or 0) < 0:
        raise UsageError(
            "The compiled graph takes classes counted from zero, no other elements",
            hint="Use --engine numpy.",
        )
    named = {TARGET: target.index, AGAINST: target.against, TARGET_POSITION: target.position}
    return {name: index for name, index in named.items() if index is not None}


def find_targets(planned: Planned, feeds: Feeds, output: Array, target: Target) -> list[Resolved]:
    """The target in every row of the output.

    Raises:
        TargetError: The output has no such element.
    """
    mask = planned.mask(feeds, output.shape[1]) if output.ndim == 3 else None
    return [
        resolve(target, row, None if mask is None else mask[index])
        for index, row in enumerate(output)
    ]
