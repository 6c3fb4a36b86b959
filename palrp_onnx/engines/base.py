"""The interface of engines and their result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from palrp_onnx.errors import TargetError
from palrp_onnx.relevance.ledger import with_absorbed
from palrp_onnx.relevance.target import Resolved, Target, of_rows, resolve
from palrp_onnx.relevance.units import Maps
from palrp_onnx.subject import Subject
from palrp_onnx.types import Array, Feeds


@dataclass(frozen=True)
class Outcome:
    """One explained batch.

    Attributes:
        output: The explained output [B, …]: :meth:`Subject.by_sample`.
        targets: The target in every row of the output.
        maps: Relevance of units of the first explained input.
        further: The same of the other explained inputs, by name.
        ledger: Entries, each [B], in units of the target.
        tensors: Raw signed relevance, the batch axis first; empty if the engine has none.
        ms: Wall times in milliseconds, by stage.
    """

    output: Array
    targets: list[Resolved]
    maps: Maps
    ledger: Mapping[str, Array]
    tensors: Mapping[str, Array]
    ms: dict[str, float]
    further: Mapping[str, Maps] = field(default_factory=dict)


class Engine(Protocol):
    """An engine for one model. ``name`` and ``providers`` go into the record."""

    name: str
    providers: list[str]
    subject: Subject

    def output(self, feeds: Feeds) -> Array:
        """The explained output [B, …] alone: :meth:`Subject.by_sample`."""
        ...

    def explain(self, feeds: Feeds, target: Target | Sequence[Target]) -> Outcome:
        """Explain one batch: the same target for all rows, or one for each.

        Raises:
            InputError: The model does not run on the input.
            TargetError: The output has no such target, or no relevance reaches the input.
        """
        ...

    def close(self) -> None:
        """Free the memory of the session; the next call opens it again."""
        ...


def find_targets(
    subject: Subject, feeds: Feeds, output: Array, target: Target | Sequence[Target]
) -> list[Resolved]:
    """The target in every row of the output [B, …].

    Raises:
        TargetError: The output has no such element, or not one row for every sample.
    """
    samples = subject.samples(feeds)
    if output.ndim and len(output) != samples:
        raise TargetError(
            f"The output has {len(output)} rows for {samples} samples of input {subject.input!r}",
            place=f"output {subject.output}",
            hint="Explain the input whose samples the rows are (--explain-input), or the output "
            "that has a row for each sample (--output).",
        )
    mask = subject.output_mask(feeds, output.shape[1]) if output.ndim == 3 else None
    found = [
        resolve(each, row, None if mask is None else mask[index])
        for index, (row, each) in enumerate(zip(output, of_rows(target, len(output)), strict=True))
    ]
    if subject.facts.tokens:
        found = [_unmasked(subject, feeds, each, row) for row, each in enumerate(found)]
    for row, each in enumerate(found):
        if not np.isfinite(each.value):
            raise TargetError(
                f"The target is {each.value}, which cannot be explained",
                place=f"output {subject.output}, row {row}",
                hint="Choose another with --target.",
            )
    return found


def _unmasked(subject: Subject, feeds: Feeds, target: Resolved, row: int) -> Resolved:
    """The target, whose scores along tokens leave masked ones out of every probability."""
    scores = target.scores
    times = 1 if subject.facts.ends is None else 2
    mask = subject.units_mask(feeds, len(scores) // times) if scores.ndim == 1 else None
    if mask is None:
        return target
    return replace(target, scores=np.where(np.tile(mask[row], times) != 0, scores, -np.inf))


def settled(ledger: Mapping[str, Array], targets: Sequence[Resolved]) -> dict[str, Array]:
    """The ledger, with what log-probabilities leave out of their seeds."""
    values, amounts = (
        np.array([getattr(each, name) for each in targets]) for name in ("value", "absorbed")
    )
    return with_absorbed(ledger, values, amounts, targets[0].entry if targets else "softmax")
