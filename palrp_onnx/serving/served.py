"""One opened model with what a service asks of it: read rows, explain them, run the file."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from palrp_onnx.api.loaded import LoadedModel
from palrp_onnx.errors import InputError, TargetError
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs.beside import folders_of
from palrp_onnx.inputs.digests import file_digests
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.values import Value
from palrp_onnx.jobs.batcher import Batcher, Task
from palrp_onnx.model.branches import has_decisions
from palrp_onnx.model.open import Model
from palrp_onnx.relevance.method_parsing import method as method_of
from palrp_onnx.relevance.target_parsing import parse_target, parse_targets
from palrp_onnx.serving.options import Place, ServingOptions
from palrp_onnx.serving.outputs import OwnOutputs
from palrp_onnx.serving.refusals import Refusal
from palrp_onnx.types import Array

_DIGITS = 12
#: Name, size and time of change of every file beside a model.
Seen: TypeAlias = frozenset[tuple[str, int, int]]


@dataclass(frozen=True)
class Asked:
    """An input, which may be arrays of several rows, and its targets.

    Attributes:
        value: As for :meth:`palrp_onnx.LoadedModel.read`, and never the name of a file.
        id: Its name.
        targets: Texts of its targets; none: the usual one.
    """

    value: Value
    id: str
    targets: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows that it is answered with."""
        arrays = self.value.values() if isinstance(self.value, Mapping) else ()
        lengths = (len(each) for each in arrays if isinstance(each, np.ndarray) and each.ndim)
        return max(lengths, default=1) * max(1, len(self.targets))


@dataclass(frozen=True)
class ToExplain:
    """A row with one target, ready to be put into a batch."""

    method: str
    task: Task

    @property
    def key(self) -> Hashable:
        """Equal for rows that may run together."""
        return self.method, self.task.key

    @property
    def length(self) -> int:
        """Number of tokens, where it may be padded."""
        return self.task.length


@dataclass(frozen=True)
class ToRun:
    """Arrays that the file itself runs on, alone."""

    feeds: dict[str, Array]
    length: int = 0

    @property
    def key(self) -> Hashable:
        """Its own: it shares no run."""
        return id(self)


Work: TypeAlias = ToExplain | ToRun
Result: TypeAlias = Explanation | dict[str, Array]


def digest_of(model: Model, files: Mapping[str, str]) -> str:
    """Digest of the model, and of the files beside it that are read with it."""
    found = [model.sha256, sorted(files.items())]
    return hashlib.sha256(msgspec.json.encode(found)).hexdigest()


def beside(place: Place) -> Seen:
    """What can be seen of the files in the folders of a model, without reading them."""
    folders = folders_of(Path(place.path))
    return frozenset(_stats(file for folder in folders for file in _files(folder)))


def _files(folder: Path) -> Iterable[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_file())
    except OSError:
        return ()


def _stats(files: Iterable[Path]) -> Iterator[tuple[str, int, int]]:
    for file in files:
        try:
            found = file.stat()
        except OSError:  # it was removed meanwhile
            continue
        yield str(file), found.st_size, found.st_mtime_ns


class Served:
    """A model that is open with all methods that requests may name. Not thread-safe.

    Args:
        place: The model.
        options: How it is served.

    Attributes:
        loaded: The model.
        seen: What :func:`beside` saw before it was opened.
        version: The first digits of :func:`digest_of`.
        overlaps: Whether one thread may read rows while another runs the model.

    Raises:
        PalrpError: The model cannot be explained with these options, whatever the input.
    """

    def __init__(self, place: Place, options: ServingOptions) -> None:
        self.options = options
        self.seen = beside(place)
        tokenizer = options.loading.get("tokenizer")
        self._read_with = partial(file_digests, Path(place.path), tokenizer and Path(tokenizer))
        files = self._read_with()  # before they are read: a later change is found by its digest
        self.loaded = loaded = LoadedModel(place.path, **options.loading)
        self.digest = digest_of(loaded.model, files)
        self.version = self.digest[:_DIGITS]
        parse_target(options.target, loaded.labels)
        self._batchers = {
            method_of(text).text: Batcher(
                loaded.explainer(method=text, positions=options.positions),
                loaded.labels,
                loaded.tokenizer,
                target=options.target,
                size=options.batch_size,
                tokens=options.batch_tokens,
                example=None if options.example is None else Path(options.example),
            )
            for text in options.methods
        }
        eager = loaded.options["engine"] == "numpy" or loaded.options["dtype"] != "float32"
        self.overlaps = not eager and not has_decisions(loaded.model)

    @property
    def methods(self) -> list[str]:
        """Methods that requests may name, the default first."""
        return list(self._batchers)

    @property
    def takes(self) -> list[str]:
        """What a row may be given as, besides arrays: ``text``, ``text_pair``, ``image``."""
        found = ["text", "text_pair"] if self.loaded.reader.takes_text else []
        return [*found, "image"] if self.loaded.reader.takes_image else found

    def changed(self) -> bool:
        """Whether the files are others by now.

        Raises:
            PalrpError: They cannot be read.
        """
        return digest_of(Model.open(self.loaded.path), self._read_with()) != self.digest

    def rows(self, asked: Asked) -> list[Sample]:
        """The rows of an input.

        Raises:
            InputError: The input cannot be used.
            Refusal: A row has too many tokens.
        """
        sample = self.loaded.read(asked.value, id=asked.id, windows=self.options.windows)
        subject = next(iter(self._batchers.values())).subject
        count = 1 if subject is None else subject.samples(sample.feeds)
        rows = [sample]
        if subject is not None and count > 1 and not sample.texts:
            rows = [
                replace(
                    sample.row(subject.input, row),
                    id=f"{asked.id}-{row}",
                    feeds=subject.one(sample.feeds, row),
                )
                for row in range(count)
            ]
        for row in rows:
            self._check_length(row)
        return rows

    def _check_length(self, sample: Sample) -> None:
        limit, arrays = self.options.max_tokens, sample.feeds.values()
        units = (each.units for each in (sample, *sample.parts) if each.units is not None)
        ids = (each.shape[1] for each in arrays if each.ndim > 1 and each.dtype.kind in "iu")
        tokens = max([0, *(len(each.text) for each in units), *ids])
        if tokens > limit:
            raise Refusal(413, "limit", f"A row has at most {limit} tokens, not {tokens}")

    def to_explain(self, asked: Asked, method: str | None) -> list[ToExplain]:
        """Every row of an input with every of its targets.

        Raises:
            InputError: The input cannot be used.
            TargetError: There is no such target.
            Refusal: The method is not offered, or a row has too many tokens.
        """
        name, batcher = self._batcher(method)
        rows = self.rows(asked)
        return [
            ToExplain(name, batcher.task(row, target))
            for row in rows
            for text in asked.targets or (self.options.target,)
            for target in self._each(text)
        ]

    def to_run(self, asked: Asked) -> ToRun:
        """The arrays of an input, for the file itself."""
        sample = self.loaded.read(asked.value, id=asked.id)
        self._check_length(sample)
        if sample.windows:
            raise InputError("The text is longer than the model", place=asked.id)
        return ToRun(dict(sample.feeds))

    def run(self, batch: Sequence[Work]) -> list[Result | Exception]:
        """What became of work that may run together, in its order."""
        first = batch[0]
        if isinstance(first, ToExplain):
            tasks = [each.task for each in batch if isinstance(each, ToExplain)]
            return [*self._batchers[first.method](tasks)]
        found: list[Result | Exception] = []
        for each in batch:
            try:
                found.append(self.outputs(each.feeds if isinstance(each, ToRun) else {}))
            except Exception as error:  # only this one fails
                found.append(error)
        return found

    @cached_property
    def outputs(self) -> OwnOutputs:
        """Runs the file itself; opened when it is first asked for."""
        return OwnOutputs(self.loaded.model, device=self.loaded.options["device"])

    def metadata(self) -> dict[str, Any]:
        """What may be asked of the model, besides its inputs and outputs."""
        labels = self.loaded.labels
        return {
            "reads": self.takes,
            "methods": self.methods,
            "target": self.options.target,
            "labels": [labels[index] for index in sorted(labels)],
            "sha256": self.loaded.model.sha256,
        }

    def _batcher(self, method: str | None) -> tuple[str, Batcher]:
        name = self.methods[0] if method is None else method_of(method).text
        if name not in self._batchers:
            offered = ", ".join(self.methods)
            raise Refusal(400, "usage", f"The method {name} is not offered here: {offered}")
        return name, self._batchers[name]

    def _each(self, text: str) -> list[str]:
        """The text of one target, or those of all classes."""
        labels = self.loaded.labels
        wanted = parse_targets(text, labels)
        if any(each.file is not None for each in wanted):
            raise InputError("A request cannot name a file as its target")
        if wanted[0].kind != "all":
            return [text]
        if not labels:
            raise TargetError("The classes have no names", hint="Name the targets one by one.")
        return [f"index:{index}" for index in sorted(labels)]
