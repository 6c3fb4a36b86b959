"""Relevance of the pictures of a video: for each map its pictures in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN, shorten
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.views import MapView, label_cells

#: Largest number of pictures next to each other.
_ACROSS = 8
_LABEL = 130
_GAP = 8
_BETWEEN = 14
_SIZE = 14


@dataclass
class Film:
    """Rows of pictures, one for each map.

    Attributes:
        maps: The maps.
        grid: Rows and columns of the patches of all pictures, below each other.
        pictures: Number of pictures.
    """

    maps: Sequence[MapView]
    grid: tuple[int, int]
    pictures: int

    def __post_init__(self) -> None:
        across = min(self.pictures, _ACROSS)
        self._lines = -(-self.pictures // _ACROSS)
        rows, columns = self.grid[0] // self.pictures, self.grid[1]
        self._width = (INNER - _LABEL - (across - 1) * _GAP) // max(across, 4)
        self._height = max(round(self._width * rows / columns), 1)
        self._strip = self._lines * (self._height + _GAP) + _BETWEEN
        self.height = len(self.maps) * self._strip

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        for view in self.maps:
            label = shorten(view.name, _SIZE, _LABEL - 8)
            page.write((MARGIN, top + self._height / 2), label, _SIZE, GREY)
            parts = np.reshape(view.values, (self.pictures, -1, self.grid[1]))
            for number, part in enumerate(parts):
                line, place = divmod(number, _ACROSS)
                left = MARGIN + _LABEL + place * (self._width + _GAP)
                upper = top + line * (self._height + _GAP)
                self._picture(page, (left, upper), Image.fromarray(view.paint(part, view.limit)))
                size = (self._width, self._height)
                label_cells(page, (left, upper), size, view.name, part)
            top += self._strip

    def _picture(self, page: Scene, place: tuple[int, int], cells: Image.Image) -> None:
        size, (left, top) = (self._width, self._height), place
        page.picture(cells, place, size)
        outline = (left - 1, top - 1, left + self._width, top + self._height)
        page.box(outline, outline=LINE)
