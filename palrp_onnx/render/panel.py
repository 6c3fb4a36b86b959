"""Positions × layers: the relevance of every sink, unit by unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from palrp_onnx.record import Site, Units
from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN, font, shorten, visible, width, write
from palrp_onnx.render.palette import colours
from palrp_onnx.render.scale import Scale

_ROW = 20
_LABEL = 200
_SIZE = 14
_NAMES = 96


@dataclass
class Panel:
    """A heat map with one row per site and one column per unit, or for ``each`` of several."""

    sites: Sequence[Site]
    units: Units
    prefix: str = ""
    each: int = 1

    def __post_init__(self) -> None:
        self._numbers = np.array([site.relevance for site in self.sites])
        self._columns = self._numbers.shape[1]
        self._cell = min((INNER - _LABEL) / self._columns, 36.0)
        self._named = self._cell >= 15 and bool(self.units.text)
        special = np.array(self.units.special or [False] * self._columns)
        ordinary = self._numbers[:, ~special]  # [CLS] would dominate the scale
        self.limit = float(np.abs(ordinary if ordinary.any() else self._numbers).max())
        self.scale = Scale(self.limit, "signed, at each site")
        foot = _NAMES if self._named else 24
        self.height = 30 + _ROW * len(self.sites) + foot + self.scale.height

    def draw(self, page: Image.Image, top: int) -> None:
        """Draw onto the page."""
        write(page, (MARGIN, top + 11), f"{self.prefix}positions × layers", 16, GREY)
        upper = top + 30
        draw = ImageDraw.Draw(page)
        painted = colours(self._numbers, self.limit)
        for row, site in enumerate(self.sites):
            middle = upper + row * _ROW + _ROW / 2
            label = f"layer {site.layer}  {site.kind} {site.part}"
            write(page, (MARGIN, middle), shorten(label, _SIZE, _LABEL - 8), _SIZE)
            for column in range(self._columns):
                red, green, blue = painted[row, column].tolist()
                left = MARGIN + _LABEL + column * self._cell
                box = (
                    round(left),
                    upper + row * _ROW,
                    max(round(left + self._cell) - 1, round(left)),
                    upper + (row + 1) * _ROW - 2,
                )
                draw.rectangle(box, fill=(red, green, blue))
        lower = upper + _ROW * len(self.sites)
        right = round(MARGIN + _LABEL + self._columns * self._cell)
        draw.rectangle((MARGIN + _LABEL - 1, upper - 1, right, lower - 1), outline=LINE)
        self._name_columns(page, lower)
        self.scale.draw(page, top + self.height - self.scale.height)

    def _name_columns(self, page: Image.Image, lower: int) -> None:
        if self._named:
            for column, text in enumerate(self.units.text):
                name = shorten(visible(text.strip() or text), _SIZE, _NAMES - 12)
                label = upright(name)
                left = MARGIN + _LABEL + (column + 0.5) * self._cell - label.width / 2
                page.paste((0, 0, 0), (round(left), lower + 5), label)
            return
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if s * self._cell >= 40)
        for column in range(0, self._columns, step):
            left = MARGIN + _LABEL + (column + 0.5) * self._cell
            seconds = self.units.step
            name = str(column * self.each) if seconds is None else f"{column * seconds:.3g}"
            write(page, (left - width(name, _SIZE) / 2, lower + 11), name, _SIZE)


def upright(text: str) -> Image.Image:
    """A mask of text that is rotated to read upwards."""
    mask = Image.new("L", (max(width(text, _SIZE), 1), 18), 0)
    ImageDraw.Draw(mask).text((0, 9), text, fill=255, font=font(_SIZE), anchor="lm")
    return mask.rotate(90, expand=True)
