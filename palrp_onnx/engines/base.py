"""The interface of engines and their result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from palrp_onnx.errors import TargetError
from palrp_onnx.relevance.target import Resolved, Target, resolve
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

    def explain(self, feeds: Feeds, target: Target) -> Outcome:
        """Explain one batch.

        Raises:
            InputError: The model does not run on the input.
            TargetError: The output has no such target, or no relevance reaches the input.
        """
        ...


def find_targets(subject: Subject, feeds: Feeds, output: Array, target: Target) -> list[Resolved]:
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
        resolve(target, row, None if mask is None else mask[index])
        for index, row in enumerate(output)
    ]
    for row, each in enumerate(found):
        if not np.isfinite(each.value):
            raise TargetError(
                f"The target is {each.value}, which cannot be explained",
                place=f"output {subject.output}, row {row}",
                hint="Choose another with --target.",
            )
    return found
