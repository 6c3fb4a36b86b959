"""Relevance of columns of a table as bars."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

from palrp_onnx.record import Relevance, Units
from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN, shorten, visible, width, write
from palrp_onnx.render.palette import colour
from palrp_onnx.render.scale import number

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


def strongest(relevance: Relevance, most: int = MOST) -> list[int]:
    """The units with the largest total relevance, in the order of the table."""
    order = sorted(range(len(relevance.total)), key=lambda k: -abs(relevance.total[k]))
    return sorted(order[:most])


@dataclass
class Bars:
    """A row for every unit: its name, and bars of content, position and total.

    Attributes:
        relevance: One number a unit.
        units: The units.
        limit: The number with the longest bar.
        reduction: How sinks were reduced to one number a unit.
        prefix: Name of the input, if there are several.
    """

    relevance: Relevance
    units: Units
    limit: float
    reduction: str
    prefix: str = ""

    def __post_init__(self) -> None:
        self._shown = strongest(self.relevance)
        left_out = len(self.relevance.total) - len(self._shown)
        self._note = f"{left_out} weaker ones are in the record" if left_out else ""
        self.height = _HEAD + _ROW * (len(self._shown) + bool(left_out))

    def draw(self, page: Image.Image, top: int) -> None:
        """Draw onto the page."""
        room = (INNER - _NAME - 2 * _GAP) // 3
        maps = (
            ("content", self.relevance.content),
            (f"position  ({self.reduction})", self.relevance.position),
            ("total", self.relevance.total),
        )
        if self.prefix:
            write(page, (MARGIN, top + 11), shorten(self.prefix, 16, _NAME - 8), 16, GREY)
        for row, unit in enumerate(self._shown):
            name = shorten(visible(self.units.name(unit)), _SIZE, _NAME - 10)
            write(page, (MARGIN, top + _HEAD + (row + 0.5) * _ROW), name, _SIZE)
        for index, (title, values) in enumerate(maps):
            left = MARGIN + _NAME + index * (room + _GAP)
            write(page, (left, top + 11), title, 16, GREY)
            for row, unit in enumerate(self._shown):
                place = (left, top + _HEAD + row * _ROW)
                self._bar(page, place, room - _NUMBER, values[unit])
        if self._note:
            write(page, (MARGIN, top + self.height - _ROW / 2), self._note, _SIZE, GREY)

    def _bar(self, page: Image.Image, place: tuple[int, int], room: int, value: float) -> None:
        """A bar to the right of the middle for the target, to the left against it."""
        left, top = place
        middle = left + room / 2
        share = max(-1.0, min(1.0, value / self.limit)) if self.limit else 0.0
        draw = ImageDraw.Draw(page)
        ends = sorted((middle, middle + share * room / 2))
        if value:
            box = (round(ends[0]), top + 4, max(round(ends[1]), round(ends[0]) + 1), top + _ROW - 5)
            draw.rectangle(box, fill=colour(_FULL if value > 0 else -_FULL, 1.0))
        draw.line((round(middle), top, round(middle), top + _ROW - 1), fill=LINE)
        text = number(value) if value else "0"
        at = left + room + _NUMBER - 6 - width(text, _SIZE)
        write(page, (at, top + _ROW / 2), text, _SIZE)
