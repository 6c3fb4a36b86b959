"""Stability: whether maps stay the same when one token of a text becomes unknown."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.baselines import ComparedMethod
from palrp_onnx.evaluate.maps import explained, in_turn, target_text
from palrp_onnx.evaluate.statistics import Estimate, crossed_mean, spearman
from palrp_onnx.inputs.sample import Sample

#: Number of tokens of a text that are replaced, each alone.
DRAWS = 5


@dataclass(frozen=True)
class Replacement:
    """Which tokens may be replaced, and by which token.

    Attributes:
        unknown: Id of the replacing token.
        prefix: Number of tokens at the start that are never replaced.
        suffix: Number of tokens at the end that are never replaced.
    """

    unknown: int
    prefix: int = 0
    suffix: int = 0


class Stability(Struct, frozen=True, kw_only=True):
    """One method over a data set.

    Attributes:
        samples: Number of texts.
        draws: Largest number of tokens that were replaced in a text, each alone.
        signed: Rank correlation of relevance over the other tokens: 1 is the same order.
        magnitude: Rank correlation of |relevance|.
    """

    samples: int
    draws: int
    signed: Estimate
    magnitude: Estimate


def stability(
    methods: Mapping[str, ComparedMethod],
    samples: Iterable[Sample],
    replacement: Replacement,
    *,
    target: str = "pred",
    labels: Mapping[int, str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Stability]:
    """Compare the map of every text with the maps of the text with one token replaced.

    The target is the one that the first method finds in the unchanged text. The drawn tokens depend
    on the name of the text, and are the same for all methods; all texts have equal weight.

    Args:
        methods: The methods by name.
        samples: One text each.
        replacement: Which tokens are replaced, and by which.
        target: The explained target.
        labels: Names of classes by index.
        progress: Called with the number of texts that are done.

    Raises:
        UsageError: An input holds several rows, or is not a text.
        InputError: There are no texts, or one has too few tokens.
    """
    signed: dict[str, list[float]] = {name: [] for name in methods}
    magnitude: dict[str, list[float]] = {name: [] for name in methods}
    for done, sample in enumerate(samples, start=1):
        altered = None
        for name, facts, before in in_turn(methods, sample, target, labels):
            each, wanted = methods[name], target_text(facts, target)
            if altered is None:
                altered = _altered(sample, each.engine(sample.feeds).subject.input, replacement)
            pairs = [
                (
                    np.delete(before, place),
                    np.delete(explained(each, other, wanted, labels)[1], place),
                )
                for place, other in altered
            ]
            signed[name].append(_mean(spearman(old, new) for old, new in pairs))
            magnitude[name].append(_mean(spearman(abs(old), abs(new)) for old, new in pairs))
        progress(done)
    if not any(signed.values()):
        raise InputError("There is nothing to evaluate")
    return {
        name: Stability(
            samples=len(signed[name]),
            draws=DRAWS,
            signed=crossed_mean(np.array([signed[name]])),
            magnitude=crossed_mean(np.array([magnitude[name]])),
        )
        for name in methods
    }


def _altered(sample: Sample, name: str, replacement: Replacement) -> list[tuple[int, Sample]]:
    """Places, and the sample with the token at each of them replaced."""
    ids = sample.feeds[name]
    if ids.dtype.kind not in "iu" or ids.ndim != 2:
        raise UsageError("Only tokens can be replaced", place=f"input {name}")
    count = ids.shape[1]
    free = np.arange(replacement.prefix, count - replacement.suffix)
    free = free[ids[0, free] != replacement.unknown]
    if not len(free) or count < 3:
        raise InputError(
            "The text has too few tokens",
            place=sample.id,
            hint="It needs three, of which one may be replaced and is not the unknown token.",
        )
    generator = np.random.default_rng(zlib.crc32(sample.id.encode()))
    return [
        (place, _replaced(sample, name, place, replacement.unknown))
        for place in generator.permutation(free)[:DRAWS].tolist()
    ]


def _replaced(sample: Sample, name: str, place: int, unknown: int) -> Sample:
    ids = sample.feeds[name].copy()
    ids[0, place] = unknown
    return replace(sample, feeds={**sample.feeds, name: ids})


def _mean(numbers: Iterable[float | None]) -> float:
    """The mean; the correlation with a constant map counts as 0."""
    return float(np.mean([number or 0.0 for number in numbers]))
