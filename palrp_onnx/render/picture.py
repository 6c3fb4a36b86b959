"""Images: the original and the maps, patch by patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN
from palrp_onnx.render.palette import colours
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.views import View
from palrp_onnx.types import Box

#: An original image, and the part of it that the network saw.
Seen = tuple[Image.Image | None, Box | None]

_GAP = 16
_CAPTION = 28


@dataclass
class Pictures:
    """Panels next to each other, all of the same size.

    Attributes:
        maps: The maps, the total first.
        grid: Rows and columns of patches.
        image: The original, if it is available.
        box: The part of the original that the network saw, in its pixels.
    """

    maps: Sequence[View]
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
        panels = [(view.name, self._map(view)) for view in self.maps]
        if self.image is not None:
            original = self._scaled(self.image)
            panels[0] = ("total, over the original", self._overlay(original))
            panels.insert(0, ("original", original))
        for index, (caption, panel) in enumerate(panels):
            left = MARGIN + index * (self._side + _GAP)
            page.write((left, top + 11), caption, 16, GREY)
            page.picture(panel, (left, top + _CAPTION), panel.size)
            corner = (left + panel.width, top + _CAPTION + panel.height)
            outline = (left - 1, top + _CAPTION - 1, *corner)
            page.box(outline, outline=LINE)

    def _scaled(self, image: Image.Image) -> Image.Image:
        growing = self._size[0] >= image.width
        how = Image.Resampling.NEAREST if growing else Image.Resampling.LANCZOS
        return image.convert("RGB").resize(self._size, how)

    def _patches(self, values: NDArray[np.generic]) -> Image.Image:
        return Image.fromarray(values).resize(self._extent, Image.Resampling.NEAREST)

    def _numbers(self, values: Sequence[float]) -> NDArray[np.float64]:
        return np.array(values, dtype=np.float64).reshape(self.grid)

    def _map(self, view: View) -> Image.Image:
        panel = Image.new("RGB", self._size, (238, 238, 238))
        panel.paste(self._patches(view.paint(self._numbers(view.values), view.limit)), self._corner)
        return panel

    def _overlay(self, original: Image.Image) -> Image.Image:
        """The original in grey; the more a patch counts, the more its colour covers it."""
        ground = original.convert("L").point(lambda level: 80 + level * 175 // 255).convert("RGB")
        total = self.maps[0]
        numbers = self._numbers(total.values)
        strength = np.abs(numbers) / total.limit if total.limit else np.zeros_like(numbers)
        alpha = np.rint(np.minimum(strength, 1) * 225).astype(np.uint8)
        full = colours(np.sign(numbers), 1.0)
        ground.paste(self._patches(full), self._corner, self._patches(alpha))
        return ground
