"""Maps of images, one number a pixel, by several ways to explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from zlib import crc32

import numpy as np

from palrp_onnx.describe import Explanation
from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines import Baseline, Competitor
from palrp_onnx.evaluate.texts import RANDOM
from palrp_onnx.inputs import Sample
from palrp_onnx.record import TargetFacts
from palrp_onnx.relevance.target_parsing import parse_target
from palrp_onnx.relevance.units import image_grid
from palrp_onnx.types import Array

Maps = dict[str, Array]


def pixel_map(explanation: Explanation, kind: Literal["sum", "content", "position"]) -> Array:
    """One signed number a pixel [H, W] of the network's input.

    Content is summed over the channels, and the position part of a patch spread evenly over its
    pixels, as the paper's code does for its tables.

    Args:
        explanation: Of an image.
        kind: What the map is made of: :attr:`palrp_onnx.Method.map`.
    """
    content: Array = explanation.tensors["pixels"][0].sum(axis=0, dtype=np.float64)
    grid = explanation.record.units.grid
    if kind == "content" or grid is None:
        return content
    position = spread(explanation.record.relevance.position, grid, content.shape)
    return position if kind == "position" else content + position


def spread(units: Array | list[float], grid: tuple[int, int], size: tuple[int, ...]) -> Array:
    """Numbers of patches [rows · columns], shared out evenly over their pixels [H, W]."""
    rows, columns = (_blocks(pixels, parts) for pixels, parts in zip(size, grid, strict=True))
    areas = np.outer(np.bincount(rows), np.bincount(columns))
    shares: Array = np.reshape(units, grid) / areas
    return np.asarray(shares[np.ix_(rows, columns)])


def _blocks(size: int, parts: int) -> Array:
    """Which of the blocks of :func:`palrp_onnx.relevance.units.to_patches` each pixel is in."""
    starts = np.arange(parts) * size // parts
    return np.asarray(np.searchsorted(starts, np.arange(size), side="right") - 1)


class Rivals:
    """The methods, and the random map that they have to beat.

    Args:
        competitors: The methods by name; the first chooses the target, which is the same for all.
        labels: Names of classes by index.

    Raises:
        UsageError: There are none.
    """

    def __init__(
        self, competitors: Mapping[str, Competitor], labels: Mapping[int, str] | None = None
    ) -> None:
        if not competitors:
            raise UsageError("There is no method to evaluate")
        self._competitors = competitors
        self._labels = labels
        self.first = next(iter(competitors.values()))
        #: Methods as given, the random map last.
        self.names = (*competitors, RANDOM)

    def index(self, target: str) -> int | None:
        """The class that a target names, if it is one."""
        found = parse_target(target, self._labels)
        return found.index if found.kind == "index" else None

    def maps(self, sample: Sample, target: str) -> tuple[Maps, int]:
        """Every method's map [H, W] of one class, and that class.

        The random map holds the pixels of the first one in another order, which is drawn anew for
        every name of a sample, and the same whatever else is evaluated.

        Raises:
            UsageError: The input is no single image, or the target no class.
        """
        pixels = sample.feeds[self.first.engine(sample.feeds).subject.input]
        if pixels.ndim != 4 or len(pixels) != 1:
            raise UsageError(
                f"Each input holds one image, not an array of shape {pixels.shape}",
                place=sample.id,
            )
        maps: Maps = {}
        for name, competitor in self._competitors.items():
            facts, maps[name] = self._map(competitor, sample, target, pixels.shape[2:])
            index = _class(facts)
            target = f"index:{index}"
        first = next(iter(maps.values()))
        generator = np.random.default_rng(crc32(sample.id.encode()))
        maps[RANDOM] = generator.permutation(first.ravel()).reshape(first.shape)
        return maps, index

    def _map(
        self, competitor: Competitor, sample: Sample, target: str, size: tuple[int, ...]
    ) -> tuple[TargetFacts, Array]:
        if isinstance(competitor, Baseline):
            ((facts, units),) = competitor.explain(sample, target, self._labels)
            patch = competitor.engine(sample.feeds).subject.patch
            return facts, spread(units, image_grid(patch, size), size)
        (explanation,) = competitor.explain(sample, target, self._labels)
        return explanation.record.target, pixel_map(explanation, competitor.method.map)


def _class(facts: TargetFacts) -> int:
    if facts.kind not in ("class", "element") or facts.entry is None:
        raise UsageError("Only a class can be evaluated on images", place=f"output {facts.output}")
    return facts.entry
