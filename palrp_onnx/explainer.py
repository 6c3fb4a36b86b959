"""The explainer: a model is analysed and planned once, and explains many inputs."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import UNSET, UnsetType, structs

from palrp_onnx.analysis.roles import parse_roles
from palrp_onnx.binding import BELOW_HALF, Binder, no_answer
from palrp_onnx.cache.engines import Compiled, Recall
from palrp_onnx.cache.folder import CacheFolder
from palrp_onnx.cache.models import StoredModel, open_model
from palrp_onnx.clock import utc_now
from palrp_onnx.compiler.manifest import Manifest
from palrp_onnx.compiler.runnable import Runnable
from palrp_onnx.describe import Describer, labels_of, prediction
from palrp_onnx.engines import CompiledEngine, Engine
from palrp_onnx.errors import (
    InputError,
    LaterOpsetError,
    ModelError,
    ResourceError,
    RunError,
    TargetError,
    UsageError,
)
from palrp_onnx.explanation import Explanation
from palrp_onnx.fidelity import Original
from palrp_onnx.head import Head, check_kind, class_warnings, find_head
from palrp_onnx.inputs.digests import file_digests
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.sidecar import Declared, read_declared
from palrp_onnx.inputs.words import Vocabulary, usable_vocabulary
from palrp_onnx.machine import Memory, Room
from palrp_onnx.model.signature import GraphInput, check_feeds, shapes_of
from palrp_onnx.record import Prediction, Run, Warning_
from palrp_onnx.relevance.ledger import is_open
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.method_parsing import method as method_of
from palrp_onnx.relevance.method_parsing import resolve_method
from palrp_onnx.relevance.methods import own_method, record_params
from palrp_onnx.relevance.sinks import check_reduction
from palrp_onnx.relevance.target import End, Resolved, Target, bounded, of_rows, resolve
from palrp_onnx.relevance.target_parsing import parse_targets
from palrp_onnx.runtime.saved import GraphForward, SavedGraph
from palrp_onnx.session import return_memory, runtime_version
from palrp_onnx.subject import OutputFacts, Subject
from palrp_onnx.types import Array, Feeds
from palrp_onnx.version import own_version
from palrp_onnx.windows import LongText, join_windows
from palrp_onnx.zero_maps import find_zero_maps, warning

if TYPE_CHECKING:
    from palrp_onnx.model.open import Model
    from palrp_onnx.prepare import Planned
    from palrp_onnx.runtime.branching import Branches, Taken

ENGINES = ("onnxruntime", "numpy")
DEFAULT_POSITIONS = "relu"

#: Axes of an output with one row a sample.
_ONE_ROW = 2
#: Kinds of targets that an answer may be.
_ANSWERS = ("default", "pred", "answer")
_ENDS: tuple[End, End] = ("start", "end")
#: Largest number of open engines, one for each way in which inputs decide.
_MAX_ENGINES = 4


@dataclass(frozen=True)
class _Opened:
    """An engine, and the file to compare its output with if the graph was rewritten."""

    engine: Engine
    original: Original | None
    #: Room for what the engine keeps, where another would keep less.
    room: Room | None = None
    #: Whether it is of an entry, which only knows a bound of what is kept.
    stored: bool = False

    def fits(self, feeds: Feeds) -> bool:
        """Whether there is room for what the engine keeps for these arrays."""
        try:
            return self.room is None or self.room.fits(shapes_of(feeds))
        except ResourceError:
            if not self.stored:
                raise
            return False  # as far as a bound tells


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
        explain_input: Name of the input whose units get relevance, or several; by default all that
            the output depends on.
        roles: Overrides of roles, by name of the value: content, position, segment, mask or
            parameter.
        memory: ``fast`` keeps all values of the forward pass that the way back reads; ``bounded``
            keeps few and computes the others again, layer by layer, in the memory of about one
            layer; ``auto`` (default) is ``bounded`` where what is kept for the shapes of an input
            would take more than 0.6 of the free memory of the machine; on a GPU, where its memory
            runs out. A size, as in ``6GB``, is a limit of what the process may take: ``bounded``
            is chosen where that is needed.
        once: Open quickly and in little memory, for a single explanation; otherwise explanations
            are faster.
        tokenizer: The tokenizer, a file or a folder, if it is not beside the model: it says which
            token of the vocabulary a text is.
        head: The kind of head, where the graph and ``config.json`` say another or none: one of
            :data:`palrp_onnx.heads.HEADS`.
        cache: Whether facts of the model and compiled graphs are kept in the user's cache, and
            taken from there: see :mod:`palrp_onnx.cache`. Only where ``model`` is a path.
        reader: Reads further inputs that targets name, as in ``similarity:other.txt``; by default
            as :func:`palrp_onnx.inputs.open_sample` does.

    Raises:
        UsageError: An option is unknown, or two options contradict each other.
    """

    def __init__(
        self,
        model: Model | StoredModel | str | Path,
        *,
        method: Method | str | None = None,
        positions: str | None = None,
        engine: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        output: str | None = None,
        explain_input: str | Sequence[str] | None = None,
        roles: Mapping[str, str] | None = None,
        memory: str | None = None,
        once: bool = False,
        tokenizer: Path | None = None,
        head: str | None = None,
        cache: bool = True,
        reader: Callable[[Path], Sample] | None = None,
    ) -> None:
        named = (explain_input,) if isinstance(explain_input, str) else tuple(explain_input or ())
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
        self._memory = Memory.of(memory)
        if self._memory.way == "bounded" and engine != "onnxruntime":
            raise UsageError(
                "The NumPy engine keeps all values of the forward pass",
                hint="Use --engine onnxruntime for --memory bounded.",
            )
        if isinstance(model, str | Path):
            model = open_model(model, CacheFolder.usual() if cache else None)
        self._model = model
        self._manifest = Manifest.read(model.metadata)
        if self._manifest is not None:
            self.method = self._manifest.own or method_of(self._manifest.method)
            wanted = {
                "positions": positions,
                "output": output,
                "inputs": sorted(named) or None,
                "memory": None if self._memory.way == "auto" else memory,
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
        self._explain_input = named
        self._roles = parse_roles(roles or {})
        self._once = once
        self._branches: Branches | None = None
        self._opened: OrderedDict[tuple[Taken, bool], _Opened] = OrderedDict()
        self._declared: Declared | None = None
        self._tokenizer = tokenizer
        self._head = check_kind(head)
        self._reader = reader or self._open_sample
        self._decides = self._manifest is None and _decides(model)
        storable = isinstance(model, StoredModel) and not self._decides
        self._recalls = storable and not _comes_from_outside(self.method)
        self._others: dict[str | None, Explainer] = {}

    @property
    def model(self) -> Model:
        """The model with its graph, which is opened where it is not."""
        return self._model.full if isinstance(self._model, StoredModel) else self._model

    @property
    def inputs(self) -> tuple[GraphInput, ...]:
        """The inputs of the model, for which its graph need not be open."""
        return self._model.inputs

    @property
    def decides(self) -> bool:
        """Whether inputs decide about branches or loops of the model."""
        return self._decides

    def explain(
        self, sample: Sample, target: str = "pred", labels: Mapping[int, str] | None = None
    ) -> list[Explanation]:
        """Explain one input: one explanation for every row of its batch and every target.

        Args:
            sample: The result of a reader of :mod:`palrp_onnx.inputs`.
            target: ``pred``, an index, a label, ``A-B``, ``token:POS[:CLASS]``, ``I,J,…`` and
                others of docs/targets.md; also ``all``, or several with commas: then every row
                has an explanation for each, in this order. ``default`` is ``pred``, but all labels
                above one half of a multi-label head. Where two outputs say where an answer starts
                and ends, and none is named, both are the answer, with the sum of the two scores as
                one target; other targets are then those of the first.
            labels: Names of classes by index.

        Raises:
            TargetError: There is no such target, or its text can be read in several ways.
            InputError: The sample, the vector or ``config.json`` cannot be used.
        """
        if sample.windows:
            return self._over_windows(sample, target, labels or {})
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
            return [each.named(name) for each, name in zip(own, names, strict=True)]
        labels = self.labels(sample, labels or {})
        samples = self._singly(sample)
        if len(samples) > 1:
            return [each for one in samples for each in self.explain(one, target, labels)]
        known = labels or {}
        wanted = [self._with_files(each) for each in parse_targets(target, known)]
        ends = self.engine(sample.feeds).subject.facts.ends
        if ends and not all(each.kind in _ANSWERS for each in wanted):
            return self._other(ends[0]).explain(sample, target, labels)
        if wanted[0].kind == "default":
            found = self._usual(sample, known)
        elif wanted[0].kind == "all":
            found = [self._one(sample, t, known) for t in self._every_class(sample, known)]
        else:
            found = [self._asked(sample, each, known) for each in wanted]
        rows = [each for row in zip(*found, strict=True) for each in row]
        if len(found) == 1:
            return rows
        return [each.named(f"{sample.id}-{k}") for k, each in enumerate(rows)]

    def _over_windows(
        self, sample: Sample, target: str, labels: Mapping[int, str]
    ) -> list[Explanation]:
        """Explain a text in windows; the predicted class is that of the mean output."""
        engine = self.engine(sample.feeds)
        subject, facts = engine.subject, engine.subject.facts
        outputs = [engine.output(window.feeds) for window in sample.windows]
        text = LongText(sample, outputs, competing=facts.tokens)
        head = self.head(subject, facts.shape, labels)
        wanted = [self._with_files(each) for each in parse_targets(target, labels)]
        if wanted[0].kind == "all":
            wanted = self._every_class(text.parts[0], labels)
        if head.kind == "causal-lm":
            raise TargetError(
                "A next token follows from what the model reads last, so that windows before it "
                "say nothing of it",
                place=f"output {subject.output}",
                hint="Give the end of the text, as much as the model has room for.",
            )
        if facts.ends and not all(each.kind in _ANSWERS for each in wanted):
            return self._other(facts.ends[0])._over_windows(sample, target, labels)
        usual = wanted[0].kind == "default" and self._end(head, facts)
        if usual or facts.ends or wanted[0].kind == "answer":
            asked = Target("answer", end=usual or None) if wanted[0].kind != "answer" else wanted[0]
            joined = self._answer_in_windows(text, asked, labels)
        elif text.by_token and (facts.tokens or facts.sequence):
            joined = self._at_places(text, wanted, head, labels)
        elif outputs[0].ndim == _ONE_ROW and not facts.tokens:
            joined = self._of_the_mean(text, wanted, head, labels)
        else:
            raise TargetError(
                "Windows need an output of one row a text, or of one for each of its tokens",
                place=f"output {subject.output} {list(outputs[0].shape)}",
                hint="Explain a part of the text that the model has room for.",
            )
        if len(joined) == 1:
            return joined
        return [each.named(f"{sample.id}-{k}") for k, each in enumerate(joined)]

    def _of_the_mean(
        self, text: LongText, wanted: list[Target], head: Head, labels: Mapping[int, str]
    ) -> list[Explanation]:
        """Explain targets of an output of one row a text, in all windows."""
        subject, mean = self.engine(text.sample.feeds).subject, np.mean(text.outputs, axis=0)
        binder = Binder(text.parts[0], subject, head, lambda: self.vocabulary, lambda: mean)
        taken = any(each.kind in ("default", "pred") for each in wanted)
        below = False
        if wanted[0].kind == "default" and head.kind == "multi-label":
            likely, above = binder.likely_labels()
            wanted, below = [Target("index", label) for label in likely], not above
        else:
            best = int(mean[0].argmax())
            wanted = [
                replace(each, kind="index", index=best)
                if each.kind in ("default", "pred")
                else each
                for each in wanted
            ]
        parts = list(enumerate(text.parts))
        joined = [
            join_windows(text.sample, {k: self._one(part, each, labels)[0] for k, part in parts})
            for each in wanted
        ]
        doubts = [BELOW_HALF] if below else []
        if taken:
            chosen = Resolved("index", (), 0.0, mean[0], predicted=True)
            found = class_warnings(head, chosen, subject.output, labels)
            doubts += [Warning_(code=code, message=message) for code, message in found]
        # The probability of a mean is none of the model's.
        said = prediction(replace(head, link=None), mean[0], head.names.get)
        return [each.saying(said).warned(*doubts) for each in joined]

    def _at_places(
        self, text: LongText, wanted: Sequence[Target], head: Head, labels: Mapping[int, str]
    ) -> list[Explanation]:
        """Explain targets at tokens, each in the windows that the token stands in."""
        subject = self.engine(text.sample.feeds).subject
        joined = []
        for each in wanted:
            binder = Binder(text.whole, subject, head, lambda: self.vocabulary, lambda: text.rows)
            (bound,) = of_rows(binder(each), 1)
            found = {
                k: self._one(text.parts[k], [local], labels)[0]
                for k, local in text.placed(bound).items()
            }
            whole = join_windows(text.sample, found).warned(*binder.warnings.get(0, ()))
            joined.append(whole.saying(self._said_at(text, bound.position, head)))
        return joined

    def _said_at(self, text: LongText, position: int | None, head: Head) -> Prediction | UnsetType:
        """What the model says at a token, or of all tokens, as `LongText.rows` has it."""
        assert text.sample.units is not None
        scores = text.rows[0]
        place = None if text.competing or position is None else bounded(position, len(scores))
        scores = scores if place is None else scores[place]
        words = self.vocabulary if head.vocabulary else None
        names = labels_of(head, words, text.sample.units)
        return prediction(replace(head, link=None), scores, names, place)

    def _answer_in_windows(
        self, text: LongText, target: Target, labels: Mapping[int, str]
    ) -> list[Explanation]:
        """Explain the best answer of all windows, in its window."""
        whole, scores, problem = self._whole(text.sample, labels), [], None
        for part in text.parts:
            binder = whole.binder(whole.engine(part.feeds), part, labels)
            try:
                (bound,) = of_rows(binder(replace(target, end=None)), 1)
                scores.append(resolve(bound, binder.output()[0], None).value)
            except TargetError as error:  # its text is in another window
                scores.append(-np.inf)
                problem = error
        best = int(np.argmax(scores))
        if problem is not None and not np.isfinite(scores[best]):
            raise problem
        (found,) = self._asked(text.parts[best], target, labels)
        joined = join_windows(text.sample, {best: found})
        said = found.record.prediction
        if said is UNSET or target.at is not None or target.end is not None:
            return [joined]  # the best answer of a window need not be that of the text
        first = text.sample.windows[best].places[said.index]
        return [joined.saying(structs.replace(said, index=first))]

    def labels(self, sample: Sample, labels: Mapping[int, str]) -> Mapping[int, str]:
        """Names of classes: the texts, where the output compares an image with them or chooses."""
        if not sample.parts:
            choices = self.engine(sample.feeds).subject.facts.choices
            return dict(enumerate(sample.rows)) if choices else labels
        columns = self.engine(sample.feeds).subject.columns
        return dict(enumerate(sample.rows_of(columns or ""))) or labels

    def _usual(self, sample: Sample, labels: Mapping[int, str]) -> list[list[Explanation]]:
        """What is usually asked: one list of explanations, one a row, for each target."""
        engine = self.engine(sample.feeds)
        binder = self.binder(engine, sample, labels)
        facts, several = engine.subject.facts, engine.subject.samples(sample.feeds) > 1
        if binder.head.kind == "multi-label" and not several:
            index, above = binder.likely_labels()
            found = [self._one(sample, Target("index", k), labels) for k in index]
            return found if above else [[e.warned(BELOW_HALF) for e in each] for each in found]
        if end := self._end(binder.head, facts):
            return [self._asked(sample, Target("answer", end=end), labels)]
        return [self._one(sample, Target("pred"), labels)]

    def _end(self, head: Head, facts: OutputFacts) -> End | None:
        """Which end of answers the output holds, if it holds one."""
        holds = head.places and facts.siblings and self._manifest is None
        return _ENDS[facts.second] if holds else None

    def _asked(
        self, sample: Sample, target: Target, labels: Mapping[int, str]
    ) -> list[Explanation]:
        """Explain one target of all rows; of an answer by both outputs, or by one end alone.

        Raises:
            TargetError: An answer is asked of a model that gives none.
        """
        if target.kind != "answer":
            return self._one(sample, target, labels)
        whole = self._whole(sample, labels)
        if target.end is None:
            return whole._one(sample, target, labels)
        engine, at = whole.engine(sample.feeds), _ENDS.index(target.end)
        bound = of_rows(whole.binder(engine, sample, labels)(target), 1)
        places = [Target("index", each.span[at]) for each in bound if each.span is not None]
        assert engine.subject.facts.ends is not None
        return whole._other(engine.subject.facts.ends[at])._one(sample, places, labels)

    def _whole(self, sample: Sample, labels: Mapping[int, str]) -> Explainer:
        """The explainer of both ends of an answer together.

        Raises:
            TargetError: The model gives no answers.
        """
        subject = self.engine(sample.feeds).subject
        whole = self if subject.facts.ends or self._manifest else self._other(None)
        subject = whole.engine(sample.feeds).subject
        if subject.facts.ends is None:
            raise no_answer(subject, self.head(subject, subject.facts.shape, labels))
        return whole

    def _other(self, output: str | None) -> Explainer:
        """The explainer of another output, with the same options."""
        if output not in self._others:
            other = copy(self)
            other._output, other._opened, other._others = output, OrderedDict(), {}
            self._others[output] = other
        return self._others[output]

    def _filled(self, sample: Sample) -> Sample | None:
        """One text or image, repeated to fill up a batch of fixed length; else ``None``."""
        fixed = {s.name: s.shape[0] for s in self.inputs if s.shape and len(s.shape) > 1}
        short = {
            name: size
            for name, size in fixed.items()
            if isinstance(size, int) and len(sample.feeds.get(name, ())) == 1 < size
        }
        if sample.kind not in ("text", "image", "sound") or not short:
            return None
        rows = {n: a.repeat(short[n], 0) if n in short else a for n, a in sample.feeds.items()}
        return replace(sample, feeds=rows)

    def _one(
        self, sample: Sample, wanted: Target | list[Target], labels: Mapping[int, str]
    ) -> list[Explanation]:
        """Explain one target of all rows, or one that is found already for each."""
        start = time.perf_counter()
        wide = any(each.wide for each in of_rows(wanted, 1))
        opened = self._open_for(sample.feeds, wide=wide)
        engine = opened.engine
        binder = self.binder(engine, sample, labels)
        bound = binder(wanted) if isinstance(wanted, Target) else wanted
        if not wide and any(each.wide for each in of_rows(bound, 1)):
            opened = self._open_for(sample.feeds, wide=True)
            engine = opened.engine
        try:
            outcome = engine.explain(sample.feeds, bound)
        except RunError as error:
            raise _of_text(error, sample) from error
        except ResourceError:
            if self.device == "cpu" or self._memory.way != "auto" or self._manifest is not None:
                raise
            self._memory = Memory(
                "bounded"
            )  # how much memory a GPU has left is only known afterwards
            self._opened.clear()
            return self._one(sample, wanted, labels)
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
            if not original.knows(sample.feeds):
                engine.close()
            found = original.check(sample.feeds, output, outcome.ledger, unmasked)
            fidelity = found if found.rewritten else None
        head = self.head(engine.subject, outcome.output.shape, labels)
        head.check(of_rows(wanted, 1)[0], engine.subject.output, labels)
        zero = find_zero_maps(engine, sample.feeds, bound, outcome)
        run = self._run(engine, {**outcome.ms, "total": (time.perf_counter() - start) * 1e3})
        words = self.vocabulary if head.vocabulary else None
        describer = Describer(engine.subject, run, head, fidelity, words)
        zeros = [
            [warning(name) for name, rows in zero.items() if row in rows]
            for row in range(len(outcome.targets))
        ]
        return [
            each.warned(*binder.warnings.get(row, ()), *zeros[row])
            for row, each in enumerate(describer(sample, outcome, labels))
        ]

    def binder(self, engine: Engine, sample: Sample, labels: Mapping[int, str]) -> Binder:
        """Binds targets to the rows of a sample, with the head of the engine's output."""
        subject = engine.subject
        head = self.head(subject, subject.facts.shape, labels)
        return Binder(
            sample,
            subject,
            head,
            lambda: self.vocabulary,
            cache(lambda: engine.output(sample.feeds)),
        )

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of the tokenizer, if there is one that can be read."""
        place = self._tokenizer or self._files().tokenizer
        return None if place is None else usable_vocabulary(place)

    def _singly(self, sample: Sample) -> list[Sample]:
        """The sample, or its rows as separate samples if they would depend on each other.

        They do if a row alone decides about branches or loops otherwise than all together. If all
        rows of two inputs are multiplied into one table, each row of the explained input stays with
        all rows of the other.

        Raises:
            InputError: Arrays do not fit the inputs, or an explained one is empty.
        """
        check_feeds(self.inputs, sample.feeds)  # before arrays are taken apart
        subject = self.engine(sample.feeds).subject
        subject.check_filled(sample.feeds)
        count = subject.samples(sample.feeds)
        if subject.mixed is not None or count == 1:
            return [sample]
        rows = [
            replace(
                sample.row(subject.input, row),
                id=f"{sample.id}-{row}",
                feeds=subject.one(sample.feeds, row),
            )
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
        return find_head(subject, shape, self._files(), labels, self._head)

    def _files(self) -> Declared:
        if self._declared is None:
            self._declared = read_declared(self._model.path)
        return self._declared

    def _with_files(self, target: Target) -> Target:
        """The target with what its file holds: a vector, a mask, or another input's embedding."""
        if target.file is None:
            return target
        from palrp_onnx.inputs.vectors import read_mask, read_vector, vector_of

        path = Path(target.file)
        if target.kind == "region":
            return replace(target, cells=read_mask(path), region=path.name)
        if path.suffix.lower() == ".npy":
            return replace(target, vector=read_vector(path))
        return replace(target, vector=vector_of(self._embedding(path, target.position), path))

    def _embedding(self, path: Path, position: int | None) -> Array:
        """The output [D] for another input, or its row at a token position.

        Raises:
            InputError: The file holds several samples.
            TargetError: The output has a row for each token, and no position was named.
        """
        sample = self._reader(path)
        engine = self.engine(sample.feeds)
        output = engine.output(sample.feeds)
        if len(output) != 1:
            raise InputError(f"holds {len(output)} samples, not one", place=str(path))
        row = output[0]
        if position is not None:  # from the end, it counts from the last that is no padding
            bound = self.binder(engine, sample, {})(Target("vector", position=position))
            position = of_rows(bound, 1)[0].position
        if row.ndim == 2 and position is not None and -len(row) <= position < len(row):
            row = row[position]
        if row.ndim != 1:
            pooled = engine.subject.facts.pooled
            raise TargetError(
                f"The output has the shape {list(row.shape)} for {path.name}, and not one vector",
                place=f"output {engine.subject.output}",
                hint="Name the place of both, as in similarity:other.txt:0, or explain an output "
                f"with one vector for each input: --output {' or '.join(pooled) or 'NAME'}.",
            )
        return np.asarray(row)

    def _open_sample(self, path: Path) -> Sample:
        from palrp_onnx.inputs.open import open_sample

        model = self._model
        return open_sample(
            path, model_path=model.path, graph_inputs=model.inputs, tokenizer=self._tokenizer
        )

    def _every_class(self, sample: Sample, labels: Mapping[int, str]) -> list[Target]:
        """One target for each entry of the output's last axis.

        Raises:
            TargetError: The entries are the vocabulary, or those of a token are not known to be
                classes.
        """
        engine = self.engine(sample.feeds)
        subject = engine.subject
        head = self.head(subject, engine.output(sample.feeds).shape, labels)
        if head.vocabulary or (subject.axes > 2 and not head.classes):
            raise TargetError(
                f"The {head.size} entries of the output are not known to be classes",
                place=f"output {subject.output}",
                hint="Name the entries to explain: --target index:0,index:1.",
            )
        return [Target("index", index) for index in range(head.size)]

    def engine(self, feeds: Feeds) -> Engine:
        """The open engine. The model is analysed and planned once, with ``feeds`` as an example.

        If inputs decide about branches and loops, this is done once for every way to decide.

        Raises:
            InputError: The arrays do not fit the graph.
            ModelError: The model cannot be explained with these options.
        """
        return self._open_for(feeds).engine

    def _open_for(self, feeds: Feeds, *, wide: bool = False) -> _Opened:
        """The engine for what the input decides, and for targets at several places (``wide``)."""
        compiled = self._kind == "onnxruntime" and self._manifest is None
        key = self.decisions(feeds), wide and compiled
        if key not in self._opened:
            self._opened[key] = opened = self._open(feeds, self._memory, wide=key[1])
            if opened.original is not None and not opened.original.keep:
                return_memory()  # what was needed to plan and compile
        elif not self._opened[key].fits(feeds):
            stored = self._opened.pop(key).stored
            memory = self._memory if stored else Memory("bounded")
            self._opened[key] = self._open(feeds, memory, wide=key[1], fresh=stored)
        self._opened.move_to_end(key)
        while len(self._opened) > _MAX_ENGINES:
            self._opened.popitem(last=False)
        return self._opened[key]

    def decisions(self, feeds: Feeds) -> Taken:
        """What this input decides: branches, rounds of loops; nothing in a compiled explainer."""
        if not self._decides:
            return ()
        check_feeds(self.inputs, feeds)
        if self._branches is None:
            from palrp_onnx.runtime.branching import Branches

            self._branches = Branches(self.model)
        return self._branches.taken(feeds)

    def _open(self, feeds: Feeds, memory: Memory, *, wide: bool, fresh: bool = False) -> _Opened:
        """Open an engine; ``fresh``: not that of an entry."""
        if self._manifest is not None:
            return _Opened(self._open_explainer(self._manifest), None)
        if self._kind != "onnxruntime":
            return self._planned(self._at_usual_opset(), feeds, memory)
        if not fresh and (found := self._recalled(feeds, memory, wide=wide)) is not None:
            return found
        from palrp_onnx.compiler.graph import OPSET

        try:
            return self._planned(self.model.at_opset(OPSET), feeds, memory, wide=wide)
        except LaterOpsetError as error:
            return self._planned(self.model.at_opset(error.opset), feeds, memory, wide=wide)

    def _at_usual_opset(self) -> Model:
        """The model as it is compiled too; in its own opset where it cannot be raised."""
        from palrp_onnx.compiler.graph import OPSET

        try:
            return self.model.at_opset(OPSET)
        except ModelError:
            return self.model

    def _plan(self, model: Model, feeds: Feeds) -> Planned:
        from palrp_onnx.prepare import plan_model

        return plan_model(
            model,
            feeds,
            self.method,
            output=self._output,
            explain_input=self._explain_input,
            roles=self._roles,
            answers=True,
        )

    def _planned(
        self, model: Model, feeds: Feeds, memory: Memory, *, wide: bool = False
    ) -> _Opened:
        planned = self._plan(model, feeds)
        rewritten = planned.analysis.model
        original = None
        if rewritten.changes or self.dtype == "float64":
            original = Original(rewritten, planned.output, device=self.device)
        if self._kind != "onnxruntime":
            from palrp_onnx.engines.numpy import NumpyEngine

            engine = NumpyEngine(
                planned, positions=self.positions, dtype=self.dtype, device=self.device
            )
            return _Opened(engine, original)
        from palrp_onnx.compiler.forecast import Forecaster

        recall, shapes = self._recall(memory, wide=wide), shapes_of(feeds)
        room, way, forecast = None, "bounded" if memory.way == "bounded" else "fast", None
        if self.device == "cpu":
            forecaster = Forecaster(planned, prepack=not self._once)
            forecast = forecaster(shapes)
            way = forecast.choose(memory)
            room = Room(forecaster, memory, way)
            room.fits(shapes)
        if way == "bounded" and memory.way != "bounded":
            recall = None  # for the memory that is free now
        if original is not None:
            original.keep = way != "bounded"
            recall = recall if original.untouched is not None else None
        if planned.of_this_input or rewritten.removed != model.removed:
            recall = None
        forward = _alone(planned)  # before the relevance pass is appended to the graph
        graph, manifest = self._compile(planned, feeds, way, wide=wide)
        if recall is not None:
            compiled = Compiled(
                manifest=manifest,
                graph=graph,
                untouched=None if original is None else original.untouched,
                forecast=forecast,
                shapes=shapes,
                opset=model.graph_opset,
            )
            recall.keep(compiled, feeds)
        return _Opened(self._compiled(graph, manifest, forward), original, room)

    def _compile(
        self, planned: Planned, feeds: Feeds, way: str, *, wide: bool
    ) -> tuple[Runnable, Manifest]:
        from palrp_onnx.compiler.graph import CompileSettings, compile_graph

        settings = CompileSettings(
            positions=self.positions,
            features=True,
            wide=wide,
            memory=way,
        )
        graph, manifest = compile_graph(planned, settings, shapes_of(feeds))
        return Runnable.of(graph), manifest

    def _recalled(self, feeds: Feeds, memory: Memory, *, wide: bool) -> _Opened | None:
        """The engine of an entry, if there is one that has room."""
        if (recall := self._recall(memory, wide=wide)) is None:
            return None
        check_feeds(self.inputs, feeds)
        found = recall.find(feeds)
        if found is None:
            return None
        room, way, shapes = None, found.manifest.memory, shapes_of(feeds)
        if found.forecast is not None:
            try:
                if found.at_most(shapes).choose(memory) != way:
                    return None  # perhaps there is room: planned, it is known exactly
            except ResourceError:
                return None
            room = Room(found.at_most, memory, way)

        def forward() -> SavedGraph:
            """Few targets need the forward pass alone: it is planned again when one does."""
            saved = recall.find_forward(feeds)
            if saved is None:
                saved = _alone(self._plan(self.model.at_opset(found.opset), feeds))()
                recall.keep(saved, feeds)
            return saved

        try:
            engine = self._compiled(found.graph, found.manifest, forward)
            original = None
            if found.untouched is not None:
                model = recall.model
                original = Original.again(
                    found.untouched, model.removed, model.folder, device=self.device
                )
                original.keep = way != "bounded"
        except ModelError:  # the runtime cannot open it
            recall.forget(feeds)
            return None
        return _Opened(engine, original, room, stored=True)

    def _recall(self, memory: Memory, *, wide: bool) -> Recall | None:
        """The entries of engines with these options, where engines are stored."""
        if not self._recalls:
            return None
        assert isinstance(self._model, StoredModel)
        options = {
            "method": self.method.text,
            "positions": self.positions,
            "device": self.device,
            "output": self._output,
            "explain_input": self._explain_input,
            "roles": {name: role.value for name, role in self._roles.items()},
            "memory": "bounded" if memory.way == "bounded" else "fast",
            "once": self._once,  # the forecast depends on it
            "wide": wide,
        }
        return Recall(self._model, options)

    def _open_explainer(self, manifest: Manifest) -> Engine:
        from palrp_onnx.model.open import parse_model

        if not manifest.ledger:
            raise UsageError(
                "The explainer was compiled without its ledger, which every record needs",
                place=str(self.model.path),
                hint="Compile without --no-ledger.",
            )
        return self._compiled(Runnable.of(parse_model(self.model.path)), manifest)

    def _compiled(
        self,
        graph: Runnable,
        manifest: Manifest,
        forward: Callable[[], SavedGraph] | None = None,
    ) -> Engine:
        folder = self._model.folder

        @cache
        def opened() -> GraphForward:
            """Computes the output alone; opened when it is first needed."""
            assert forward is not None
            return GraphForward(forward(), folder, device=self.device)

        output = manifest.output
        return CompiledEngine(
            graph,
            manifest,
            self.inputs,
            folder=folder,
            device=self.device,
            prepack=not self._once,
            forward=None if forward is None else lambda feeds: opened()(feeds)[output],
        )

    def _run(self, engine: Engine, ms: dict[str, float]) -> Run:
        return Run(
            version=own_version(),
            method=self.method.text,
            params=self._params(engine),
            engine=engine.name,
            device=self.device,
            dtype="float64" if self.dtype == "float64" else "float32",
            providers=engine.providers,
            ms={name: round(value, 3) for name, value in ms.items()},
            runtime=runtime_version(),
            date=utc_now(),
            files=self._digests or UNSET,
        )

    @cached_property
    def _digests(self) -> dict[str, str]:
        return file_digests(self._model.path, self._tokenizer)

    def _params(self, engine: Engine) -> dict[str, Any]:
        roles = {name: role.value for name, role in self._roles.items()}
        found: dict[str, Any] = {"positions": self.positions, **({"roles": roles} if roles else {})}
        if isinstance(engine, CompiledEngine) and engine.manifest.memory != "fast":
            found["memory"] = engine.manifest.memory
        if self._memory.limit is not None:
            found["memory_limit"] = self._memory.limit
        return {**found, **record_params(self.method)}


def _decides(model: Model | StoredModel) -> bool:
    """Whether inputs decide about branches or loops."""
    if isinstance(model, StoredModel):
        return model.decides
    from palrp_onnx.model.branches import has_decisions

    return has_decisions(model)


def _alone(planned: Planned) -> Callable[[], SavedGraph]:
    """What makes the graph that computes the explained output alone."""
    from palrp_onnx.model.native import with_own_products
    from palrp_onnx.runtime.forward import saved_graph

    model, output = planned.analysis.model.cut_to([planned.output]), planned.output
    return lambda: saved_graph(with_own_products(model, ()), [output])


def _comes_from_outside(used: Method) -> bool:
    """Whether a method, or a rule that it can use, does not come with the package."""
    rules = sys.modules.get("palrp_onnx.rules.registry")  # where others register theirs
    return own_method(used) is not None or bool(rules and rules.rules_from_outside(used.rules))


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


def _refuse_changes(
    manifest: Manifest, wanted: Mapping[str, object], engine: str, *, other: bool
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
    fixed = {**structs.asdict(manifest), "inputs": sorted(v.input for v in manifest.views)}
    changed = ["method"] if other else []
    changed += [name for name, value in wanted.items() if value not in (None, fixed[name])]
    if engine != "onnxruntime":
        changed.append("engine")
    if changed:
        raise UsageError(
            f"An explainer has its {' and '.join(changed)} compiled in",
            hint="Explain the model it was compiled from, or compile that again.",
        )
