"""A model that is loaded once, with all that lies beside it, and explains many inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from palrp_onnx.cache.folder import CacheFolder
from palrp_onnx.cache.models import StoredModel, open_model
from palrp_onnx.errors import UsageError
from palrp_onnx.explainer import DEFAULT_POSITIONS, Explainer
from palrp_onnx.explanation import Explanation
from palrp_onnx.explanations import Explanations, Generated
from palrp_onnx.files import write_files
from palrp_onnx.inputs.labels import read_labels
from palrp_onnx.inputs.past import holds_past
from palrp_onnx.inputs.purposes import bind_inputs
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.tokenizer_files import default_tokenizer
from palrp_onnx.inputs.values import Value, ValueReader
from palrp_onnx.model.locate import model_file
from palrp_onnx.model.signature import GraphInput
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.methods import DEFAULT_METHOD
from palrp_onnx.relevance.target_parsing import parse_target

if TYPE_CHECKING:
    from palrp_onnx.inspection import Inspection
    from palrp_onnx.jobs.batcher import Batcher, Task
    from palrp_onnx.model.open import Model

#: A target as text, or the index of a class.
Target = str | int
#: Batches that are read ahead, so that inputs of similar lengths meet.
_AHEAD = 4
#: Largest number of tokens in one run, padding included.
_BATCH_TOKENS = 8192
#: Classes that the text of a model names.
_NAMED = 4
#: Options that are those of :class:`palrp_onnx.Explainer`.
_OF_EXPLAINER = (
    "tokenizer",
    "device",
    "memory",
    "explain_input",
    "head",
    "roles",
    "engine",
    "dtype",
    "once",
    "cache",
)


@dataclass(frozen=True)
class _OpenGraph:
    """A model, and what reads inputs for it."""

    model: Model | StoredModel
    reader: ValueReader

    @property
    def full(self) -> Model:
        """The model with its graph."""
        return self.model.full if isinstance(self.model, StoredModel) else self.model


class LoadedModel:
    """A model, with the tokenizer, the labels and the preprocessing beside it. Not thread-safe.

    ``palrp_onnx.load`` is this class.

    >>> import palrp_onnx as px
    >>> px.load("models/reviews-rope")
    reviews-rope/model.onnx: input_ids, attention_mask → NEGATIVE, POSITIVE

    Args:
        path: The ``.onnx`` file, or a folder with a single one, or with an encoder and a decoder.
            Tokenizer, labels and preprocessing are in its folder, or one folder up.
        tokenizer: The tokenizer, a file or a folder, if it is not there.
        device: Device of ONNX Runtime: ``cpu`` or ``cuda[:N]``.
        memory: ``fast``, ``bounded``, ``auto`` or a size as ``6GB``: see
            :class:`palrp_onnx.Explainer`.
        output: Name of the explained output; by default the first that depends on the input.
        explain_input: Name of the input whose units get relevance, or several; by default all that
            the output depends on.
        head: The kind of head, where the graph and ``config.json`` say another or none.
        roles: Overrides of roles, by name of the value.
        bind: What inputs of the graph receive of a text, where the graph leaves it open, by their
            names: ``ids``, ``mask``, ``types`` or ``positions``.
        engine: ``onnxruntime`` (default) or ``numpy``.
        dtype: ``float32``, or ``float64``, which runs in NumPy.
        once: Open quickly and in little memory, for a single explanation.
        cache: Whether facts of the model and compiled graphs are kept in the user's cache, and
            taken from there.

    Attributes:
        path: The file, or the folder of an encoder and a decoder.
        options: The options, by their names.

    Raises:
        InputError: There is no such file.
        ModelError: The file is no model that can be opened.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tokenizer: str | Path | None = None,
        device: str = "cpu",
        memory: str = "auto",
        output: str | None = None,
        explain_input: str | Sequence[str] | None = None,
        head: str | None = None,
        roles: Mapping[str, str] | None = None,
        bind: Mapping[str, str] | None = None,
        engine: str | None = None,
        dtype: str = "float32",
        once: bool = False,
        cache: bool = True,
    ) -> None:
        self.path = model_file(Path(path))
        self.options: Mapping[str, Any] = {
            "tokenizer": None if tokenizer is None else Path(tokenizer),
            "device": device,
            "memory": memory,
            "output": output,
            "explain_input": explain_input,
            "head": head,
            "roles": roles,
            "bind": bind or {},
            "engine": engine,
            "dtype": dtype,
            "once": once,
            "cache": cache,
        }
        self._graph = self._opened(open_model(self.path, CacheFolder.usual() if cache else None))
        self._explainers: dict[tuple[Any, ...], Explainer] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file again."""
        return partial(LoadedModel, self.path, **self.options), ()

    def __repr__(self) -> str:
        absolute = self.path.absolute()
        name = f"{absolute.parent.name}/{absolute.name}"
        inputs = ", ".join(each.name for each in self.inputs)
        named = [self.labels[index] for index in sorted(self.labels)]
        more = f", … ({len(named)})" if len(named) > _NAMED else ""
        outputs = [each.name for each in self._graph.model.outputs]
        return f"{name}: {inputs} → {', '.join((named or outputs)[:_NAMED])}{more if named else ''}"

    @cached_property
    def labels(self) -> Mapping[int, str]:
        """Names of classes by index.

        Raises:
            InputError: ``config.json`` beside the model is malformed.
        """
        return read_labels(self.path)

    @property
    def model(self) -> Model:
        """The graph and its facts."""
        return self._graph.full

    @property
    def inputs(self) -> tuple[GraphInput, ...]:
        """The inputs of the graph."""
        return self._graph.model.inputs

    @overload
    def explain(
        self,
        value: Value,
        target: Sequence[Target],
        *,
        method: Method | str | None = ...,
        positions: str | None = ...,
        output: str | None = ...,
        windows: int | bool | None = ...,
        start: str | None = ...,
        id: str | None = ...,
    ) -> Explanations: ...
    @overload
    def explain(
        self,
        value: Value,
        target: Target | None = ...,
        *,
        method: Method | str | None = ...,
        positions: str | None = ...,
        output: str | None = ...,
        windows: int | bool | None = ...,
        start: str | None = ...,
        id: str | None = ...,
    ) -> Explanation | Any: ...
    def explain(
        self,
        value: Value,
        target: Target | Sequence[Target] | None = None,
        *,
        method: Method | str | None = None,
        positions: str | None = None,
        output: str | None = None,
        windows: int | bool | None = None,
        start: str | None = None,
        id: str | None = None,
    ) -> Explanation | Explanations:
        """Explain the output for one input.

        >>> import palrp_onnx as px
        >>> model = px.load("models/reviews-rope")
        >>> model.explain("A gripping film.", "NEGATIVE").target.label
        'NEGATIVE'
        >>> both = model.explain("A gripping film.", target=("POSITIVE", "NEGATIVE"))
        >>> [each.target.label for each in both]
        ['POSITIVE', 'NEGATIVE']
        >>> model.explain("A gripping film.", method="attnlrp").record.run.method
        'attnlrp'

        Args:
            value: A ``str`` is the text itself, and the path of a file only for a model that takes
                no text; a ``pathlib.Path`` is a file. An image of Pillow, an array or a mapping of
                arrays by input, two texts ``(a, b)``, an image and texts, messages of a chat: see
                :meth:`palrp_onnx.inputs.values.ValueReader.read`.
            target: What is explained, as for ``--target``; a whole number is the index of a class.
                By default what the task asks for. Several in a sequence get an explanation each.
            method: ``pa-lrp`` (default), or another of :func:`palrp_onnx.method`, or an object.
            positions: How the relevance of positions is reduced to one number a unit where units
                are ranked: ``relu`` (default), ``abs``, ``signed`` or ``single-sink``.
            output: The explained output, instead of that of the model.
            windows: Explain a text that is longer than the model in windows: ``True``, or the
                number of tokens that neighbours share.
            start: What the decoder of an encoder begins with: a language, a task.
            id: The name of the sample.

        Returns:
            An :class:`~palrp_onnx.Explanation`; :class:`~palrp_onnx.Explanations` of several
            targets, of an input with several rows, and where the task asks for several targets.

        Raises:
            InputError: The input cannot be used.
            TargetError: There is no such target, or its text can be read in several ways.
            ModelError: The model cannot be explained with these options.
        """
        sample = self.read(value, id=id, windows=_shared(windows), start=start)
        explainer = self.explainer(sample, method=method, positions=positions, output=output)
        one = target is None or isinstance(target, str) or not isinstance(target, Sequence)
        texts = [target_text(target)] if one else _texts(target)
        found = [explainer.explain(sample, text, self.labels) for text in texts]
        if len({len(each) for each in found}) == 1:  # all targets of a row follow each other
            found = [list(row) for row in zip(*found, strict=True)]
        listed = list(chain.from_iterable(found))
        for each in listed:
            each.record.require_finite(place=f"sample {each.id}")
        if len(texts) > 1:
            listed = [each.named(f"{sample.id}-{k}") for k, each in enumerate(listed)]
        if len(listed) == 1 and one:
            return listed[0]
        return Explanations(listed, id=sample.id)

    def explain_many(
        self,
        values: Iterable[Value],
        target: Target = "pred",
        *,
        method: Method | str | None = None,
        positions: str | None = None,
        output: str | None = None,
        windows: int | bool | None = None,
        batch_size: int = 16,
    ) -> Iterator[Explanation | Exception]:
        """Explain many inputs, one after the other, in batches where that changes nothing.

        Inputs are read as they are needed, ``4 · batch_size`` ahead, so that memory is bounded.

        >>> import palrp_onnx as px
        >>> model = px.load("models/reviews-rope")
        >>> for found in model.explain_many(["A gripping film.", "", "So dull."]):
        ...     print(type(found).__name__ if isinstance(found, Exception) else found.target.label)
        POSITIVE
        InputError
        NEGATIVE

        Args:
            values: The inputs, each as for :meth:`explain`, of one row.
            target: The target of all.
            method: As for :meth:`explain`.
            positions: As for :meth:`explain`.
            output: As for :meth:`explain`.
            windows: As for :meth:`explain`.
            batch_size: Largest number of inputs in one run of the model.

        Yields:
            For each input, in their order, its explanation – without raw arrays – or the error with
            which it failed. Inputs are named by their number, files by their name.

        Raises:
            UsageError: An option is unknown.
            TargetError: There is no such target, or there are several.
            ModelError: The model cannot be explained with these options, whatever the input.
        """
        if batch_size < 1:
            raise UsageError(f"A batch has at least one input, not {batch_size}")
        from palrp_onnx.jobs.batcher import Batcher

        wanted = target_text(target)
        parse_target(wanted, self.labels)
        batcher = Batcher(
            self.explainer(method=method, positions=positions, output=output),
            self.labels,
            self.tokenizer,
            target=wanted,
            size=batch_size,
            tokens=_BATCH_TOKENS,
        )
        return self._many(values, wanted, _shared(windows), batcher, batch_size * _AHEAD)

    def _many(
        self,
        values: Iterable[Value],
        target: str,
        windows: int | None,
        batcher: Batcher,
        ahead: int,
    ) -> Iterator[Explanation | Exception]:
        waiting: list[Task | Exception] = []
        for number, value in enumerate(values):
            try:
                name = None if isinstance(value, Path | Sample) else str(number)
                sample = self._graph.reader.read(value, id=name, windows=windows)
                waiting.append(batcher.task(sample, target))
            except Exception as error:  # only this input fails
                waiting.append(error)
            if len(waiting) == ahead:
                yield from _explained(batcher, waiting)
                waiting = []
        yield from _explained(batcher, waiting)

    def generate(
        self,
        value: Value,
        count: int = 20,
        *,
        continuation: str | None = None,
        method: Method | str | None = None,
        positions: str | None = None,
        start: str | None = None,
    ) -> Generated:
        """Continue a text greedily, and explain every token that is produced.

        Args:
            value: The prompt, as for :meth:`explain`; what an encoder reads.
            count: Largest number of tokens.
            continuation: Explain the tokens of this text instead, where they stand.
            method: As for :meth:`explain`.
            positions: As for :meth:`explain`.
            start: What the decoder of an encoder begins with.

        Raises:
            UsageError: The model does not predict a next token, or the input has several rows.
            InputError: The input cannot be used.
        """
        from palrp_onnx.generation import follow, generate
        from palrp_onnx.inputs.continuation import Continuation
        from palrp_onnx.inputs.produced import decoder_input
        from palrp_onnx.inputs.tokens import usable_tokenizer
        from palrp_onnx.matrix import matrix_of

        sample = self.read(value, start=start)
        explainer = self.explainer(method=method, positions=positions)
        text = Continuation(
            self.options["tokenizer"] or usable_tokenizer(self.tokenizer),
            self._graph.reader.inputs,
            model_path=self.path,
        )
        if continuation is None:
            found = list(generate(explainer, sample, text, count))
        else:
            tokens = text.tokens(sample, continuation)
            found = list(follow(explainer, sample, text, tokens))
        for each in found:
            each.record.require_finite(place=f"sample {each.id}")
        records = [each.record for each in found]
        matrix = matrix_of(sample.id, records, decoder_input(self.inputs))
        return Generated(found, matrix)

    def read(
        self,
        value: Value,
        *,
        id: str | None = None,
        windows: int | None = None,
        start: str | None = None,
    ) -> Sample:
        """What the model gets of an input: its arrays, and what their units are.

        Args:
            value: As for :meth:`explain`.
            id: The name of the sample.
            windows: The number of tokens that windows share; −1: half of each.
            start: What the decoder of an encoder begins with.

        Raises:
            InputError: The input cannot be used.
        """
        reader = self._graph_of(value).reader
        return reader.read(value, id=id, windows=windows, start=start)

    def explainer(
        self,
        sample: Sample | None = None,
        *,
        method: Method | str | None = None,
        positions: str | None = None,
        output: str | None = None,
    ) -> Explainer:
        """What explains samples with these options; opened once.

        Args:
            sample: A sample that :meth:`read` made, which may hold caches; by default none does.
            method: As for :meth:`explain`.
            positions: As for :meth:`explain`.
            output: As for :meth:`explain`.

        Raises:
            UsageError: An option is unknown.
        """
        graph = self._graph if sample is None else self._graph_of(sample)
        model = graph.model
        own = method if method is None or isinstance(method, str) else id(method)
        key = (model.past, own, positions, output)
        if key not in self._explainers:
            self._explainers[key] = Explainer(
                model,
                method=method,
                positions=positions,
                output=output or self.options["output"],
                reader=self.read,
                **{name: self.options[name] for name in _OF_EXPLAINER},
            )
        return self._explainers[key]

    def inspect(
        self,
        *,
        output: str | None = None,
        why: Iterable[str] = (),
        values: bool = False,
        example: Value | None = None,
        tokens: int | None = None,
    ) -> Inspection:
        """What was found about the model: roles of inputs, positions, rules, and a verdict.

        >>> import palrp_onnx as px
        >>> px.load("models/reviews-rope").inspect().explainable
        True

        Args:
            output: The output, if there are several.
            why: Names of values whose roles are explained.
            values: Whether to list the names of values.
            example: A valid input, if the model runs on no synthetic one.
            tokens: Number of tokens to forecast the memory of an explanation for.
        """
        from palrp_onnx.inspection import inspect as inspect_model

        sample = None if example is None else self.read(example)
        return inspect_model(
            self.model if sample is None else self._graph_of(sample).full,
            None if sample is None else sample.feeds,
            output=output or self.options["output"],
            roles=self.options["roles"],
            why=why,
            values=values,
            tokens=tokens,
        )

    def compile(
        self,
        place: str | Path,
        *,
        method: Method | str | None = None,
        positions: str | None = None,
        memory: str = "fast",
        ledger: bool = True,
        features: bool = False,
        portable: bool = False,
        required_targets: bool = False,
        example: str | Path | None = None,
    ) -> Path:
        """Write the model with its explanation as one graph, which any ONNX Runtime runs.

        Args:
            place: The ``.onnx`` file to write.
            method: As for :meth:`explain`.
            positions: As for :meth:`explain`.
            memory: ``fast``, or ``bounded``: values are computed again, layer by layer. ``auto`` or
                a size as ``6GB`` chooses by the forecast for 512 tokens.
            ledger: Whether the graph has the ledger.
            features: Whether it has sinks and content by feature.
            portable: Whether to use only operations of the ONNX standard.
            required_targets: Whether inputs for targets have no default, for runtimes that pass no
                input with one.
            example: An ``.npz`` file with a valid input, if the model runs on no synthetic one.

        Raises:
            UsageError: The file would replace the model, or is in another folder than its weights.
            ModelError: The model cannot be explained, or not by a compiled graph.
        """
        from palrp_onnx.compiler.file import compile_model
        from palrp_onnx.compiler.graph import CompileSettings

        path = Path(place)
        if path.resolve() == self.path.resolve():
            raise UsageError("The explainer would replace its model", place=str(path))
        named = self.options["explain_input"]
        data = compile_model(
            self.path,
            path,
            method=method or DEFAULT_METHOD,
            output=self.options["output"],
            explain_input=(named,) if isinstance(named, str) else named or (),
            roles=self.options["roles"],
            settings=CompileSettings(
                positions=positions or DEFAULT_POSITIONS,
                ledger=ledger,
                features=features,
                portable=portable,
                required=required_targets,
                memory=memory,
            ),
            example=None if example is None else Path(example),
        )
        write_files({path: data})
        return path

    @property
    def reader(self) -> ValueReader:
        """What reads inputs for the graph."""
        return self._graph.reader

    @property
    def tokenizer(self) -> Path:
        """The place of the tokenizer, where one may be."""
        return self.options["tokenizer"] or default_tokenizer(self.path)

    def _opened(self, model: Model | StoredModel) -> _OpenGraph:
        inputs = bind_inputs(model.inputs, self.options["bind"])
        return _OpenGraph(
            model, ValueReader(self.path, inputs, tokenizer=self.options["tokenizer"])
        )

    def _graph_of(self, value: Value) -> _OpenGraph:
        """The graph for a value: with its caches, if the value fills them."""
        caches = {blank.name for blank in self._graph.model.removed}
        given = value.feeds if isinstance(value, Sample) else value
        return self._with_past if caches and holds_past(given, caches) else self._graph

    @cached_property
    def _with_past(self) -> _OpenGraph:
        return self._opened(self.model.with_past())


#: Opens a model: ``px.load("models/reviews-rope")``.
load = LoadedModel


def _explained(
    batcher: Batcher, waiting: Sequence[Task | Exception]
) -> Iterator[Explanation | Exception]:
    """What became of tasks, in their order."""
    from palrp_onnx.jobs.batcher import Task

    found = iter(batcher([each for each in waiting if isinstance(each, Task)]))
    for each in waiting:
        yield next(found) if isinstance(each, Task) else each


def _shared(windows: int | bool | None) -> int | None:
    """The number of tokens that windows share, as readers take it."""
    if isinstance(windows, bool):
        return -1 if windows else None
    return windows


def _texts(target: object) -> list[str]:
    """The texts of several targets."""
    texts = [target_text(each) for each in target] if isinstance(target, Sequence) else []
    if not texts:
        raise UsageError("There is no target in an empty list")
    return texts


def target_text(target: object) -> str:
    """The text of a target; a number is an index, never a label."""
    if target is None:
        return "index:default"  # the word alone may be a label
    if isinstance(target, int | np.integer) and not isinstance(target, bool):
        return f"index:{target}"
    if not isinstance(target, str):
        raise UsageError(f"A target is a text or a whole number, not {target!r}")
    return target
