"""A text that is longer than its model, explained in overlapping windows.

The target is the mean over K windows, ``(1/K) Σ_k y_k``. It is a sum of what the windows compute,
so that relevance of the whole text needs no further rules: every token has 1/K of its relevance in
all windows that it is in, and every entry of the ledger is the mean of those of the windows. The
ledger closes if it does in every window. Special tokens of all windows are those of the text, and
so are those of a pair's other text.

Where the output has a row for each token, the K windows are those in which the place of the target
stands. Where its entries are tokens, which compete with the others of a window, it is the one
window in which the place has its largest score, or which has the best answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from msgspec import UNSET, UnsetType, structs

from palrp_onnx.errors import TargetError, UsageError
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.text import WINDOWS
from palrp_onnx.record import (
    LEDGER_SUMS,
    PARTS,
    Attribution,
    Fidelity,
    OffMap,
    Prediction,
    Relevance,
    Site,
    TargetFacts,
    Warning_,
)
from palrp_onnx.relevance.ledger import close_ledger
from palrp_onnx.relevance.target import Target, bounded
from palrp_onnx.types import Array

#: [K lists of numbers, one a unit of the window] → one number a unit of the text.
_Join = Callable[[Sequence[Sequence[float]]], list[float]]


@dataclass(frozen=True)
class LongText:
    """A text in windows, and what the model computes for them.

    Attributes:
        sample: The text, with its windows.
        outputs: The output [1, …] for every window.
        competing: Whether entries of the output are tokens of the window.
    """

    sample: Sample
    outputs: Sequence[Array]
    competing: bool

    @cached_property
    def parts(self) -> list[Sample]:
        """The windows, each a sample of its own."""
        return [self.sample.alone(window) for window in self.sample.windows]

    @property
    def by_token(self) -> bool:
        """Whether every window has a row, or an entry, for each of its tokens."""
        axes = 2 if self.competing else 3
        return all(
            output.ndim == axes and output.shape[1] == len(window.places)
            for output, window in zip(self.outputs, self.sample.windows, strict=True)
        )

    @cached_property
    def whole(self) -> Sample:
        """The text as one row, which the model itself has no room for."""
        feeds = {name: self._spread(name) for name in self.sample.feeds}
        return replace(self.sample, feeds=feeds, windows=())

    def _spread(self, name: str) -> Array:
        windows = self.sample.windows
        count = 1 + max(max(window.places) for window in windows)
        row = np.zeros((1, count), windows[0].feeds[name].dtype)
        for window in windows:
            row[0, list(window.places)] = window.feeds[name][0]
        return row

    @cached_property
    def rows(self) -> Array:
        """The output [1, tokens, …] of the whole text: of each token's windows the mean or best."""
        count = self.whole.feeds[next(iter(self.whole.feeds))].shape[1]
        sums = np.zeros((count, *self.outputs[0].shape[2:]))
        best, seen = np.full_like(sums, -np.inf), np.zeros(count)
        for window, output in zip(self.sample.windows, self.outputs, strict=True):
            places = list(window.places)
            sums[places] += output[0]
            best[places] = np.maximum(best[places], output[0])
            seen[places] += 1
        mean = sums / seen.reshape(-1, *(1,) * (sums.ndim - 1))
        return np.asarray(best if self.competing else mean)[None]

    def placed(self, target: Target) -> dict[int, Target]:
        """The windows that a target at a place of the text is explained in, with that of each.

        Args:
            target: The target, bound to `whole`.

        Raises:
            TargetError: It is at no single place.
        """
        if self.competing and target.kind in ("index", "pred") and target.index is not None:
            place = bounded(target.index, self.rows.shape[1])
            found = self._holding(place)
            best = max(found, key=lambda k: float(self.outputs[k][0, found[k]]))
            return {best: replace(target, index=found[best])}
        kinds = ("pred", "token", "index", "contrast", "vector")
        if self.competing or target.position is None or target.kind not in kinds:
            raise TargetError(
                f"The target {target.kind!r} is at no single token, so that windows cannot have it",
                hint="Name the token, as in --target token:3, or explain a part of the text that "
                "the model has room for.",
            )
        place = bounded(target.position, self.rows.shape[1])
        if target.index is None and target.kind in ("pred", "token"):
            best = int(self.rows[0, place].argmax())
            target = replace(target, kind="token", index=best)
        return {k: replace(target, position=at) for k, at in self._holding(place).items()}

    def _holding(self, place: int) -> dict[int, int]:
        """The windows that a place of the text stands in, with its place in each."""
        places = [window.places for window in self.sample.windows]
        return {k: each.index(place) for k, each in enumerate(places) if place in each}


def join_windows(sample: Sample, found: Mapping[int, Explanation]) -> Explanation:
    """The explanation of a whole text from those of its windows, all for the same target.

    Args:
        sample: The text, with its windows.
        found: The explanations of those windows whose mean the target is, by their numbers from 0.
            Raw arrays of the windows are left out.

    Raises:
        UsageError: Another input is explained, too.
    """
    windows = [sample.windows[k] for k in found]
    records = [each.record for each in found.values()]
    first = records[0]
    assert sample.units is not None
    if first.others is not UNSET:
        raise UsageError(
            "Windows are for a text that is explained alone",
            place=f"input {first.others[0].input}",
            hint=f"--explain-input {first.input_name or ''}",
        )
    count = len(sample.units.text)

    def joined(parts: Sequence[Sequence[float]]) -> list[float]:
        total = np.zeros(count)
        for window, values in zip(windows, parts, strict=True):
            np.add.at(total, np.array(window.places), np.asarray(values) / len(parts))
        return total.tolist()

    target = moved_target(first.target, windows[0].places.__getitem__)
    probability = first.target.probability if len(records) == 1 else None
    value = float(np.mean([each.target.value for each in records]))
    return Explanation(
        structs.replace(
            first,
            id=sample.id,
            run=structs.replace(first.run, ms=_sums(records)),
            input=sample.facts,
            target=structs.replace(target, value=value, probability=probability),
            units=sample.units,
            relevance=_relevance(records, joined),
            sites=_sites(records, joined),
            ledger=_ledger(records, value),
            warnings=[*_said(sample, list(found)), *_warnings(records)],
            prediction=UNSET,
            fidelity=max((each.fidelity for each in records), key=_difference),
        ),
        tensors={},
        sample=sample,
    )


def moved_target(target: TargetFacts, moved: Callable[[int], int]) -> TargetFacts:
    """The target in a row whose tokens are at other places."""
    index, position = target.index, target.position
    if isinstance(index, list) and index[1:]:
        index = [moved(index[0]), *index[1:]]
    elif isinstance(index, int) and target.kind == "place":
        index = moved(index)
    return structs.replace(
        target,
        index=index,
        position=None if position is None else moved(position),
        places=None if target.places is None else [moved(place) for place in target.places],
    )


def moved_prediction(
    said: Prediction | UnsetType, moved: Callable[[int], int], *, places: bool
) -> Prediction | UnsetType:
    """What the model said in a row whose tokens, its entries if they are ``places``, moved."""
    if said is UNSET:
        return UNSET
    if places:
        top = [structs.replace(each, index=moved(each.index)) for each in said.top]
        said = structs.replace(said, index=moved(said.index), top=top)
    position = None if said.position is None else moved(said.position)
    return structs.replace(said, position=position)


def _said(sample: Sample, chosen: Sequence[int]) -> list[Warning_]:
    """The warnings of the text; that of its windows says which of them the target is of."""
    numbers = [str(k + 1) for k in chosen]
    if len(chosen) == len(sample.windows):
        what = "the mean over them"
    elif len(chosen) == 1:
        what = f"that of window {numbers[0]}"
    else:
        what = f"the mean over windows {', '.join(numbers[:-1])} and {numbers[-1]}"
    return [
        structs.replace(each, message=f"{each.message}: the target is {what}")
        if each.code == WINDOWS
        else each
        for each in sample.warnings
    ]


def _difference(fidelity: Fidelity | UnsetType) -> float:
    return 0.0 if fidelity is UNSET else fidelity.difference or 0.0


def _sums(records: Sequence[Attribution]) -> dict[str, float]:
    return {name: sum(each.run.ms.get(name, 0.0) for each in records) for name in records[0].run.ms}


def _relevance(records: Sequence[Attribution], joined: _Join) -> Relevance:
    return Relevance(
        **{part: joined([getattr(each.relevance, part) for each in records]) for part in PARTS},
        off_map=OffMap(
            **{
                part: float(np.mean([getattr(each.relevance.off_map, part) for each in records]))
                for part in ("content", "position")
            }
        ),
    )


def _sites(records: Sequence[Attribution], joined: _Join) -> list[Site]:
    columns = zip(*(each.sites for each in records), strict=True)
    return [
        structs.replace(
            same[0],
            relevance=joined([each.relevance for each in same]),
            off_map=float(np.mean([each.off_map for each in same])),
        )
        for same in columns
    ]


def _ledger(records: Sequence[Attribution], value: float) -> dict[str, float]:
    """The mean of every entry, and what they miss of the mean target."""
    entries = {
        name: np.array([np.mean([each.ledger[name] for each in records])])
        for name in records[0].ledger
        if name not in LEDGER_SUMS
    }
    closed = close_ledger(entries, np.array([value]))
    return {name: float(amount[0]) for name, amount in closed.items()}


def _warnings(records: Sequence[Attribution]) -> list[Warning_]:
    return list(dict.fromkeys(warning for each in records for warning in each.warnings))
