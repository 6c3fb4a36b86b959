"""Whether rows may run together: tried on the model, as nothing else can tell.

Scales that are measured over a whole batch (dynamic quantisation), a head that looks for the last
token without a mask, statistics over the batch: all of these make a row's explanation depend on the
rows beside it, or on padding. A made-up example is explained alone, beside another row, and filled
up; what changes it is not done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import PalrpError, TargetError, ZeroMapError
from palrp_onnx.explainer import Explainer
from palrp_onnx.fidelity import HALF, tolerance_of
from palrp_onnx.inputs import Feeds, Sample
from palrp_onnx.jobs.stacking import Padding, own_record, stack
from palrp_onnx.record import Attribution, InputFacts

#: Largest difference from the row alone, over the largest number of the map.
TOLERANCE = 5e-5


@dataclass(frozen=True)
class Batching:
    """What may be done with rows.

    Attributes:
        together: Whether several run at once.
        padding: How they are filled up; ``None`` where only rows of one length run together.
    """

    together: bool
    padding: Padding | None


def try_batching(
    explainer: Explainer, example: Feeds, padding: Padding | None, target: str
) -> Batching:
    """Find out with ``example``, a row that the model takes."""
    if any(isinstance(s.shape[0], int) for s in explainer.model.inputs if s.shape):
        return Batching(together=False, padding=None)
    subject = explainer.engine(example).subject
    if subject.measured:  # also over what rows are filled up with
        return Batching(together=False, padding=None)
    row, other = _sample(example), _sample(_another(example, subject.input))
    trial = _Trial(explainer, _usable(explainer, row, target))
    if not trial.harmless([row, other], None):
        return Batching(together=False, padding=None)
    length = None if padding is None else padding.length(example)
    if padding is None or length is None or length < 2:
        return Batching(together=True, padding=None)
    short = _sample({k: array[:, : length // 2 + 1] for k, array in example.items()})
    return Batching(
        together=True, padding=padding if trial.harmless([row, short], padding) else None
    )


@dataclass(frozen=True)
class _Trial:
    explainer: Explainer
    target: str

    def harmless(self, samples: list[Sample], padding: Padding | None) -> bool:
        """Whether every row of the batch is explained as it is alone."""
        half = tolerance_of(self.explainer.model.graph) == HALF
        tolerance = HALF if half else TOLERANCE
        try:
            alone = [self.explainer.explain(each, self.target)[0].record for each in samples]
            beside = self.explainer.explain(stack(samples, padding), self.target)
        except PalrpError:
            return False
        lengths = [None if padding is None else padding.length(each.feeds) for each in samples]
        own = [
            own_record(row.record, each, length)
            for row, each, length in zip(beside, samples, lengths, strict=True)
        ]
        return all(_alike(*pair, tolerance) for pair in zip(own, alone, strict=True))


def _usable(explainer: Explainer, row: Sample, target: str) -> str:
    """The target, or the predicted class where an example has no such place."""
    try:
        explainer.explain(row, target)
    except TargetError:
        return "pred"
    except ZeroMapError:  # of this example, or of every record: each will tell for itself
        return target
    return target


def _alike(first: Attribution, second: Attribution, tolerance: float) -> bool:
    maps = [
        np.array([r.relevance.content, r.relevance.position, r.relevance.total])
        for r in (first, second)
    ]
    if maps[0].shape != maps[1].shape:
        return False
    scale = max(float(np.abs(maps[1]).max(initial=0.0)), abs(second.target.value))
    difference = max(
        float(np.abs(maps[0] - maps[1]).max(initial=0.0)),
        abs(first.target.value - second.target.value),
    )
    return difference <= tolerance * scale


def _sample(feeds: Feeds) -> Sample:
    return Sample(id="trial", kind="tensors", feeds=feeds, facts=InputFacts(kind="tensors"))


def _another(example: Feeds, subject: str) -> Feeds:
    """Another row: numbers of another size, or one token again and again; shared scales show."""
    array: NDArray[Any] = example[subject]
    other = (array * 0.25).astype(array.dtype) if array.dtype.kind == "f" else _first(array)
    return {**example, subject: other}


def _first(array: NDArray[Any]) -> NDArray[Any]:
    """As many tokens, all like the first."""
    return np.ascontiguousarray(np.broadcast_to(array.flat[0], array.shape))
