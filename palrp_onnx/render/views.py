"""The maps of one input as they are drawn: signed ones on one scale, the score on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palrp_onnx.record import Relevance
from palrp_onnx.render.palette import colours, levels
from palrp_onnx.render.scale import number
from palrp_onnx.render.scene import Scene

#: Signed maps, in the order in which they are shown.
SIGNED = ("total", "content", "position")
#: More cells than these have no titles.
CELLS = 4_096
#: The map by which the method ranks.
SCORE = "score"


@dataclass(frozen=True)
class MapView:
    """One map.

    Attributes:
        name: ``total``, ``content``, ``position`` or ``score``.
        values: One number a unit.
        limit: The number that gets the full colour.
        paint: (numbers, limit) → colours.
    """

    name: str
    values: Sequence[float]
    limit: float
    paint: Callable[[ArrayLike, float], NDArray[np.uint8]]

    @property
    def signed(self) -> bool:
        """Whether the sign says for or against."""
        return self.name != SCORE


def views(relevance: Relevance, limit: float) -> list[MapView]:
    """The signed maps on one scale, then the score; it is left out where it is the total."""
    found = [MapView(name, getattr(relevance, name), limit, colours) for name in SIGNED]
    if np.allclose(relevance.score, relevance.total, rtol=1e-6, atol=1e-6 * limit):
        return found
    return [*found, score_view(relevance)]


def score_view(relevance: Relevance) -> MapView:
    """The score, from its smallest number to its largest, in one hue."""
    low, high = bounds(relevance.score)
    return MapView(SCORE, relevance.score, high, partial(levels, low=low))


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest number; 0 and 0 for none."""
    return min(values, default=0.0), max(values, default=0.0)


def label_cells(
    page: Scene,
    place: tuple[float, float],
    size: tuple[int, int],
    name: str,
    values: NDArray[np.float64],
) -> None:
    """Give the cells of a picture their numbers as titles, if they are not too many."""
    (left, top), (width, height), (rows, columns) = place, size, values.shape
    if values.size > CELLS:
        return
    downs: list[float] = np.linspace(top, top + height, rows + 1).tolist()
    acrosses: list[float] = np.linspace(left, left + width, columns + 1).tolist()
    for (upper, lower), row in zip(pairwise(downs), values.tolist(), strict=True):
        for (start, end), value in zip(pairwise(acrosses), row, strict=True):
            page.box((start, upper, end - 1, lower - 1), title=f"{name} {number(value)}".strip())
