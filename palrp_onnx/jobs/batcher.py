"""Explains many samples with one explainer: in batches, where that changes no explanation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from palrp_onnx.errors import ModelError, RoleError
from palrp_onnx.explainer import Explainer
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs import Sample, read_npz
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.padding import Side, find_pad_token, find_side
from palrp_onnx.inputs.produced import decoder_input
from palrp_onnx.inputs.tokens import load_tokenizer, usable_tokenizer
from palrp_onnx.jobs.batches import cut
from palrp_onnx.jobs.batching import Batching, try_batching
from palrp_onnx.jobs.stacking import Padding, own_record, stack
from palrp_onnx.prepare import make_example
from palrp_onnx.relevance.target import Target
from palrp_onnx.relevance.target_parsing import parse_target
from palrp_onnx.subject import Subject

#: Kinds of targets that name places, or sum over all.
_PLACED = ("token", "element", "span", "region")


@dataclass(frozen=True)
class Task:
    """A sample and its target, ready to be put into a batch.

    Attributes:
        sample: The sample.
        target: The text of its target.
        parsed: The same, parsed.
        padded: Number of tokens, if it may be padded.
        key: Equal for samples that may run together.
    """

    sample: Sample
    target: str
    parsed: Target
    padded: int | None
    key: Hashable

    @property
    def length(self) -> int:
        """Number of tokens; 0 if all samples of this key have the same shape."""
        return self.padded or 0


class Batcher:
    """Explains samples with one explainer, one explanation each.

    Args:
        explainer: The explainer.
        labels: Names of classes by index.
        tokenizer: The tokenizer, a file or a folder, which may not exist.
        target: The usual target.
        size: Largest number of samples in one run of the model.
        tokens: Largest number of tokens in one run, padding included.
        example: An ``.npz`` file with a valid input, for trial runs of models that do not run on a
            synthetic example.

    Attributes:
        batching: How samples may be put into batches.
        subject: What is explained; ``None`` where no example could be made, so that the first
            sample decides.

    Raises:
        PalrpError: The model cannot be explained with these options, whatever the sample.
    """

    def __init__(
        self,
        explainer: Explainer,
        labels: Mapping[int, str],
        tokenizer: Path,
        *,
        target: str,
        size: int,
        tokens: int,
        example: Path | None = None,
    ) -> None:
        self._explainer = explainer
        self._labels = labels
        self._size = size
        self._tokens = tokens
        #: Whether entries of the output are tokens of the input, as the ends of answers are.
        self._ends = False
        self._input = ""
        self.subject: Subject | None = None
        self.batching = self._try_batching(tokenizer, target, example)

    def _try_batching(self, tokenizer: Path, target: str, given: Path | None) -> Batching:
        """Open the engine with an example, so that results do not depend on the first sample.

        If no example, synthetic or given, can be used, the engine is opened with the first sample,
        and samples run alone.
        """
        model = self._explainer.model
        arrays = None if given is None else read_npz(given, model.inputs).feeds
        try:
            example = dict(make_example(model, arrays))
        except RoleError:
            return Batching(together=False, padding=None)
        self.subject = subject = self._explainer.engine(example).subject
        self._ends = subject.facts.tokens
        self._input = subject.input
        file = usable_tokenizer(tokenizer)
        opened = None if file is None else load_tokenizer(file)
        pad = find_pad_token(beside(model.path, "config.json"), opened, file or tokenizer)
        padding = None
        if pad is not None and decoder_input(model.inputs) is None:
            side: Side = "right" if opened is None or file is None else find_side(opened, file)
            padding = Padding(subject.input, pad.id, frozenset(subject.masks), side)
        if arrays is not None:
            example = subject.one(example, 0)
        return try_batching(self._explainer, example, padding, target)

    def task(self, sample: Sample, wanted: str) -> Task:
        """How a sample runs with this target."""
        labels = self._labels
        if sample.texts:
            labels = self._explainer.labels(sample, labels)
        target = parse_target(wanted, labels)
        if sample.windows or sample.texts:  # not rows of its batch: it runs alone
            return Task(sample, wanted, target, None, id(sample))
        padding = self.batching.padding
        padded = None
        # A position that the target names must not be padding.
        named = target.position is not None or target.kind in _PLACED
        named |= self._ends and (target.index, target.word) != (None, None)
        if padding is not None and not named:
            padded = padding.length(sample.feeds) if self._free() else None
        key = (wanted, padded is None, _form(sample, self._input, fixed=padded is None))
        return Task(sample, wanted, target, padded, key)

    def _free(self) -> bool:
        """Whether the graph accepts rows of any length."""
        inputs = self._explainer.model.inputs
        return not any(isinstance(s.shape[1], int) for s in inputs if s.shape and len(s.shape) > 1)

    def __call__(
        self, tasks: Sequence[Task], done: Callable[[int], None] | None = None
    ) -> list[Explanation | Exception]:
        """The explanation of every task without raw arrays, or the error, in their order.

        Args:
            tasks: The tasks; batches are made of these alone.
            done: Called with the number of further tasks that are done.
        """
        found: dict[int, Explanation | Exception] = {}
        places = {id(task): place for place, task in enumerate(tasks)}
        size = self._size if self.batching.together else 1
        for batch in cut(tasks, size=size, tokens=self._tokens):
            found.update(zip((places[id(t)] for t in batch), self._explain(batch), strict=True))
            if done is not None:
                done(len(batch))
        return [found[place] for place in range(len(tasks))]

    def _explain(self, batch: Sequence[Task]) -> list[Explanation | Exception]:
        """A batch; if it fails, its samples are explained one by one."""
        try:
            return [*self._run(batch)]
        except Exception as error:  # one sample is invalid, or there is not enough memory for all
            if len(batch) == 1:
                return [error]
            return [each for task in batch for each in self._explain([task])]

    def _run(self, batch: Sequence[Task]) -> list[Explanation]:
        if len(batch) == 1:
            (alone,) = self._rows(batch[0].sample, batch[0].target, 1)
            alone.record.require_finite()
            return [replace(alone, tensors={})]
        padding = self.batching.padding if batch[0].padded is not None else None
        whole = stack([task.sample for task in batch], padding)
        self._refuse_other_decisions(batch, whole)
        rows = self._rows(whole, batch[0].target, len(batch))
        side: Side = padding.side if padding else "right"
        found = []
        for row, task in zip(rows, batch, strict=True):
            record = own_record(row.record, task.sample, task.padded, side)
            record.require_finite()
            found.append(Explanation(record, {}, task.sample))
        return found

    def _rows(self, sample: Sample, target: str, count: int) -> list[Explanation]:
        rows = self._explainer.explain(sample, target, self._labels)
        if len(rows) != count:
            raise ModelError(f"The output has {len(rows)} rows for {count} records")
        return rows

    def _refuse_other_decisions(self, batch: Sequence[Task], whole: Sample) -> None:
        """Refuse a batch whose samples would decide otherwise alone: other rounds of a loop."""
        decided = self._explainer.decisions(whole.feeds)
        if any(self._explainer.decisions(task.sample.feeds) != decided for task in batch):
            raise ModelError("Records of a batch decide otherwise about branches or loops")


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
