"""Joins samples to one batch, and separates its rows into records again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import structs

from palrp_onnx.inputs import Feeds, Sample
from palrp_onnx.record import Attribution, InputFacts, Relevance, Units


@dataclass(frozen=True)
class Padding:
    """How rows of tokens are padded on the right.

    Attributes:
        subject: Name of the input that holds the tokens.
        token: Id of the padding token; other inputs are padded with zeros.
        masks: Names of the inputs that are masks.
    """

    subject: str
    token: int
    masks: frozenset[str]

    def length(self, feeds: Feeds) -> int | None:
        """Number of tokens of a row, or ``None`` if the row cannot be padded.

        To be padded, every array must be ``[1, tokens]``, the tokens integers, and one of the other
        inputs a mask.
        """
        shapes = {array.shape for array in feeds.values()}
        (shape, *others) = shapes
        if others or len(shape) != 2 or shape[0] != 1 or not self.masks & feeds.keys():
            return None
        tokens = feeds.get(self.subject)
        return None if tokens is None or tokens.dtype.kind not in "iu" else int(shape[1])

    def fill(self, feeds: Feeds, length: int) -> Feeds:
        """The row, padded to ``length`` tokens."""
        return {
            name: np.pad(
                array,
                ((0, 0), (0, length - array.shape[1])),
                constant_values=self.token if name == self.subject else 0,
            )
            for name, array in feeds.items()
        }


def stack(samples: Sequence[Sample], padding: Padding | None) -> Sample:
    """One batch of rows; with ``padding``, all have the length of the longest."""
    rows = [sample.feeds for sample in samples]
    longest = samples[0].units
    if padding is not None:
        lengths = [padding.length(feeds) or 0 for feeds in rows]
        rows = [padding.fill(feeds, max(lengths)) for feeds in rows]
        longest = samples[int(np.argmax(lengths))].units
    return Sample(
        id="batch",
        kind=samples[0].kind,
        feeds={name: np.concatenate([row[name] for row in rows]) for name in rows[0]},
        facts=InputFacts(kind=samples[0].facts.kind),
        units=longest,  # own_record restores those of each row
    )


def own_record(record: Attribution, sample: Sample, length: int | None) -> Attribution:
    """A row of a batch as the record of its sample, without the padding after ``length`` tokens."""
    end = slice(length)
    count = len(record.relevance.total[end])
    units = sample.units
    if units is None or record.units.kind == "patch" or len(units.text) != count:
        units = _cut_units(record.units, end)
    relevance = record.relevance
    return structs.replace(
        record,
        id=sample.id,
        input=sample.facts,
        units=units,
        relevance=Relevance(
            content=relevance.content[end],
            position=relevance.position[end],
            total=relevance.total[end],
        ),
        sites=[structs.replace(s, relevance=s.relevance[end]) for s in record.sites],
        warnings=[*sample.warnings, *record.warnings],
    )


def _cut_units(units: Units, end: slice) -> Units:
    """Units without padding; patches stay as they are, because images are not padded."""
    if units.kind == "patch":
        return units
    parts = {
        name: getattr(units, name)[end]
        for name in ("text", "id", "start", "end", "special", "sequence")
    }
    return structs.replace(units, **parts)
