"""Positions × layers: the relevance of every sink, unit by unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from palrp_onnx.record import Site, Units
from palrp_onnx.render.flow import visible
from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN, shorten, width
from palrp_onnx.render.palette import colours
from palrp_onnx.render.scale import Scale
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.views import label_cells

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

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        page.write((MARGIN, top + 11), f"{self.prefix}positions × layers", 16, GREY)
        upper, left = top + 30, MARGIN + _LABEL
        lower = upper + _ROW * len(self.sites)
        room = round(self._columns * self._cell)
        painted = colours(self._numbers, self.limit)
        for row, site in enumerate(self.sites):
            label = f"layer {site.layer}  {site.kind} {site.part}"
            place = (MARGIN, upper + (row + 0.5) * _ROW)
            page.write(place, shorten(label, _SIZE, _LABEL - 8), _SIZE)
            cells = Image.fromarray(painted[row : row + 1])
            page.picture(cells, (left, upper + row * _ROW), (room, _ROW - 1))
        page.box((left - 1, upper - 1, left + room, lower - 1), outline=LINE)
        label_cells(page, (left, upper), (room, lower - upper), "", self._numbers)
        self._name_columns(page, lower)
        self.scale.draw(page, top + self.height - self.scale.height)

    def _name_columns(self, page: Scene, lower: int) -> None:
        left = MARGIN + _LABEL
        if self._named:
            for column, text in enumerate(self.units.text):
                name = visible(text.strip() or text)
                upright(page, (left + (column + 0.5) * self._cell, lower + 5), name, _NAMES - 12)
            return
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if s * self._cell >= 40)
        for column in range(0, self._columns, step):
            middle = left + (column + 0.5) * self._cell
            seconds = self.units.step
            name = str(column * self.each) if seconds is None else f"{column * seconds:.3g}"
            page.write((middle - width(name, _SIZE) / 2, lower + 11), name, _SIZE)


def upright(page: Scene, place: tuple[float, float], text: str, room: int) -> None:
    """Write a name that reads upwards; ``place`` is the middle of its upper edge."""
    across, upper = place
    name = shorten(text, _SIZE, room)
    page.write((across, upper + width(name, _SIZE)), name, _SIZE, upright=True)
