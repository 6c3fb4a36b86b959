"""Images: the original and the maps, patch by patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN, WIDTH
from palrp_onnx.render.palette import colours
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.views import MapView, label_cells
from palrp_onnx.types import Box

#: An original image, and the part of it that the network saw.
Seen = tuple[Image.Image | None, Box | None]

_GAP = 16
_CAPTION = 28
#: Longer side of an original, in its own pixels.
_LARGEST = 1024
#: What the network did not see.
_UNSEEN = (238, 238, 238)


@dataclass
class Pictures:
    """Panels next to each other, all of the same size.

    Attributes:
        maps: The maps, the total first.
        grid: Rows and columns of patches.
        image: The original, if it is available.
        box: The part of the original that the network saw, in its pixels.
    """

    maps: Sequence[MapView]
    grid: tuple[int, int]
    image: Image.Image | None
    box: Box | None

    def __post_init__(self) -> None:
        across = max(4, len(self.maps) + (self.image is not None))
        self._side = (INNER - (across - 1) * _GAP) // across
        size = self.image.size if self.image is not None else (self.grid[1], self.grid[0])
        factor = self._side / max(size)
        self._size = (max(round(size[0] * factor), 1), max(round(size[1] * factor), 1))
        box = self.box if self.box is not None and self.image is not None else Box(0, 0, *size)
        left, top, right, bottom = (round(edge * factor) for edge in box)
        self._corner = (left, top)
        self._extent = (max(right - left, 1), max(bottom - top, 1))
        self.height = _CAPTION + self._size[1]

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        total, *others = self.maps
        upper, places = top + _CAPTION, iter(range(MARGIN, WIDTH, self._side + _GAP))
        if self.image is None:
            self._map(page, (next(places), upper), total)
        else:
            original = self.image.convert("RGB")
            original.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
            self._original(page, (next(places), upper), "original", original)
            # In grey; the more a patch counts, the more its colour covers it.
            place = (next(places), upper)
            light = original.convert("L").point(lambda level: 80 + level * 175 // 255)
            self._original(page, place, "total, over the original", light.convert("RGB"))
            self._patches(page, place, total, _shaded(self._numbers(total), total.limit))
        for view in others:
            self._map(page, (next(places), upper), view)

    def _original(
        self, page: Scene, place: tuple[int, int], caption: str, image: Image.Image
    ) -> None:
        self._frame(page, place, caption)
        page.picture(image, place, self._size, smooth=self._size[0] < image.width)

    def _map(self, page: Scene, place: tuple[int, int], view: MapView) -> None:
        self._frame(page, place, view.name)
        self._patches(page, place, view, view.paint(self._numbers(view), view.limit))

    def _frame(self, page: Scene, place: tuple[int, int], caption: str) -> None:
        left, top = place
        page.write((left, top - _CAPTION + 11), caption, 16, GREY)
        edges = (left - 1, top - 1, left + self._size[0], top + self._size[1])
        page.box(edges, fill=_UNSEEN, outline=LINE)

    def _patches(
        self, page: Scene, place: tuple[int, int], view: MapView, painted: NDArray[np.uint8]
    ) -> None:
        corner = (place[0] + self._corner[0], place[1] + self._corner[1])
        page.picture(Image.fromarray(painted), corner, self._extent)
        label_cells(page, corner, self._extent, view.name, self._numbers(view))

    def _numbers(self, view: MapView) -> NDArray[np.float64]:
        return np.array(view.values, dtype=np.float64).reshape(self.grid)


def _shaded(numbers: NDArray[np.float64], limit: float) -> NDArray[np.uint8]:
    """The colour of each sign, and how much of it is seen."""
    strength = np.abs(numbers) / limit if limit else np.zeros_like(numbers)
    alpha = np.rint(np.minimum(strength, 1) * 225).astype(np.uint8)
    return np.dstack([colours(np.sign(numbers), 1.0), alpha])
