"""The explainer: a model is analysed and planned once, and explains many inputs."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from msgspec import structs

from palrp_onnx.analysis.roles import parse_roles
from palrp_onnx.compiler.graph import OPSET, CompileSettings, compile_graph
from palrp_onnx.compiler.manifest import Manifest
from palrp_onnx.describe import Describer, Explanation
from palrp_onnx.engines import CompiledEngine, Engine, NumpyEngine
from palrp_onnx.errors import (
    InputError,
    LaterOpsetError,
    ModelError,
    RunError,
    TargetError,
    UsageError,
)
from palrp_onnx.fidelity import Original
from palrp_onnx.head import Head, find_head
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.sidecar import Declared, read_declared
from palrp_onnx.inputs.vectors import read_vector
from palrp_onnx.machine import free_memory
from palrp_onnx.model.branches import has_decisions
from palrp_onnx.model.open import Model, parse_model
from palrp_onnx.prepare import Planned, check_feeds, plan_model, shapes_of
from palrp_onnx.record import Run
from palrp_onnx.relevance.ledger import is_open
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.method_parsing import method as method_of
from palrp_onnx.relevance.method_parsing import resolve_method
from palrp_onnx.relevance.methods import record_params
from palrp_onnx.relevance.sinks import check_reduction
from palrp_onnx.relevance.target import Target
from palrp_onnx.relevance.target_parsing import parse_targets
from palrp_onnx.runtime.branching import Branches, Taken
from palrp_onnx.subject import Subject
from palrp_onnx.types import Feeds, Shape
from palrp_onnx.zero_maps import WARNING, find_zero_maps

ENGINES = ("onnxruntime", "numpy")
DEFAULT_POSITIONS = "relu"

#: Ways to use memory.
MEMORY = ("auto", "fast", "bounded")
#: Share of the free memory that values of the forward pass may take before less is kept.
_SHARE = 0.6
#: Largest number of open engines, one for each way in which inputs decide.
_MAX_ENGINES = 4


#: Shapes of inputs by name → bytes.
Kept = Callable[[Mapping[str, Shape]], int]


@dataclass(frozen=True)
class _Opened:
    """An engine, and the file to compare its output with if the graph was rewritten."""

    engine: Engine
    original: Original | None
    #: Bytes that the engine keeps for inputs of these shapes, where another would keep less.
    kept: Kept | None = None


class Explainer:
    """Explains one output of one model.

    Args:
        model: The model or the path of its file, which may also be a compiled explainer.
        method: ``pa-lrp`` (default) or another of :func:`palrp_onnx.method`, optionally with
            parameters, as in ``pa-lrp-gamma:gamma=0.1``; or an object.
        positions: How sinks are reduced to one number per unit: ``relu`` (default), ``abs``,
            ``signed`` or ``single-sink``.
        engine: ``onnxruntime`` (default): forward and relevance pass in one graph; ``numpy``: the
            relevance pass in NumPy.
        dtype: ``float32``: the forward pass in ONNX Runtime, as deployed; ``float64``: in NumPy.
        device: Device of ONNX Runtime: ``cpu`` or ``cuda[:N]``.
        output: Name of the explained output; by default the first that depends on the input.
        explain_input: Name of the input whose units get relevance; the first by default.
        roles: Overrides of roles, by name of the value: content, position, segment, mask or
            parameter.
        memory: ``fast`` keeps all values of the forward pass that the way back reads; ``bounded``
            keeps few and computes the others again, layer by layer, in the memory of about one
            layer; ``auto`` (default) is ``bounded`` where what is kept for the shapes of an input
            would take more than 0.6 of the free memory of the machine.
        once: Open quickly and in little memory, for a single explanation; otherwise explanations
            are faster.

    Raises:
        UsageError: An option is unknown, or two options contradict each other.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        method: Method | str | None = None,
        positions: str | None = None,
        engine: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        output: str | None = None,
        explain_input: str | None = None,
        roles: Mapping[str, str] | None = None,
        memory: str | None = None,
        once: bool = False,
    ) -> None:
        if engine is None:
            engine = "numpy" if dtype == "float64" else "onnxruntime"
        if engine not in ENGINES:
            raise UsageError(f"Unknown engine {engine!r}", hint=f"Engines: {', '.join(ENGINES)}.")
        if dtype not in ("float32", "float64"):
            raise UsageError(f"Unknown dtype {dtype!r}", hint="float32 or float64.")
        if dtype == "float64" and (device != "cpu" or engine != "numpy"):
            raise UsageError(
                "float64 runs in NumPy on the CPU", hint="Use --engine numpy --device cpu."
            )
        if memory is not None and memory not in MEMORY:
            raise UsageError(f"Unknown memory {memory!r}", hint=f"One of {', '.join(MEMORY)}.")
        if memory == "bounded" and engine != "onnxruntime":
            raise UsageError(
                "The NumPy engine keeps all values of the forward pass",
                hint="Use --engine onnxruntime for --memory bounded.",
            )
        self.model = model if isinstance(model, Model) else Model.open(model)
        self._manifest = Manifest.read(self.model.metadata)
        if self._manifest is not None:
            self.method = self._manifest.own or method_of(self._manifest.method)
            wanted = {
                "positions": positions,
                "output": output,
                "input": explain_input,
                "memory": None if memory == "auto" else memory,
            }
            other = method is not None and resolve_method(method) != self.method
            _refuse_changes(self._manifest, wanted, engine, other=other)
            if roles and dict(roles) != self._manifest.roles:
                raise UsageError(
                    "An explainer has its roles compiled in",
                    hint="Explain the model it was compiled from, or compile that again.",
                )
            roles, positions = self._manifest.roles, self._manifest.positions
        else:
            self.method = resolve_method(method)
        self.positions = positions or DEFAULT_POSITIONS
        check_reduction(self.positions)
        self.dtype = dtype
        self.device = device
        self._kind = engine
        self._output = output
        self._explain_input = explain_input
        self._roles = parse_roles(roles or {})
        self._memory = memory or MEMORY[0]
        self._once = once
        self._branches: Branches | None = None
        self._opened: OrderedDict[Taken, _Opened] = OrderedDict()
        self._declared: Declared | None = None

    def explain(
        self, sample: Sample, target: str = "pred", labels: Mapping[int, str] | None = None
    ) -> list[Explanation]:
        """Explain one input: one explanation for every row of its batch and every target.

        Args:
            sample: The result of a reader of :mod:`palrp_onnx.inputs`.
            target: ``pred``, an index, a label, ``A-B``, ``token:POS[:ID]``, ``I,J,…``,
                ``dot:FILE.npy`` or ``cos:FILE.npy``; also ``all``, or several, separated by commas:
                then every row has an explanation for each, in this order.
            labels: Names of classes by index.

        Raises:
            TargetError: There is no such target, or its text can be read in several ways.
            InputError: The sample, the vector or ``config.json`` cannot be used.
        """
        if (filled := self._filled(sample)) is not None:
            subject = self.engine(filled.feeds).subject
            count = subject.samples(filled.feeds)
            if count == 1:
                raise InputError(
                    "The samples of the batch, which has a fixed length, are combined, so that "
                    "copies of one cannot fill it up",
                    place=f"input {subject.input}",
                    hint="Export the model with a batch of any length, or pass the whole batch.",
                )
            rows = self.explain(filled, target, labels)
            own = rows[: len(rows) // count]
            names = [sample.id] if len(own) == 1 else [f"{sample.id}-{k}" for k in range(len(own))]
            return [_numbered(each, name) for each, name in zip(own, names, strict=True)]
        samples = self._singly(sample)
        if len(samples) > 1:
            return [each for one in samples for each in self.explain(one, target, labels)]
        wanted = [self._with_vector(each) for each in parse_targets(target, labels)]
        if wanted[0].kind == "all":
            wanted = self._every_class(sample, labels or {})
        found = [self._explain_one(sample, each, labels or {}) for each in wanted]
        rows = [each for row in zip(*found, strict=True) for each in row]
        if len(wanted) == 1:
            return rows
        return [_numbered(each, f"{sample.id}-{k}") for k, each in enumerate(rows)]

    def _filled(self, sample: Sample) -> Sample | None:
        """One text or image, repeated to fill up a batch of fixed length; else ``None``."""
        fixed = {s.name: s.shape[0] for s in self.model.inputs if s.shape and len(s.shape) > 1}
        short = {
            name: size
            for name, size in fixed.items()
            if isinstance(size, int) and len(sample.feeds.get(name, ())) == 1 < size
        }
        if sample.kind == "tensors" or not short:
            return None
        rows = {n: a.repeat(short[n], 0) if n in short else a for n, a in sample.feeds.items()}
        return replace(sample, feeds=rows)

    def _explain_one(
        self, sample: Sample, wanted: Target, labels: Mapping[int, str]
    ) -> list[Explanation]:
        start = time.perf_counter()
        opened = self._open_for(sample.feeds)
        engine = opened.engine
        try:
            outcome = engine.explain(sample.feeds, wanted)
        except RunError as error:
            raise _of_text(error, sample) from error
        fidelity = None
        original = opened.original
        if original is None and self._manifest is None and is_open(outcome.ledger):
            original = Original(self.model, engine.subject.output, device=self.device)
        if original is not None:  # compare with the file
            unmasked = None
            if self.dtype == "float64" and outcome.output.ndim == 3:
                mask = engine.subject.output_mask(sample.feeds, outcome.output.shape[1])
                if mask is not None:
                    each = np.broadcast_to(mask[:, :, None], outcome.output.shape)
                    unmasked = engine.subject.in_place(each)
            output = engine.subject.in_place(outcome.output)
            found = original.check(sample.feeds, output, outcome.ledger, unmasked)
            fidelity = found if found.rewritten else None
        head = self.head(engine.subject, outcome.output.shape, labels)
        head.check(wanted, engine.subject.output, labels)
        zero = find_zero_maps(engine, sample.feeds, wanted, outcome)
        run = self._run(engine, {**outcome.ms, "total": (time.perf_counter() - start) * 1e3})
        described = Describer(engine.subject, run, head, fidelity)(sample, outcome, labels)
        return [_warned(each) if row in zero else each for row, each in enumerate(described)]

    def _singly(self, sample: Sample) -> list[Sample]:
        """The sample, or its rows as separate samples if they would depend on each other.

        They do if a row alone decides about branches or loops otherwise than all together. If all
        rows of two inputs are multiplied into one table, each row of the explained input stays with
        all rows of the other.
        """
        subject = self.engine(sample.feeds).subject
        count = subject.samples(sample.feeds)
        if subject.mixed is not None or count == 1:
            return [sample]
        rows = [
            replace(sample, id=f"{sample.id}-{row}", feeds=subject.one(sample.feeds, row))
            for row in range(count)
        ]
        if subject.crossed or subject.measured:
            return rows
        together = self.decisions(sample.feeds)
        same = not together or all(self.decisions(row.feeds) == together for row in rows)
        return [sample] if same else rows

    def head(self, subject: Subject, shape: tuple[int, ...], labels: Mapping[int, str]) -> Head:
        """Facts about the entries of an output with this shape, which includes the batch axis.

        Raises:
            InputError: ``config.json`` in the model's folder is malformed.
        """
        if self._declared is None:
            self._declared = read_declared(self.model.path)
        return find_head(subject, shape, self._declared, labels)

    def _with_vector(self, target: Target) -> Target:
        """The target with its vector, if it is a product with one."""
        if target.file is None:
            return target
        return replace(target, vector=read_vector(Path(target.file)))

    def _every_class(self, sample: Sample, labels: Mapping[int, str]) -> list[Target]:
        """One target for each entry of the output's last axis.

        Raises:
            TargetError: The entries are the vocabulary, or those of a token are not known to be
                classes.
        """
        engine = self.engine(sample.feeds)
        subject, outcome = engine.subject, engine.explain(sample.feeds, Target("pred"))
        head = self.head(subject, outcome.output.shape, labels)
        if head.vocabulary or (outcome.output.ndim > 2 and not head.classes):
            raise TargetError(
                f"The {head.size} entries of the output are not known to be classes",
                place=f"output {subject.output}",
                hint="Name the entries to explain: --target index:0,index:1.",
            )
        return [Target("index", index) for index in range(head.size)]

    def generate(
        self,
        sample: Sample,
        count: int,
        extend: Callable[[Sample, int], Sample],
        ends: Collection[int] = (),
    ) -> Iterator[Explanation]:
        """Continue a text greedily, and explain every generated token.

        Args:
            sample: A text, one row.
            count: Largest number of generated tokens.
            extend: Appends a token to a sample: :meth:`palrp_onnx.inputs.Continuation.extend`.
            ends: Ids of the tokens that end a text.

        Raises:
            UsageError: The model does not predict a next token, or the sample has several rows.
        """
        name = sample.id
        for step in range(count):
            explanations = self.explain(replace(sample, id=f"{name}-{step}"))
            target = explanations[0].record.target
            if len(explanations) > 1 or target.kind != "token":
                raise UsageError(
                    "Only a model that predicts the next token can continue, one text at a time",
                    place=f"output {target.output}",
                )
            assert isinstance(target.index, int)
            sample = extend(sample, target.index)
            yield _labelled(explanations[0], sample)
            if target.index in ends:
                return

    def engine(self, feeds: Feeds) -> Engine:
        """The open engine. The model is analysed and planned once, with ``feeds`` as an example.

        If inputs decide about branches and loops, this is done once for every way to decide.

        Raises:
            InputError: The arrays do not fit the graph.
            ModelError: The model cannot be explained with these options.
        """
        return self._open_for(feeds).engine

    def _open_for(self, feeds: Feeds) -> _Opened:
        taken = self.decisions(feeds)
        if taken not in self._opened:
            self._opened[taken] = self._open(feeds, self._memory)
        if _outgrown(self._opened[taken].kept, feeds):
            del self._opened[taken]
            self._opened[taken] = self._open(feeds, "bounded")
        self._opened.move_to_end(taken)
        while len(self._opened) > _MAX_ENGINES:
            self._opened.popitem(last=False)
        return self._opened[taken]

    def decisions(self, feeds: Feeds) -> Taken:
        """What this input decides: branches, rounds of loops; nothing in a compiled explainer."""
        if self._manifest is not None or not has_decisions(self.model):
            return ()
        check_feeds(self.model.inputs, feeds)
        if self._branches is None:
            self._branches = Branches(self.model)
        return self._branches.taken(feeds)

    def _open(self, feeds: Feeds, memory: str) -> _Opened:
        if self._manifest is not None:
            return _Opened(self._open_explainer(self._manifest), None)
        if self._kind != "onnxruntime":
            return self._planned(self._at_usual_opset(), feeds, memory)
        try:
            return self._planned(self.model.at_opset(OPSET), feeds, memory)
        except LaterOpsetError as error:
            return self._planned(self.model.at_opset(error.opset), feeds, memory)

    def _at_usual_opset(self) -> Model:
        """The model as it is compiled too; in its own opset where it cannot be raised."""
        try:
            return self.model.at_opset(OPSET)
        except ModelError:
            return self.model

    def _planned(self, model: Model, feeds: Feeds, memory: str) -> _Opened:
        planned = plan_model(
            model,
            feeds,
            self.method,
            output=self._output,
            explain_input=self._explain_input,
            roles=self._roles,
        )
        rewritten = planned.analysis.model
        original = None
        if rewritten.changes or self.dtype == "float64":
            original = Original(rewritten, planned.output, device=self.device)
        adapts = memory == "auto" and self._kind == "onnxruntime" and self.device == "cpu"
        kept = planned.kept() if adapts else None
        if _outgrown(kept, feeds):
            memory, kept = "bounded", None
        return _Opened(self._engine_of(planned, feeds, memory), original, kept)

    def _engine_of(self, planned: Planned, feeds: Feeds, memory: str) -> Engine:
        if self._kind != "onnxruntime":
            return NumpyEngine(
                planned, positions=self.positions, dtype=self.dtype, device=self.device
            )
        graph, manifest = compile_graph(
            planned,
            CompileSettings(
                positions=self.positions,
                features=True,
                memory="bounded" if memory == "bounded" else "fast",
            ),
            shapes_of(feeds),
        )
        return self._compiled(graph, manifest)

    def _open_explainer(self, manifest: Manifest) -> Engine:
        if not manifest.ledger:
            raise UsageError(
                "The explainer was compiled without its ledger, which every record needs",
                place=str(self.model.path),
                hint="Compile without --no-ledger.",
            )
        return self._compiled(parse_model(self.model.path), manifest)

    def _compiled(self, graph: ir.Model, manifest: Manifest) -> Engine:
        return CompiledEngine(
            graph,
            manifest,
            self.model.inputs,
            folder=self.model.folder,
            device=self.device,
            prepack=not self._once,
        )

    def _run(self, engine: Engine, ms: dict[str, float]) -> Run:
        return Run(
            version=version("palrp-onnx"),
            method=self.method.text,
            params=self._params(engine),
            engine=engine.name,
            device=self.device,
            dtype="float64" if self.dtype == "float64" else "float32",
            providers=engine.providers,
            ms={name: round(value, 3) for name, value in ms.items()},
        )

    def _params(self, engine: Engine) -> dict[str, Any]:
        roles = {name: role.value for name, role in self._roles.items()}
        found = {"positions": self.positions, **({"roles": roles} if roles else {})}
        if isinstance(engine, CompiledEngine) and engine.manifest.memory != "fast":
            found["memory"] = engine.manifest.memory
        return {**found, **record_params(self.method)}


def _outgrown(kept: Kept | None, feeds: Feeds) -> bool:
    """Whether what is kept for these arrays leaves too little of the machine's memory."""
    if kept is None or (free := free_memory()) is None:
        return False
    return kept(shapes_of(feeds)) > _SHARE * free


def _of_text(error: RunError, sample: Sample) -> RunError:
    """The error for a text, which may be longer than the model takes."""
    if sample.kind != "text" or sample.units is None:
        return error
    return RunError(
        f"The model does not run on the {len(sample.units.id)} tokens of this text",
        place=sample.id,
        hint="If it takes fewer, state how many: model_max_length in tokenizer_config.json. "
        + error.hint,
    )


def _numbered(explanation: Explanation, name: str) -> Explanation:
    """The explanation under another id."""
    return replace(explanation, record=structs.replace(explanation.record, id=name))


def _labelled(explanation: Explanation, grown: Sample) -> Explanation:
    """The explanation, with the text of the generated token as label."""
    record = explanation.record
    label = grown.units.text[-1] if grown.units is not None else None
    target = structs.replace(record.target, label=label)
    return replace(explanation, record=structs.replace(record, target=target))


def _warned(explanation: Explanation) -> Explanation:
    """The explanation, with the warning that its map is zero everywhere."""
    record = explanation.record
    return replace(
        explanation, record=structs.replace(record, warnings=[*record.warnings, WARNING])
    )


def _refuse_changes(
    manifest: Manifest, wanted: Mapping[str, str | None], engine: str, *, other: bool
) -> None:
    """Refuse options that differ from those of the compiled explainer.

    Args:
        manifest: The options that were compiled.
        wanted: The given options; ``None``: not given.
        engine: The given engine.
        other: Whether another method was given.

    Raises:
        UsageError: An option differs.
    """
    fixed = structs.asdict(manifest)
    changed = ["method"] if other else []
    changed += [name for name, value in wanted.items() if value not in (None, fixed[name])]
    if engine != "onnxruntime":
        changed.append("engine")
    if changed:
        raise UsageError(
            f"An explainer has its {' and '.join(changed)} compiled in",
            hint="Explain the model it was compiled from, or compile that again.",
        )
