"""Turns records into lines with one opened model; it writes no files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palrp_onnx.errors import InputError
from palrp_onnx.explainer import Explainer
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs import bind_inputs, default_tokenizer, read_labels
from palrp_onnx.jobs.batcher import Batcher, Task
from palrp_onnx.jobs.reading import SampleReader
from palrp_onnx.jobs.records import Record, name_of, parse
from palrp_onnx.jobs.results import Line, explained, failed
from palrp_onnx.jobs.settings import Settings
from palrp_onnx.model.branches import has_decisions
from palrp_onnx.model.locate import model_file
from palrp_onnx.relevance.target_parsing import parse_target


@dataclass(frozen=True)
class _Read:
    """A record that was read. ``index`` is its place in the list of records."""

    index: int
    record: Record
    meta: Any
    task: Task


class Worker:
    """Explains records with one opened model.

    The same list of records gives the same bytes on the same machine. An error of a record is
    written to its line.

    Args:
        model: Path of the model.
        settings: How to explain.

    Raises:
        PalrpError: The model cannot be explained with these settings, whatever the record.
    """

    def __init__(self, model: str | Path, settings: Settings) -> None:
        self.path = path = model_file(Path(model))
        self.settings = settings = settings.portable()
        self._labels = read_labels(path)
        parse_target(settings.target, self._labels)
        words = None if settings.tokenizer is None else Path(settings.tokenizer)
        self._explainer = Explainer(
            path,
            method=settings.method,
            positions=settings.positions,
            engine=settings.engine,
            dtype=settings.dtype,
            device=settings.device,
            memory=settings.memory,
            output=settings.output,
            explain_input=settings.explain_input,
            roles=settings.roles,
            tokenizer=words,
            head=settings.head,
        )
        self.model = self._explainer.model
        self.reader = SampleReader(
            path,
            bind_inputs(self.model.inputs, settings.bind),
            words,
            windows=settings.windows,
            columns=settings.columns,
        )
        self._reading = threading.Lock()
        self._batcher = Batcher(
            self._explainer,
            self._labels,
            words or default_tokenizer(path),
            target=settings.target,
            size=settings.batch_size,
            tokens=settings.batch_tokens,
            example=None if settings.example is None else Path(settings.example),
        )

    @property
    def overlaps(self) -> bool:
        """Whether two threads may use the worker at once, so that reading and writing cost no time.

        They may not if records decide about branches and loops of the model: it is planned again
        when a record decides otherwise.
        """
        fixed = not has_decisions(self.model)
        return self.settings.engine != "numpy" and self.settings.dtype == "float32" and fixed

    def __call__(
        self, records: Sequence[Record], done: Callable[[int], None] | None = None
    ) -> list[Line]:
        """One line per record, in their order.

        Args:
            records: The records; batches are made of these alone.
            done: Called with the number of further records that are done.
        """
        lines: dict[int, Line] = {}
        tasks = []
        for index, record in enumerate(records):
            task = self._read(index, record)
            if isinstance(task, Line):
                lines[index] = task
            else:
                tasks.append(task)
        if done is not None:
            done(len(lines))
        found = self._batcher([each.task for each in tasks], done)
        for each, explanation in zip(tasks, found, strict=True):
            lines[each.index] = _line(each, explanation)
        return [lines[index] for index in range(len(records))]

    def _read(self, index: int, record: Record) -> _Read | Line:
        name = name_of(record)
        try:
            fields = parse(record)
            wanted = self._wanted(fields.target)
            with self._reading:
                sample = self.reader.read(fields, name, record.folder)
                if fields.continuation is not None:
                    sample, wanted = self.reader.continued(sample, fields.continuation)
                task = self._batcher.task(sample, wanted)
            if task.parsed.file is not None and wanted != self.settings.target:
                raise InputError("A record cannot name a file as its target")
            return _Read(index, record, fields.meta, task)
        except Exception as error:  # only this record fails
            return failed(name, record.place, error)

    def _wanted(self, own: str | int | None) -> str:
        """The text of a record's target; a number is an index, never a label."""
        if own is None:
            return self.settings.target
        return f"index:{own}" if isinstance(own, int) else own


def _line(read: _Read, found: Explanation | Exception) -> Line:
    """The line of a record that was read."""
    try:
        if isinstance(found, Exception):
            raise found
        return explained(found.record, read.meta)
    except Exception as error:  # only this record fails
        return failed(read.task.sample.id, read.record.place, error)
