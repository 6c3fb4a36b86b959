"""A continued text: produced tokens × tokens that came before, as a picture and as a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray
from PIL import Image

from palrp_onnx.matrix import Matrix
from palrp_onnx.record import Units
from palrp_onnx.render.flow import visible
from palrp_onnx.render.html import page, shades
from palrp_onnx.render.page import (
    GREY,
    INNER,
    LINE,
    MARGIN,
    Block,
    Page,
    TextLines,
    facts_of,
    shorten,
    width,
    wrap,
)
from palrp_onnx.render.palette import BLACK, colours
from palrp_onnx.render.panel import upright
from palrp_onnx.render.raster import png
from palrp_onnx.render.scale import Scale, number
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.vector import svg
from palrp_onnx.render.views import SIGNED

_PARTS = SIGNED
_ROW, _LABEL, _NAMES, _SIZE = 22, 180, 96, 14
#: Width of the gap between what is read and what was produced before, in columns.
_GAP = 0.5
_READABLE = 15
#: The most columns for what is read; neighbouring units are summed where there are more.
_MOST = 200
_WIDEST = 36.0
#: One part is about so many pixels high at most.
_TALLEST = 4_500


@dataclass(frozen=True)
class _Side:
    """Columns with one scale.

    Attributes:
        name: What they are; empty where there is one side alone.
        columns: How many they are.
        limit: The number that gets the full colour.
        peak: The largest number, which may be that of a special token.
    """

    name: str
    columns: int
    limit: float
    peak: float

    @property
    def remark(self) -> str:
        """What to know about the scale."""
        known = "one scale for all rows, each in units of its own target"
        beyond = f"; special tokens go up to {number(self.peak)[1:]}"
        return known + (beyond if self.peak > self.limit else "")


@dataclass(frozen=True)
class _Columns:
    """Numbers of all three parts, in one table: what is read, then what was produced before.

    Attributes:
        rows: Names of the produced tokens.
        columns: Names of the tokens before them.
        read: How many of these are read.
        parts: Name of a part → [rows, columns]; NaN where a token comes later.
        sides: A decoder's own tokens have a scale of their own, beside what an encoder reads.
        together: How many units of what is read are summed in one column.
    """

    rows: list[str]
    columns: list[str]
    read: int
    parts: dict[str, NDArray[np.float64]]
    sides: tuple[_Side, ...]
    together: int

    def shares(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers [rows, columns] as shares of the limit of their column; 0 for NaN."""
        limits = np.concatenate([np.full(s.columns, s.limit) for s in self.sides])
        return np.nan_to_num(values) / np.where(limits > 0, limits, 1.0)

    @property
    def summed(self) -> str:
        """What to know about columns, if anything."""
        if self.together == 1:
            return ""
        return f"each column is the sum of {self.together} neighbouring units of what is read"


def render_matrix_png(matrix: Matrix) -> bytes:
    """Draw a matrix as PNG; the same matrix and fonts, the same bytes."""
    return png(_lay_out(matrix))


def render_matrix_svg(matrix: Matrix) -> bytes:
    """Draw a matrix as SVG; the same matrix, the same bytes."""
    return svg(_lay_out(matrix))


def _lay_out(matrix: Matrix) -> Page:
    """Total, content and position on one scale."""
    table = _table(matrix)
    run = matrix.run
    facts = [f"{run.method}, {run.dtype}", f"model {matrix.model.sha256[:12]}"]
    facts.append(f"input {visible(matrix.id)}")
    lines = [(_title(matrix), 28, BLACK)]
    lines += [(line, _SIZE, GREY) for line in wrap(facts, _SIZE)]
    lines += [(f"⚠ {visible(each.message)}", _SIZE, BLACK) for each in matrix.warnings]
    blocks: list[Block] = [TextLines(lines)]
    blocks += [_Grid(part, table, table.parts[part]) for part in _PARTS]
    for side in table.sides:
        blocks += [TextLines([(side.name, 16, GREY)])] if side.name else []
        blocks.append(Scale(side.limit, side.remark))
    blocks += [TextLines([(table.summed, _SIZE, GREY)])] if table.summed else []
    return Page(blocks, _title(matrix), facts_of(matrix))


def render_matrix_html(matrix: Matrix) -> bytes:
    """Draw a matrix as a self-contained HTML page, with all numbers as titles of their cells."""
    table = _table(matrix)
    parts = [(part, list(_cells(table, table.parts[part]))) for part in _PARTS]
    title = _title(matrix)
    grid = {
        "title": title,
        "columns": table.columns,
        "read": table.read,
        "parts": parts,
        "sides": [(s.name, number(s.limit).lstrip("+"), s.remark) for s in table.sides],
        "summed": table.summed,
        "targets": [
            (name, target.value, target.probability, abs(ledger["residual_relative"]))
            for name, target, ledger in zip(table.rows, matrix.targets, matrix.ledgers, strict=True)
        ],
    }
    return page(
        "matrix.html.j2", f"{grid['title']} – {matrix.id}", matrix=matrix, grid=grid
    ).encode()


def _title(matrix: Matrix) -> str:
    texts, ids = matrix.produced.text, [str(each) for each in matrix.produced.id]
    return visible((" " if texts == ids else "").join(texts).strip()) or "continued text"


def _cells(table: _Columns, values: NDArray[np.float64]) -> Iterator[tuple[str, list[Any]]]:
    """Name of a row, and shade and number of each of its cells; ``None`` where there is none."""
    for name, row, shares in zip(table.rows, values, table.shares(values), strict=True):
        steps = shades(shares, 1.0)
        yield (
            name,
            [
                None if np.isnan(value) else (step, number(value))
                for step, value in zip(steps, row.tolist(), strict=True)
            ],
        )


def _table(matrix: Matrix) -> _Columns:
    before = [] if matrix.start is UNSET else _names(matrix.start, len(matrix.start.text))
    rows = _names(matrix.produced, len(matrix.targets))
    count = len(matrix.relevance.total[0])
    together = -(-count // _MOST) or 1
    firsts = np.arange(0, count, together)
    names = _names(matrix.prompt, count)
    special = np.array([*(matrix.prompt.special or [False] * count)], bool)
    columns = [*(names[k] for k in firsts), *before, *rows[:-1]]
    parts = {}
    for part in _PARTS:
        joined = np.full((len(rows), len(columns)), np.nan)
        both = zip(getattr(matrix.relevance, part), getattr(matrix.earlier, part), strict=True)
        for row, (one, other) in enumerate(both):
            summed = np.add.reduceat(one, firsts) if count else np.array(one)
            joined[row, : len(firsts) + len(other)] = [*summed, *other]
        parts[part] = joined
    ordinary = np.ones(len(columns), bool)
    ordinary[: len(firsts)] = ~special[firsts]
    ordinary[len(firsts) : len(firsts) + len(before)] = False
    sizes = np.nan_to_num(np.abs(np.stack(list(parts.values()))))
    cuts = [("", slice(None))]
    if matrix.start is not UNSET:
        cuts = [("what is read", slice(len(firsts))), ("produced", slice(len(firsts), None))]
    sides = tuple(_side(name, sizes[:, :, cut], ordinary[cut]) for name, cut in cuts)
    return _Columns(rows, columns, len(firsts), parts, sides, together)


def _side(name: str, sizes: NDArray[np.float64], ordinary: NDArray[np.bool_]) -> _Side:
    """Columns [parts, rows, columns], whose scale special tokens do not set."""
    peak = float(sizes.max(initial=0.0))
    limit = float(sizes[:, :, ordinary].max(initial=0.0)) or peak
    return _Side(name, len(ordinary), limit, peak)


def _names(units: Units, count: int) -> list[str]:
    """Names of units; patches have their row and column."""
    if units.grid is not None:
        return [f"{k // units.grid[1]},{k % units.grid[1]}" for k in range(count)]
    return [visible(text.strip() or text) for text in units.text] or [str(k) for k in range(count)]


@dataclass
class _Grid:
    """One part of the matrix, cell by cell."""

    caption: str
    table: _Columns
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        table = self.table
        self._gap = _GAP if 0 < table.read < len(table.columns) else 0.0
        self._cell = min((INNER - _LABEL) / (len(table.columns) + self._gap), _WIDEST)
        self._named = self._cell >= _READABLE
        longest = max((width(name, _SIZE) for name in table.columns), default=0)
        self._foot = min(longest + 12, _NAMES) if self._named else 24
        self._row = min(_ROW, max(_TALLEST // max(len(table.rows), 1), 1))
        self.height = 30 + self._row * len(table.rows) + self._foot

    def _left(self, column: float) -> float:
        gap = self._gap if column >= self.table.read else 0.0
        return MARGIN + _LABEL + (column + gap) * self._cell

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        page.write((MARGIN, top + 11), self.caption, 16, GREY)
        upper, rows = top + 30, self.table.rows
        for row in range(0, len(rows), -(-_READABLE // self._row)):
            place = (MARGIN, upper + (row + 0.5) * self._row)
            page.write(place, shorten(rows[row], _SIZE, _LABEL - 8), _SIZE)
        painted = colours(self.table.shares(self.values), 1.0)
        if self._named:
            self._cells(page, upper, painted)
        else:
            self._picture(page, upper, painted)
        self._name_columns(page, upper + self._row * len(rows))

    def _cells(self, page: Scene, upper: int, painted: NDArray[np.uint8]) -> None:
        """Cells with outlines and numbers."""
        for row, column in np.argwhere(~np.isnan(self.values)).tolist():
            left, top = self._left(column), upper + row * self._row
            red, green, blue = painted[row, column].tolist()
            box = (left, top, round(left + self._cell) - 1, top + self._row - 2)
            title = number(self.values[row, column])
            page.box(box, fill=(red, green, blue), outline=LINE, title=title)

    def _picture(self, page: Scene, upper: int, painted: NDArray[np.uint8]) -> None:
        """Many cells as pictures, clear where a token comes later."""
        known = np.where(np.isnan(self.values), 0, 255).astype(np.uint8)
        cells = np.dstack([painted, known])
        read, count = self.table.read, len(self.table.columns)
        for start, end in ((0, read), (read, count)):
            if start < end:
                left, right = self._left(start), self._left(end - 1) + self._cell
                size = (max(round(right - left), 1), self._row * len(self.table.rows))
                page.picture(Image.fromarray(cells[:, start:end]), (left, upper), size)

    def _name_columns(self, page: Scene, lower: int) -> None:
        columns = self.table.columns
        if self._named:
            for column, name in enumerate(columns):
                middle = self._left(column) + self._cell / 2
                upright(page, (middle, lower + 5), name, _NAMES - 12)
            return
        step = next(s for s in (5, 10, 20, 50, 100, 200, 500, 10**9) if s * self._cell >= 40)
        units = self.table.read or len(columns)
        for column in range(0, units, step):
            name = str(column * self.table.together)
            page.write((self._left(column) - width(name, _SIZE) / 2, lower + 11), name, _SIZE)
