"""Relevance of columns of a table as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palrp_onnx.record import Units
from palrp_onnx.render.flow import visible
from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN, shorten, width
from palrp_onnx.render.palette import LEVELS, colour
from palrp_onnx.render.scale import number
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.views import MapView

#: Kinds of units without an order, which have bars.
BARRED = ("column", "node")
#: Largest number of bars; those of the strongest units are drawn.
MOST = 40
_NAME = 210
_NUMBER = 76
_ROW = 24
_HEAD = 30
_GAP = 16
_SIZE = 15
_FULL = 0.6
_SCORE = tuple(LEVELS[round(_FULL * (len(LEVELS) - 1))].tolist())


def strongest(total: Sequence[float], most: int = MOST) -> list[int]:
    """The units with the largest total relevance, in the order of the table."""
    order = sorted(range(len(total)), key=lambda k: -abs(total[k]))
    return sorted(order[:most])


@dataclass
class Bars:
    """A row for every unit: its name, and a bar for each map.

    Attributes:
        maps: The maps, the total first.
        units: The units.
        prefix: Name of the input, if there are several.
    """

    maps: Sequence[MapView]
    units: Units
    prefix: str = ""

    def __post_init__(self) -> None:
        self._shown = strongest(self.maps[0].values)
        left_out = len(self.maps[0].values) - len(self._shown)
        self._note = f"{left_out} weaker ones are in the record" if left_out else ""
        self.height = _HEAD + _ROW * (len(self._shown) + bool(left_out))

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        room = (INNER - _NAME - (len(self.maps) - 1) * _GAP) // len(self.maps)
        if self.prefix:
            page.write((MARGIN, top + 11), shorten(self.prefix, 16, _NAME - 8), 16, GREY)
        for row, unit in enumerate(self._shown):
            name = shorten(visible(self.units.name(unit)), _SIZE, _NAME - 10)
            page.write((MARGIN, top + _HEAD + (row + 0.5) * _ROW), name, _SIZE)
        for index, view in enumerate(self.maps):
            left = MARGIN + _NAME + index * (room + _GAP)
            page.write((left, top + 11), view.name, 16, GREY)
            for row, unit in enumerate(self._shown):
                place = (left, top + _HEAD + row * _ROW)
                self._bar(page, place, room - _NUMBER, view, view.values[unit])
        if self._note:
            page.write((MARGIN, top + self.height - _ROW / 2), self._note, _SIZE, GREY)

    def _bar(
        self, page: Scene, place: tuple[int, int], room: int, view: MapView, value: float
    ) -> None:
        """A bar to the right of the middle for the target, to the left against it."""
        left, top = place
        middle = left + room / 2
        limit = view.limit if view.signed else max(map(abs, view.values))
        share = max(-1.0, min(1.0, value / limit)) if limit else 0.0
        ends = sorted((middle, middle + share * room / 2))
        if value:
            box = (round(ends[0]), top + 4, max(round(ends[1]), round(ends[0]) + 1), top + _ROW - 5)
            fill = colour(_FULL if value > 0 else -_FULL, 1.0) if view.signed else _SCORE
            page.box(box, fill=fill)
        page.box((middle, top, middle, top + _ROW - 1), fill=LINE)
        text = number(value) if value else "0"
        at = left + room + _NUMBER - 6 - width(text, _SIZE)
        page.write((at, top + _ROW / 2), text, _SIZE)
