"""Tests on the model whether batching or padding changes a row's explanation.

Scales that are measured over a whole batch (dynamic quantisation), a head that looks for the last
token without a mask, and statistics over the batch make the explanation of a row depend on the
other rows, or on padding. So a synthetic example is explained alone, in a batch with another row,
and padded. Batching and padding are used only if they do not change its explanation.
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

#: Largest allowed difference from the row alone, as a share of the map's largest magnitude.
TOLERANCE = 5e-5


@dataclass(frozen=True)
class Batching:
    """How rows may be put into batches.

    Attributes:
        together: Whether several rows may run at once.
        padding: How rows are padded; ``None`` if only rows of one length may run together.
    """

    together: bool
    padding: Padding | None


def try_batching(
    explainer: Explainer, example: Feeds, padding: Padding | None, target: str
) -> Batching:
    """Test it with ``example``, a valid input of one row."""
    if any(isinstance(s.shape[0], int) for s in explainer.model.inputs if s.shape):
        return Batching(together=False, padding=None)
    subject = explainer.engine(example).subject
    if subject.batched.get(subject.input) != 0 or any(subject.batched.values()):
        return Batching(together=False, padding=None)
    if subject.measured:  # padding would change the scales, too
        return Batching(together=False, padding=None)
    row, other = _sample(example), _sample(_another(example, subject.input))
    comparison = _Comparison(explainer, _usable(explainer, row, target))
    if not comparison.harmless([row, other], None):
        return Batching(together=False, padding=None)
    length = None if padding is None else padding.length(example)
    if padding is None or length is None or length < 2:
        return Batching(together=True, padding=None)
    short = _sample({k: array[:, : length // 2 + 1] for k, array in example.items()})
    return Batching(
        together=True, padding=padding if comparison.harmless([row, short], padding) else None
    )


@dataclass(frozen=True)
class _Comparison:
    explainer: Explainer
    target: str

    def harmless(self, samples: list[Sample], padding: Padding | None) -> bool:
        """Whether every row has the same explanation in a batch as alone."""
        half = tolerance_of(self.explainer.model.graph) == HALF
        tolerance = HALF if half else TOLERANCE
        try:
            alone = [self.explainer.explain(each, self.target)[0].record for each in samples]
            joined = self.explainer.explain(stack(samples, padding), self.target)
        except PalrpError:
            return False
        lengths = [None if padding is None else padding.length(each.feeds) for each in samples]
        own = [
            own_record(row.record, each, length, padding.side if padding else "right")
            for row, each, length in zip(joined, samples, lengths, strict=True)
        ]
        return all(_alike(*pair, tolerance) for pair in zip(own, alone, strict=True))


def _usable(explainer: Explainer, row: Sample, target: str) -> str:
    """The target, or the predicted class if the example does not have that target."""
    try:
        explainer.explain(row, target)
    except TargetError:
        return "pred"
    except ZeroMapError:  # of this example or of all; each record reports its own
        return target
    return target


def _alike(first: Attribution, second: Attribution, tolerance: float) -> bool:
    maps = [
        np.concatenate(
            [[m.relevance.content, m.relevance.position, m.relevance.score] for m in record.maps],
            axis=1,
        )
        for record in (first, second)
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
    return Sample(id="example", kind="tensors", feeds=feeds, facts=InputFacts(kind="tensors"))


def _another(example: Feeds, subject: str) -> Feeds:
    """Another row, of smaller numbers or of one repeated token, so that shared scales are seen."""
    array: NDArray[Any] = example[subject]
    other = (array * 0.25).astype(array.dtype) if array.dtype.kind == "f" else _first(array)
    return {**example, subject: other}


def _first(array: NDArray[Any]) -> NDArray[Any]:
    """As many tokens, all equal to the first."""
    return np.ascontiguousarray(np.broadcast_to(array.flat[0], array.shape))
