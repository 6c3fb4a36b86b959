"""Explain: analyse and plan once, run many."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.attribution import LEDGER_ENTRIES, Run
from palrp_onnx.errors import InputError, TargetError, UsageError
from palrp_onnx.forward import Forward, ReferenceForward, RuntimeForward
from palrp_onnx.graph.analysis import Analysis, analyse
from palrp_onnx.graph.axes import BATCH
from palrp_onnx.graph.inputs import is_float
from palrp_onnx.graph.model import Model
from palrp_onnx.graph.roles import Role
from palrp_onnx.graph.sites import Site, find_sites
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Describer, Explanation
from palrp_onnx.relevance.plan import Plan, make_plan, needed_values
from palrp_onnx.relevance.presets import preset
from palrp_onnx.relevance.result import Relevance
from palrp_onnx.relevance.sinks import check_reduction, gather_sinks
from palrp_onnx.relevance.target import parse_target, resolve
from palrp_onnx.relevance.walk import walk
from palrp_onnx.tensor.eager import Eager

Array = NDArray[Any]
Feeds = Mapping[str, Array]


class Explainer:
    """Explains one output of one model.

    Args:
        model: The model, or the path of its file.
        method: ``pa-lrp``, ``attnlrp``, ``pe-only`` or ``cp-lrp``.
        positions: How sinks reduce to one number: ``relu``, ``abs``, ``signed``, ``single-sink``.
        engine: ``numpy``.
        dtype: ``float32``: the forward pass in ONNX Runtime, as deployed; ``float64``: in NumPy.
        device: ``cpu`` or ``cuda[:N]``, for the forward pass.
        output: Name of the explained output; the first that depends on the input by default.
        explain_input: Name of the input whose units the record is about; the first by default.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        method: str = "pa-lrp",
        positions: str = "relu",
        engine: str = "numpy",
        dtype: str = "float32",
        device: str = "cpu",
        output: str | None = None,
        explain_input: str | None = None,
    ) -> None:
        if engine != "numpy":
            raise UsageError(f"Unknown engine {engine!r}", hint="Engines: numpy.")
        if dtype not in ("float32", "float64"):
            raise UsageError(f"Unknown dtype {dtype!r}", hint="float32 or float64.")
        if dtype == "float64" and device != "cpu":
            raise UsageError("float64 runs in NumPy on the CPU", hint="Use --device cpu.")
        self.model = model if isinstance(model, Model) else Model.open(model)
        self.preset = preset(method)
        self.positions = positions
        self.dtype = dtype
        self.device = device
        self._output = output
        self._explain_input = explain_input
        self._prepared: Prepared | None = None
        check_reduction(positions)

    def explain(
        self, sample: Sample, target: str = "pred", labels: Mapping[int, str] | None = None
    ) -> list[Explanation]:
        """Explain one input; one explanation for every row of its batch.

        Args:
            sample: What a reader of :mod:`palrp_onnx.inputs` returned.
            target: ``pred``, an index, a label, ``A-B``, ``token:POS[:ID]`` or ``I,J,…``.
            labels: Names of classes by index.
        """
        start = time.perf_counter()
        wanted = parse_target(target, labels)
        prepared = self.prepare(sample.feeds)
        ready = time.perf_counter()
        values = self.forward(sample.feeds)
        forward = (time.perf_counter() - ready) * 1e3
        output = values[prepared.output]
        mask = prepared.mask(sample.feeds, output.shape[1]) if output.ndim == 3 else None
        rows = range(len(output)) if output.ndim else range(0)
        targets = [resolve(wanted, output[b], None if mask is None else mask[b]) for b in rows]
        if not targets:
            raise TargetError("The output has no batch axis", place=f"output {prepared.output}")
        seed = np.stack([t.seed(row) for t, row in zip(targets, output, strict=True)])
        relevance = self.propagate(values, seed)
        run = self._run(
            prepared, {"forward": forward, "total": (time.perf_counter() - start) * 1e3}
        )
        describe = Describer(
            self.model, prepared.analysis, prepared.explained, run, self.preset.map
        )
        return describe(sample, prepared.output, relevance, targets, labels or {})

    def _run(self, prepared: Prepared, ms: dict[str, float]) -> Run:
        return Run(
            version=version("palrp-onnx"),
            method=self.preset.name,
            params={"positions": self.positions},
            engine="numpy",
            device=self.device,
            dtype="float64" if self.dtype == "float64" else "float32",
            providers=prepared.forward.providers,
            ms={name: round(value, 3) for name, value in ms.items()},
        )

    def prepare(self, feeds: Feeds) -> Prepared:
        """Analyse, plan and open the forward pass, with ``feeds`` as an example; done once.

        Raises:
            InputError: The arrays are not what the graph takes.
            ModelError: The model cannot be explained as asked.
        """
        self._check(feeds)
        if self._prepared is None:
            self._prepared = self._prepare(feeds)
        return self._prepared

    def forward(self, feeds: Feeds) -> dict[str, Array]:
        """Forward values the walk reads, the explained output among them."""
        prepared = self.prepare(feeds)
        values = prepared.forward(feeds)
        kind = np.dtype(self.dtype)
        return {
            name: value.astype(kind) if value.dtype.kind == "f" and value.dtype != kind else value
            for name, value in {**feeds, **values}.items()
        }

    def propagate(self, values: Mapping[str, Array], seed: Array) -> Relevance:
        """Walk back from ``seed``, the multiplier of the explained output [B, …].

        Any seed is allowed: relevance is linear in it. ``values`` come from :meth:`forward`.
        """
        assert self._prepared is not None, "prepare first"
        prepared = self._prepared
        if len(seed) > 1 and (mixing := prepared.mixing()):
            raise InputError(
                "The model mixes the samples of a batch", place=mixing, hint="Explain them singly."
            )
        kind = np.dtype(self.dtype)
        batch = seed.shape[0]
        op = Eager(batch, kind)
        constants: dict[ir.Value, Array] = {}

        def value_of(value: ir.Value) -> Array:
            name = value.name or ""
            if name in values:
                return values[name]
            if value not in constants:
                assert value.const_value is not None
                array = value.const_value.numpy()
                constants[value] = array.astype(kind) if is_float(value) else array
            return constants[value]

        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            caught = walk(op, prepared.plan, value_of, seed.astype(kind))
        tokens = {name: self._tokens(op, name, r) for name, r in caught.content.items()}
        if prepared.explained not in tokens:
            raise TargetError(
                "The explained output does not depend on the explained input",
                place=f"input {prepared.explained}",
            )
        target = (values[prepared.plan.output.name or ""].astype(np.float64) * seed).reshape(
            batch, -1
        )
        return Relevance(
            content=tokens.pop(prepared.explained),
            others=tokens,
            sinks=tuple(gather_sinks(op, prepared.sites, caught.positions)),
            ledger=close_books(caught.ledger, target.sum(axis=1), prepared.explained),
            values=values,
        )

    def _tokens(self, op: Eager, name: str, relevance: Array) -> Array:
        """[B, T, F] for anything but images."""
        if relevance.ndim == 4:
            return relevance
        if relevance.ndim == 2:
            return relevance[..., None]
        features = range(2, relevance.ndim)
        return op.arrange(relevance, batch_axis=0, token_axes=(1,), feature_axes=features)

    def _prepare(self, feeds: Feeds) -> Prepared:
        model = self.model
        analysis = analyse_model(model, feeds)
        plan = make_plan(analysis, find_output(analysis, self._output), self.preset)
        names = [v.name for v in needed_values(plan, walk) if v.name and _computed(v)]
        names.append(plan.output.name or "")
        forward: Forward
        if self.dtype == "float64":
            forward = ReferenceForward(model, names)
        else:
            forward = RuntimeForward(model, names, device=self.device)
        return Prepared(
            analysis, plan, find_sites(analysis), forward, self._find_explained(analysis)
        )

    def _find_explained(self, analysis: Analysis) -> str:
        names = analysis.inputs.named(Role.CONTENT)
        if self._explain_input is None:
            return names[0]
        if self._explain_input not in names:
            raise UsageError(
                f"{self._explain_input!r} is not an input that can be explained",
                hint=f"Explained inputs: {', '.join(names)}.",
            )
        return self._explain_input

    def _check(self, feeds: Feeds) -> None:
        wanted = [s.name for s in self.model.inputs]
        missing = [name for name in wanted if name not in feeds]
        unknown = [name for name in feeds if name not in wanted]
        if missing or unknown:
            problem = f"missing {missing}" if missing else f"unknown {unknown}"
            raise InputError(
                f"The arrays do not fit the graph's inputs: {problem}", hint=f"Inputs: {wanted}."
            )
        sizes = {len(array) for array in feeds.values() if array.ndim}
        if len(sizes) != 1 or 0 in sizes:
            raise InputError(f"The arrays have batch sizes {sorted(sizes)}; one was expected")
        for name, array in feeds.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError("The input holds NaN or infinity", place=f"input {name}")


@dataclass(frozen=True)
class Prepared:
    """A model analysed, planned and opened for one way of explaining it."""

    analysis: Analysis
    plan: Plan
    sites: tuple[Site, ...]
    forward: Forward
    explained: str

    @property
    def output(self) -> str:
        """Name of the explained output."""
        return self.plan.output.name or ""

    def mixing(self) -> str | None:
        """A value two of whose axes run over the batch, so that samples are not separate."""
        axes = self.analysis.axes
        mixed = (s.meeting for s in self.plan.steps if sum(f & BATCH for f in axes[s.meeting]) > 1)
        return next((f"value {value.name!r}" for value in mixed), None)

    def mask(self, feeds: Feeds, length: int) -> Array | None:
        """The attention mask [B, T], where the graph has one of this length."""
        for name in self.analysis.inputs.named(Role.MASK):
            if feeds[name].ndim == 2 and feeds[name].shape[1] == length:
                return feeds[name]
        return None


def analyse_model(model: Model, feeds: Feeds) -> Analysis:
    """Annotate the graph, with the trial run in ONNX Runtime."""

    def run(probe: Feeds, names: Iterable[str]) -> Mapping[str, Array]:
        wanted = [n for n in names if n not in probe]
        return {**probe, **RuntimeForward(model, wanted)(probe)}

    return analyse(model, feeds, run)


def find_output(analysis: Analysis, name: str | None) -> ir.Value:
    """The output of this name, or the first that depends on the explained input.

    Raises:
        TargetError: There is none.
    """
    outputs = {v.name: v for v in analysis.model.graph.outputs}
    if name is not None:
        if name not in outputs:
            names = ", ".join(str(known) for known in outputs)
            raise TargetError(f"There is no output {name!r}", hint=f"Outputs: {names}.")
        return outputs[name]
    found = next((v for v in outputs.values() if v in analysis.content), None)
    if found is None:
        raise TargetError("No output depends on the explained input by a real-valued path")
    return found


def _computed(value: ir.Value) -> bool:
    """Whether a value comes out of the forward pass, not out of the file or the feeds."""
    return value.producer() is not None


def close_books(ledger: Mapping[str, Array], target: Array, explained: str) -> dict[str, Array]:
    """Entries in float64, the explained input's as ``content``, and what is left of the target.

    residual = target − Σ entries; residual_relative = residual / Σ |entries|.
    """
    entries = {entry: np.zeros_like(target) for entry in LEDGER_ENTRIES}
    for entry, amount in ledger.items():
        name = entry.removeprefix("input:")
        entries["content" if name == explained and name != entry else name] = amount
    total = sum(entries.values(), np.zeros_like(target))
    scale = sum((np.abs(e) for e in entries.values()), np.zeros_like(target))
    residual = target - total
    relative = np.divide(residual, scale, out=np.zeros_like(residual), where=scale > 0)
    return {"target": target, **entries, "residual": residual, "residual_relative": relative}
