"""Maps of images by several methods, one number per pixel."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

import numpy as np

from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines import Baseline, ComparedMethod
from palrp_onnx.evaluate.texts import RANDOM
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs import Sample
from palrp_onnx.record import TargetFacts
from palrp_onnx.relevance.method import Ranking
from palrp_onnx.relevance.target_parsing import parse_target
from palrp_onnx.relevance.units import image_grid
from palrp_onnx.types import Array

Maps = dict[str, Array]


def pixel_map(explanation: Explanation, ranking: Ranking) -> Array:
    """One number per pixel [H, W] of the network's input, by which the method ranks.

    Content is summed over the channels, and the reduced position relevance of a patch is spread
    evenly over its pixels, as in the paper's code for its tables. Where magnitudes count, the score
    of the patch is spread.

    Args:
        explanation: Explanation of an image.
        ranking: How the method makes scores.
    """
    content: Array = explanation.tensors["pixels"][0].sum(axis=0, dtype=np.float64)
    grid = explanation.record.units.grid
    if (ranking.kind == "content" and not ranking.magnitude) or grid is None:
        return content
    score = np.array(explanation.record.relevance.score)
    if ranking.kind == "position" or ranking.magnitude:
        return spread(score, grid, content.shape)
    reduced = score - np.array(explanation.record.relevance.content)
    return content + spread(reduced, grid, content.shape)


def spread(units: Array | list[float], grid: tuple[int, int], size: tuple[int, ...]) -> Array:
    """Numbers of patches [rows · columns], spread evenly over their pixels [H, W]."""
    rows, columns = (_blocks(pixels, parts) for pixels, parts in zip(size, grid, strict=True))
    areas = np.outer(np.bincount(rows), np.bincount(columns))
    shares: Array = np.reshape(units, grid) / areas
    return np.asarray(shares[np.ix_(rows, columns)])


def _blocks(size: int, parts: int) -> Array:
    """The block of :func:`palrp_onnx.relevance.units.to_patches` that each pixel belongs to."""
    starts = np.arange(parts) * size // parts
    return np.asarray(np.searchsorted(starts, np.arange(size), side="right") - 1)


class ComparedMaps:
    """Maps of the compared methods, and a random map as the lower bound.

    Args:
        methods: The methods by name; the first chooses the target, which is the same for all.
        labels: Names of classes by index.

    Raises:
        UsageError: There are no methods.
    """

    def __init__(
        self, methods: Mapping[str, ComparedMethod], labels: Mapping[int, str] | None = None
    ) -> None:
        if not methods:
            raise UsageError("There is no method to evaluate")
        self._methods = methods
        self._labels = labels
        self.first = next(iter(methods.values()))
        #: Names of the methods, and of the random map as the last.
        self.names = (*methods, RANDOM)

    def index(self, target: str) -> int | None:
        """The index of the class that a target names, or ``None``."""
        found = parse_target(target, self._labels)
        return found.index if found.kind == "index" else None

    def maps(self, sample: Sample, target: str) -> tuple[Maps, int]:
        """Every method's map [H, W] of one class, and the index of the class.

        The random map is a permutation of the first map. It depends only on the sample's name, so
        it is the same whatever else is evaluated.

        Raises:
            UsageError: The input is not a single image, or the target is not a class.
        """
        pixels = sample.feeds[self.first.engine(sample.feeds).subject.input]
        if pixels.ndim != 4 or len(pixels) != 1:
            raise UsageError(
                f"Each input holds one image, not an array of shape {pixels.shape}",
                place=sample.id,
            )
        maps: Maps = {}
        for name, method in self._methods.items():
            facts, maps[name] = self._map(method, sample, target, pixels.shape[2:])
            index = _class(facts)
            target = f"index:{index}"
        first = next(iter(maps.values()))
        generator = np.random.default_rng(crc32(sample.id.encode()))
        maps[RANDOM] = generator.permutation(first.ravel()).reshape(first.shape)
        return maps, index

    def _map(
        self, method: ComparedMethod, sample: Sample, target: str, size: tuple[int, ...]
    ) -> tuple[TargetFacts, Array]:
        if isinstance(method, Baseline):
            ((facts, units),) = method.explain(sample, target, self._labels)
            patch = method.engine(sample.feeds).subject.patch
            return facts, spread(units, image_grid(patch, size), size)
        (explanation,) = method.explain(sample, target, self._labels)
        return explanation.record.target, pixel_map(explanation, method.method.ranking)


def _class(facts: TargetFacts) -> int:
    if facts.kind not in ("class", "element") or facts.entry is None:
        raise UsageError("Only a class can be evaluated on images", place=f"output {facts.output}")
    return facts.entry
