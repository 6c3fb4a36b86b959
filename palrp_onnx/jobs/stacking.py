"""Joins samples to one batch, and separates its rows into records again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import UNSET, structs

from palrp_onnx.inputs import Feeds, Sample
from palrp_onnx.inputs.padding import Side
from palrp_onnx.record import (
    PARTS,
    Attribution,
    InputFacts,
    Map,
    OffMap,
    Relevance,
    Units,
)
from palrp_onnx.types import Array
from palrp_onnx.windows import moved_target


@dataclass(frozen=True)
class Padding:
    """How rows of tokens are padded.

    Attributes:
        subject: Name of the input that holds the tokens.
        token: Id of the padding token; other inputs are padded with zeros.
        masks: Names of the inputs that are masks.
        side: The side of the padding.
    """

    subject: str
    token: int
    masks: frozenset[str]
    side: Side = "right"

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

        def width(array: Array) -> tuple[tuple[int, int], tuple[int, int]]:
            count = length - array.shape[1]
            return (0, 0), (0, count) if self.side == "right" else (count, 0)

        return {
            name: np.pad(
                array,
                width(array),
                constant_values=self.token if name == self.subject else 0,
            )
            for name, array in feeds.items()
        }


def stack(samples: Sequence[Sample], padding: Padding | None) -> Sample:
    """One batch of rows; with ``padding``, all have the length of the longest."""
    rows = [sample.feeds for sample in samples]
    longest = samples[0].units
    units = [sample.units for sample in samples if sample.units is not None]
    if padding is not None:
        lengths = [padding.length(feeds) or 0 for feeds in rows]
        rows = [padding.fill(feeds, max(lengths)) for feeds in rows]
        longest = samples[int(np.argmax(lengths))].units
        units = [_fill_units(each, max(lengths), padding.side) for each in units]
    return Sample(
        id="batch",
        kind=samples[0].kind,
        subject=samples[0].subject,
        sound=samples[0].sound,
        columns=samples[0].columns,
        feeds={name: np.concatenate([row[name] for row in rows]) for name in rows[0]},
        facts=InputFacts(kind=samples[0].facts.kind, step=samples[0].facts.step),
        units=longest,  # own_record restores those of each row
        stacked=tuple(units) if len(units) == len(samples) else (),
        parts=tuple(stack(each, None) for each in zip(*(s.parts for s in samples), strict=True)),
    )


def _fill_units(units: Units, length: int, side: Side) -> Units:
    """Units of a row that is padded to ``length`` tokens: padding is special, and has no text."""

    def filled(values: list[Any], padding: Any) -> list[Any]:
        added = [padding] * (length - len(values))
        return [*values, *added] if side == "right" else [*added, *values]

    parts = {"text": "", "id": 0, "start": 0, "end": 0, "sequence": 0}
    parts |= {"special": True, "unknown": False}
    lists = {name: getattr(units, name) for name in parts}
    return structs.replace(
        units, **{name: filled(each, parts[name]) for name, each in lists.items() if each}
    )


def own_record(
    record: Attribution, sample: Sample, length: int | None, side: Side = "right"
) -> Attribution:
    """A row of a batch as the record of its sample: ``length`` tokens, without the padding."""
    whole = len(record.relevance.total)
    first = whole - length if length is not None and side == "left" else 0
    end = slice(first, None if length is None else first + length)
    own, *others = (_cut(each, sample, end) for each in record.maps)
    return structs.replace(
        record,
        id=sample.id,
        input=sample.facts,
        target=moved_target(record.target, lambda place: place - first),
        units=own.units,
        relevance=own.relevance,
        sites=own.sites,
        warnings=[*sample.warnings, *record.warnings],
        others=others or UNSET,
    )


def _cut(own: Map, sample: Sample, end: slice) -> Map:
    """The map without padding; all inputs of a padded row have its length."""
    relevance = own.relevance
    count = len(relevance.total[end])
    units = sample.units_of(own.input)
    if units is None or own.units.kind == "patch" or len(units.text) != count:
        units = _cut_units(own.units, end)
    return Map(
        input=own.input,
        units=units,
        relevance=Relevance(
            **{name: getattr(relevance, name)[end] for name in PARTS},
            off_map=OffMap(
                content=relevance.off_map.content + _beyond(relevance.content, end),
                position=relevance.off_map.position + _beyond(relevance.position, end),
            ),
        ),
        sites=[
            structs.replace(
                s, relevance=s.relevance[end], off_map=s.off_map + _beyond(s.relevance, end)
            )
            for s in own.sites
        ],
    )


def _beyond(values: Sequence[float], end: slice) -> float:
    """What padding has, which is cut off."""
    after = [] if end.stop is None else values[end.stop :]
    return float(sum(values[: end.start]) + sum(after))


def _cut_units(units: Units, end: slice) -> Units:
    """Units without padding; patches stay as they are, because images are not padded."""
    if units.kind == "patch":
        return units
    parts = {
        name: getattr(units, name)[end]
        for name in ("text", "id", "start", "end", "special", "sequence", "unknown")
    }
    return structs.replace(units, **parts)
