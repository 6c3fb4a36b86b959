"""Turns records into lines with one opened model; it writes no files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palrp_onnx.errors import InputError, ModelError, RoleError
from palrp_onnx.explainer import Explainer
from palrp_onnx.inputs import Sample, bind_inputs, default_tokenizer, read_labels, read_npz
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.padding import Side, find_pad_token, find_side
from palrp_onnx.inputs.produced import decoder_input
from palrp_onnx.inputs.tokens import load_tokenizer, usable_tokenizer
from palrp_onnx.jobs.batches import cut
from palrp_onnx.jobs.batching import Batching, try_batching
from palrp_onnx.jobs.reading import SampleReader
from palrp_onnx.jobs.records import Record, name_of, parse
from palrp_onnx.jobs.results import Line, explained, failed
from palrp_onnx.jobs.settings import Settings
from palrp_onnx.jobs.stacking import Padding, own_record, stack
from palrp_onnx.model.branches import has_decisions
from palrp_onnx.model.locate import model_file
from palrp_onnx.prepare import make_example
from palrp_onnx.record import Attribution
from palrp_onnx.relevance.target_parsing import parse_target

#: Kinds of targets that name places, or sum over all.
_PLACED = ("token", "element", "span", "region")


@dataclass(frozen=True)
class _Task:
    """A record that was read. ``index`` is its place in the list of records."""

    index: int
    record: Record
    meta: Any
    sample: Sample
    target: str
    padded: int | None
    key: Hashable

    @property
    def length(self) -> int:
        return self.padded or 0


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
        #: Whether entries of the output are tokens of the input, as the ends of answers are.
        self._ends = False
        self._input = ""
        self._batching = self._try_batching(path, words or default_tokenizer(path))

    @property
    def overlaps(self) -> bool:
        """Whether two threads may use the worker at once, so that reading and writing cost no time.

        They may not if records decide about branches and loops of the model: it is planned again
        when a record decides otherwise.
        """
        fixed = not has_decisions(self.model)
        return self.settings.engine != "numpy" and self.settings.dtype == "float32" and fixed

    def _try_batching(self, path: Path, tokenizer: Path) -> Batching:
        """Open the engine with an example, so that results do not depend on the first record.

        If no example, synthetic or given, can be used, the engine is opened with the first record,
        and records run alone.
        """
        given = self.settings.example
        arrays = None if given is None else read_npz(Path(given), self.model.inputs).feeds
        try:
            example = dict(make_example(self.model, arrays))
        except RoleError:
            return Batching(together=False, padding=None)
        subject = self._explainer.engine(example).subject
        self._ends = subject.facts.tokens
        self._input = subject.input
        file = usable_tokenizer(tokenizer)
        opened = None if file is None else load_tokenizer(file)
        pad = find_pad_token(beside(path, "config.json"), opened, file or tokenizer)
        padding = None
        if pad is not None and decoder_input(self.model.inputs) is None:
            side: Side = "right" if opened is None or file is None else find_side(opened, file)
            padding = Padding(subject.input, pad.id, frozenset(subject.masks), side)
        if arrays is not None:
            example = subject.one(example, 0)
        return try_batching(self._explainer, example, padding, self.settings.target)

    def __call__(
        self, records: Sequence[Record], done: Callable[[int], None] | None = None
    ) -> list[Line]:
        """One line per record, in their order.

        Args:
            records: The records; batches are made of these alone.
            done: Called with the number of further records that are done.
        """
        lines: dict[int, Line] = {}
        advance = done or (lambda _: None)
        tasks = []
        for index, record in enumerate(records):
            task = self._read(index, record)
            if isinstance(task, Line):
                lines[index] = task
            else:
                tasks.append(task)
        advance(len(lines))
        size = self.settings.batch_size if self._batching.together else 1
        for batch in cut(tasks, size=size, tokens=self.settings.batch_tokens):
            found = self._explain(batch)
            lines.update(zip((task.index for task in batch), found, strict=True))
            advance(len(batch))
        return [lines[index] for index in range(len(records))]

    def _read(self, index: int, record: Record) -> _Task | Line:
        name = name_of(record)
        try:
            fields = parse(record)
            wanted = self._wanted(fields.target)
            with self._reading:
                sample = self.reader.read(fields, name, record.folder)
                if fields.continuation is not None:
                    sample, wanted = self.reader.continued(sample, fields.continuation)
                own = self._explainer.labels(sample, self._labels) if _texts(sample) else {}
            target = parse_target(wanted, own or self._labels)
            if target.file is not None and wanted != self.settings.target:
                raise InputError("A record cannot name a file as its target")
        except Exception as error:  # only this record fails
            return failed(name, record.place, error)
        if sample.windows or _texts(sample):
            # Its rows are windows, or texts of an axis of their own: it runs alone.
            return _Task(index, record, fields.meta, sample, wanted, None, (wanted, index))
        padding = self._batching.padding
        padded = None
        # A position that the target names must not be padding.
        named = target.position is not None or target.kind in _PLACED
        named |= self._ends and (target.index, target.word) != (None, None)
        if padding is not None and not named:
            padded = padding.length(sample.feeds) if self._free() else None
        key = (wanted, padded is None, _form(sample, self._input, fixed=padded is None))
        return _Task(index, record, fields.meta, sample, wanted, padded, key)

    def _wanted(self, own: str | int | None) -> str:
        """The text of a record's target; a number is an index, never a label."""
        if own is None:
            return self.settings.target
        return f"index:{own}" if isinstance(own, int) else own

    def _free(self) -> bool:
        """Whether the graph accepts rows of any length."""
        return not any(
            isinstance(s.shape[1], int) for s in self.model.inputs if s.shape and len(s.shape) > 1
        )

    def _explain(self, batch: Sequence[_Task]) -> list[Line]:
        """The lines of a batch; if it fails, its records are explained one by one."""
        if len(batch) > 1:
            try:
                return self._lines(batch)
            except Exception:  # one record is invalid, or there is not enough memory for all
                return [line for task in batch for line in self._explain([task])]
        try:
            return self._lines(batch)
        except Exception as error:  # only this record fails
            return [failed(batch[0].sample.id, batch[0].record.place, error)]

    def _lines(self, batch: Sequence[_Task]) -> list[Line]:
        if len(batch) == 1:
            (task,) = batch
            (alone,) = self._explained(task.sample, task.target, 1)
            return [explained(alone, task.meta)]
        records = self._run(batch)
        side: Side = self._batching.padding.side if self._batching.padding else "right"
        return [
            explained(own_record(row, task.sample, task.padded, side), task.meta)
            for row, task in zip(records, batch, strict=True)
        ]

    def _run(self, batch: Sequence[_Task]) -> list[Attribution]:
        padding = self._batching.padding if batch[0].padded is not None else None
        whole = stack([task.sample for task in batch], padding)
        self._refuse_other_decisions(batch, whole)
        return self._explained(whole, batch[0].target, len(batch))

    def _explained(self, sample: Sample, target: str, count: int) -> list[Attribution]:
        found = self._explainer.explain(sample, target, self._labels)
        if len(found) != count:
            raise ModelError(f"The output has {len(found)} rows for {count} records")
        return [each.record for each in found]

    def _refuse_other_decisions(self, batch: Sequence[_Task], whole: Sample) -> None:
        """Refuse a batch whose records would decide otherwise alone: other rounds of a loop."""
        decided = self._explainer.decisions(whole.feeds)
        if any(self._explainer.decisions(task.sample.feeds) != decided for task in batch):
            raise ModelError("Records of a batch decide otherwise about branches or loops")


def _texts(sample: Sample) -> bool:
    """Whether several texts are rows of the sample, and may be its labels."""
    return any(part.rows for part in (sample, *sample.parts))


def _form(sample: Sample, explained: str, *, fixed: bool) -> Hashable:
    """A key that is equal for samples whose arrays can be joined.

    Whole numbers that are not given for each token, as sizes of an image, have to be the same: a
    graph may read those of one row only.
    """
    arrays = tuple(
        (name, array.dtype.str, array.shape if fixed else array.ndim)
        for name, array in sample.feeds.items()
    )
    units = sample.feeds.get(explained)
    tokens = None if units is None else units.shape[:2]
    numbers = tuple(
        (name, array.tobytes())
        for name, array in sample.feeds.items()
        if array.dtype.kind in "iub" and array.shape[:2] != tokens
    )
    return sample.units is None, sample.units and sample.units.grid, arrays, numbers
