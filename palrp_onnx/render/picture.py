"""Images: original, content, position and total, patch by patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from palrp_onnx.record import Relevance
from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN, write
from palrp_onnx.render.palette import colours
from palrp_onnx.types import Box

#: An original image, and the part of it that the network saw.
Seen = tuple[Image.Image | None, Box | None]

_GAP = 16
_CAPTION = 28


@dataclass
class Pictures:
    """Panels next to each other, all of the same size.

    Attributes:
        relevance: One number per patch.
        grid: Rows and columns of patches.
        limit: The number that gets the full colour.
        image: The original, if it is available.
        box: The part of the original that the network saw, in its pixels.
        reduction: How sinks were reduced to one number per patch.
    """

    relevance: Relevance
    grid: tuple[int, int]
    limit: float
    image: Image.Image | None
    box: Box | None
    reduction: str

    def __post_init__(self) -> None:
        self._side = (INNER - 3 * _GAP) // 4
        size = self.image.size if self.image is not None else (self.grid[1], self.grid[0])
        factor = self._side / max(size)
        self._size = (max(round(size[0] * factor), 1), max(round(size[1] * factor), 1))
        box = self.box if self.box is not None and self.image is not None else Box(0, 0, *size)
        left, top, right, bottom = (round(edge * factor) for edge in box)
        self._corner = (left, top)
        self._extent = (max(right - left, 1), max(bottom - top, 1))
        self.height = _CAPTION + self._size[1]

    def draw(self, page: Image.Image, top: int) -> None:
        """Draw onto the page."""
        panels = [
            ("content", self._map(self.relevance.content)),
            (f"position  ({self.reduction})", self._map(self.relevance.position)),
        ]
        if self.image is None:
            panels.append(("total", self._map(self.relevance.total)))
        else:
            original = self._scaled(self.image)
            panels.insert(0, ("original", original))
            panels.append(("total, over the original", self._overlay(original)))
        for index, (caption, panel) in enumerate(panels):
            left = MARGIN + index * (self._side + _GAP)
            write(page, (left, top + 11), caption, 16, GREY)
            page.paste(panel, (left, top + _CAPTION))
            corner = (left + panel.width, top + _CAPTION + panel.height)
            outline = (left - 1, top + _CAPTION - 1, *corner)
            ImageDraw.Draw(page).rectangle(outline, outline=LINE)

    def _scaled(self, image: Image.Image) -> Image.Image:
        growing = self._size[0] >= image.width
        how = Image.Resampling.NEAREST if growing else Image.Resampling.LANCZOS
        return image.convert("RGB").resize(self._size, how)

    def _patches(self, values: NDArray[np.generic]) -> Image.Image:
        return Image.fromarray(values).resize(self._extent, Image.Resampling.NEAREST)

    def _numbers(self, values: list[float]) -> NDArray[np.float64]:
        return np.array(values, dtype=np.float64).reshape(self.grid)

    def _map(self, values: list[float]) -> Image.Image:
        panel = Image.new("RGB", self._size, (238, 238, 238))
        panel.paste(self._patches(colours(self._numbers(values), self.limit)), self._corner)
        return panel

    def _overlay(self, original: Image.Image) -> Image.Image:
        """The original in grey; the more a patch counts, the more its colour covers it."""
        ground = original.convert("L").point(lambda level: 80 + level * 175 // 255).convert("RGB")
        numbers = self._numbers(self.relevance.total)
        strength = np.abs(numbers) / self.limit if self.limit else np.zeros_like(numbers)
        alpha = np.rint(np.minimum(strength, 1) * 225).astype(np.uint8)
        full = colours(np.sign(numbers), 1.0)
        ground.paste(self._patches(full), self._corner, self._patches(alpha))
        return ground
