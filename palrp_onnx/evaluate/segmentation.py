"""Segmentation: how well a map alone separates an object from its background.

The protocol of PA-LRP for images: a map is scaled to 0 … 1, and pixels above its mean are
foreground. Average precision needs no threshold: it measures whether the map ranks pixels right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.statistics import Estimate, interval
from palrp_onnx.types import Array

#: Label of pixels that are ignored.
IGNORED = -1


@dataclass(frozen=True)
class MaskScores:
    """Result for one image.

    Attributes:
        correct: Number of pixels with the right label.
        labelled: Number of pixels that are not ignored.
        intersection: Number of pixels that are background, and foreground, in both map and mask
            [2].
        union: The same for map or mask [2].
        precision: Average precision.
    """

    correct: int
    labelled: int
    intersection: Array
    union: Array
    precision: float


class Segmentation(Struct, frozen=True, kw_only=True):
    """Figures over a data set; higher is better.

    Attributes:
        samples: Number of images.
        pixel_accuracy: Σ correct / Σ labelled.
        mean_iou: Mean over background and foreground of Σ intersection / Σ union.
        mean_ap: Mean over the images of average precision.
    """

    samples: int
    pixel_accuracy: Estimate
    mean_iou: Estimate
    mean_ap: Estimate


def judge(relevance: Array, labels: Array) -> MaskScores:
    """Compare a map with a mask.

    Args:
        relevance: The map [H, W].
        labels: 0 background, 1 foreground, -1 ignored [H, W].

    Raises:
        InputError: All pixels are ignored, or relevance is not finite.
    """
    if not np.isfinite(relevance).all():
        raise InputError("The map has numbers that are not finite")
    judged = labels != IGNORED
    if not judged.any():
        raise InputError("Every pixel of the mask is ignored")
    stretched = _stretch(relevance)
    guess = (stretched > stretched.mean())[judged]
    truth, scores = labels[judged] == 1, stretched[judged]
    sides = ((~guess, ~truth), (guess, truth))
    return MaskScores(
        correct=int((guess == truth).sum()),
        labelled=len(truth),
        intersection=np.array([(found & true).sum() for found, true in sides]),
        union=np.array([(found | true).sum() for found, true in sides]),
        precision=average_precision(
            np.concatenate([~truth, truth]), np.concatenate([1 - scores, scores])
        ),
    )


def _stretch(relevance: Array) -> Array:
    """The map scaled to 0 … 1; a constant map becomes 0."""
    lowest = relevance.min()
    span = relevance.max() - lowest
    return np.asarray((relevance - lowest) / (span or 1))


def average_precision(truth: Array, scores: Array) -> float:
    """Σ_n (R_n − R_{n−1}) P_n over the distinct scores, from the highest down.

    P_n and R_n are precision and recall of the entries that have at least the n-th score. Equal
    scores are one step, so their order does not matter.

    Args:
        truth: Whether each entry is positive [n]; at least one must be.
        scores: Scores of the entries [n].
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    falls = np.flatnonzero(np.diff(scores[order]))
    ends = np.append(falls, len(scores) - 1)
    precision = hits[ends] / (ends + 1)
    gained = np.diff(hits[ends], prepend=0)
    return float((gained * precision).sum() / hits[-1])


def summarise(judged: Sequence[MaskScores], *, seed: int = 0) -> Segmentation:
    """Figures over all images; counts are pooled before they are divided.

    Raises:
        InputError: There are no images.
    """
    if not judged:
        raise InputError("There is nothing to evaluate")
    counts = np.array(
        [[j.correct, j.labelled, *j.intersection, *j.union] for j in judged], dtype=np.float64
    )

    def figure(samples: Array, statistic: Callable[[Array], Array]) -> Estimate:
        low, high = interval(samples, statistic, seed=seed)
        (value,) = statistic(samples.mean(axis=0, keepdims=True)).tolist()
        return Estimate(value=value, low=low, high=high)

    return Segmentation(
        samples=len(judged),
        pixel_accuracy=figure(counts, lambda c: np.asarray(c[:, 0] / c[:, 1])),
        mean_iou=figure(counts, _mean_iou),
        mean_ap=figure(np.array([j.precision for j in judged]), lambda means: means),
    )


def _mean_iou(counts: Array) -> Array:
    intersection, union = counts[:, 2:4], counts[:, 4:6]
    # A label that occurs in no map and no mask counts as 0.
    return np.asarray(np.divide(intersection, union, where=union > 0, out=0 * union).mean(axis=1))
