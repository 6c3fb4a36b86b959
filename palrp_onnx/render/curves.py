"""Curves of several methods as a picture: charts next to each other on one scale, and a legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from palrp_onnx.render.flow import visible
from palrp_onnx.render.page import (
    GREY,
    INNER,
    LINE,
    MARGIN,
    Block,
    Page,
    TextLines,
    shorten,
    width,
)
from palrp_onnx.render.palette import BLACK, RGB
from palrp_onnx.render.raster import png
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.vector import svg

#: The palette of Okabe and Ito (2008), which people with any colour blindness can distinguish,
#: without its yellow, which is hard to see on white.
COLOURS: tuple[RGB, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (0, 0, 0),
)
#: Dash patterns as pixels of line and of gap; after the last colour, the next pattern is used.
_PATTERNS = ((1, 0), (12, 6), (3, 5), (12, 12))

Point = tuple[float, float]

_SIZE = 14
_GAP = 40
_AXIS = 56  # room for numbers on the left
_HEAD = 34
_FOOT = 52
_PLOT = 340
_INSET = 8  # so that thick lines at the ends are not cut
_THICK = 3
_KEY = 36
_ROW = 24


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        title: Title above the chart.
        label: Label of the horizontal axis.
        lines: Values by method, one for every share.
    """

    title: str
    label: str
    lines: Mapping[str, Sequence[float]]


def render_curves(
    title: str,
    remark: str,
    shares: Sequence[float],
    charts: Sequence[Chart],
    height: str,
    *,
    vector: bool = False,
) -> bytes:
    """Draw charts with one vertical scale and one legend.

    Args:
        title: Title above all charts.
        remark: A line below the title.
        shares: Horizontal coordinates of the points, from 0 to 1.
        charts: The charts; all with the same methods, in the same order.
        height: Label of the vertical axes.
        vector: Whether to make an SVG file.

    Returns:
        A PNG or SVG file. The same numbers give the same bytes.
    """
    head = TextLines([(visible(title), 28, BLACK), (visible(remark), 15, GREY)])
    blocks: list[Block] = [head, _Charts(shares, charts, height), _Legend(list(charts[0].lines))]
    return (svg if vector else png)(Page(blocks, visible(title), {}))


def style(place: int) -> tuple[RGB, tuple[int, int]]:
    """Colour and pattern of the line number ``place``."""
    turn, colour = divmod(place, len(COLOURS))
    return COLOURS[colour], _PATTERNS[turn % len(_PATTERNS)]


def ticks(low: float, high: float) -> list[float]:
    """Four to eleven round numbers in equal steps that enclose ``low`` and ``high``."""
    span = (high - low) or abs(high) or 1.0
    unit: float = 10.0 ** math.floor(math.log10(span / 5))
    step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= span / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


class _Charts:
    """Charts next to each other."""

    def __init__(self, shares: Sequence[float], charts: Sequence[Chart], label: str) -> None:
        self._shares, self._charts, self._label = shares, charts, label
        numbers = [v for chart in charts for line in chart.lines.values() for v in line]
        self._ticks = ticks(min(numbers), max(numbers))
        self._width = (INNER - _GAP * (len(charts) - 1)) // len(charts) - _AXIS
        self.height = _HEAD + _PLOT + _FOOT

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        for number, chart in enumerate(self._charts):
            left = MARGIN + number * (self._width + _AXIS + _GAP)
            head = f"{visible(chart.title)}: {visible(self._label)}"
            page.write((left, top + 11), shorten(head, 16, self._width + _AXIS), 16, GREY)
            self._plot(page, (left + _AXIS, top + _HEAD), chart)

    def _plot(self, page: Scene, corner: tuple[int, int], chart: Chart) -> None:
        left, top = corner
        self._lines(page, corner, chart)
        for value in self._ticks:
            text = f"{value:.4g}".replace("-", "−")
            place = (left - 8 - width(text, _SIZE), top + self._down(value))
            page.write(place, text, _SIZE)
        lower = top + _PLOT
        for fifth in range(6):
            text = f"{fifth * 20} %"
            across = left + self._across(fifth / 5) - width(text, _SIZE) / 2
            page.write((across, lower + 14), text, _SIZE)
        label = shorten(visible(chart.label), _SIZE, self._width)
        middle = left + (self._width - width(label, _SIZE)) / 2
        page.write((middle, lower + 38), label, _SIZE, GREY)

    def _lines(self, page: Scene, corner: tuple[int, int], chart: Chart) -> None:
        """Grid and lines."""
        left, top = corner
        for value in self._ticks:
            row = top + self._down(value)
            page.stroke([(left, row), (left + self._width, row)], LINE)
        # The first method matters most, so it is drawn last, above the others.
        for place, line in reversed(list(enumerate(chart.lines.values()))):
            colour, pattern = style(place)
            points = [
                (left + self._across(x), top + self._down(y))
                for x, y in zip(self._shares, line, strict=True)
            ]
            for piece in pieces(points, pattern):
                page.stroke(piece, colour, _THICK)

    def _across(self, share: float) -> float:
        return _INSET + share * (self._width - 2 * _INSET)

    def _down(self, value: float) -> float:
        low, high = self._ticks[0], self._ticks[-1]
        return _INSET + (high - value) / (high - low) * (_PLOT - 2 * _INSET)


class _Legend:
    """The legend: method names with their lines."""

    def __init__(self, names: Sequence[str]) -> None:
        self._places: list[tuple[int, int, str]] = []
        left = row = 0
        for name in (shorten(visible(n), _SIZE, INNER - _KEY - 8) for n in names):
            room = _KEY + 8 + width(name, _SIZE)
            if left and left + room > INNER:
                left, row = 0, row + 1
            self._places.append((left, row, name))
            left += room + 28
        self.height = _ROW * (row + 1)

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        for place, (left, row, name) in enumerate(self._places):
            colour, pattern = style(place)
            middle = top + row * _ROW + _ROW // 2
            key = [(MARGIN + left, middle), (MARGIN + left + _KEY, middle)]
            for piece in pieces(key, pattern):
                page.stroke(piece, colour, _THICK)
            page.write((MARGIN + left + _KEY + 8, middle), name, _SIZE)


def pieces(points: Sequence[Point], pattern: tuple[int, int]) -> Iterator[list[Point]]:
    """A line cut into dashes; the pattern continues around corners."""
    ink, gap = pattern
    if not gap:
        yield list(points)
        return
    walked = 0.0
    for (x, y), (u, v) in pairwise(points):
        length = math.hypot(u - x, v - y)
        for start, end in _dashes(walked, length, ink, gap):
            yield [(x + (u - x) * at / length, y + (v - y) * at / length) for at in (start, end)]
        walked += length


def _dashes(walked: float, length: float, ink: int, gap: int) -> Iterator[tuple[float, float]]:
    """Start and end of the dashes on a segment that begins after ``walked`` pixels of the line."""
    first = math.floor(walked / (ink + gap))
    last = math.ceil((walked + length) / (ink + gap))
    for number in range(first, last):
        start = max(number * (ink + gap) - walked, 0.0)
        end = min(number * (ink + gap) + ink - walked, length)
        if start < end:
            yield start, end
