"""A record inside of another page, as notebooks show it: no script, no style sheet, no network.

Relevance is a transparent colour over whatever the page behind has, with the page's own text
colour, so that a map can be read on light and on dark pages.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from palrp_onnx.record import Attribution, Map
from palrp_onnx.render.bars import BARRED, strongest
from palrp_onnx.render.flow import Word, paragraphs, visible
from palrp_onnx.render.headline import headline
from palrp_onnx.render.palette import colours
from palrp_onnx.render.picture import Seen
from palrp_onnx.render.scale import number
from palrp_onnx.render.timeline import TIMED, in_cells
from palrp_onnx.render.wording import covered, failed_checks, notices, said
from palrp_onnx.types import Box

#: Strongest colour: the text over it keeps a contrast of 4.5 on white, and on the grey of editors.
_STRONGEST = 0.75
#: Darker than the ends of the palette, as light letters may stand on them.
_AGAINST, _FOR = (28, 93, 179), (175, 45, 49)
#: Longest side of a picture, and the size of a ribbon of units in time, in pixels.
_SIDE, _RIBBON = 320, (720, 36)
#: Rows of a table of entries.
_ROWS = 20
_BLOCK = "margin:.4em 0;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.8"
_FAINT = "opacity:.75;font-size:.9em"
_CELL = "text-align:right;padding:.1em .8em"


class Shown(Protocol):
    """What a table shows of an entry."""

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def content(self) -> float: ...  # noqa: D102
    @property
    def position(self) -> float: ...  # noqa: D102
    @property
    def total(self) -> float: ...  # noqa: D102


class _Unit(NamedTuple):
    """A unit of a table."""

    text: str
    content: float
    position: float
    total: float


def inline(
    record: Attribution,
    *,
    image: Image.Image | None = None,
    box: Box | None = None,
    further: Mapping[str, Seen] | None = None,
) -> str:
    """A record as a fragment of HTML: a headline, and the map of every explained input.

    Args:
        record: The record.
        image: The original image, for patches; the drawn signal, for units in time.
        box: The part of the original that the network saw, in its pixels; all of it by default.
        further: The same two for each further explained input, by its name.
    """
    seen = {record.maps[0].input: (image, box), **(further or {})}
    lines = [*filter(None, [said(record)]), covered(record)]
    doubts = [*notices(record), *failed_checks(record), *(w.message for w in record.warnings)]
    parts = [f"<div><b>{_text(headline(record))}</b></div>"]
    parts += [
        f'<div style="{_FAINT}">{_text(each)}</div>'
        for each in [*lines, *(f"⚠ {doubt}" for doubt in doubts)]
    ]
    for shown in record.maps:
        if record.others:
            parts.append(f'<div style="{_FAINT}">{_text(shown.input)}</div>')
        parts.append(_map(record, shown, *seen.get(shown.input, (None, None))))
    return f"<div>{''.join(parts)}</div>"


def entries_table(kind: str, entries: Sequence[Shown]) -> str:
    """The first entries of a map as a table."""
    limit = max((abs(each.total) for each in entries), default=0.0)
    heads = "".join(f'<th style="{_CELL}">{n}</th>' for n in (kind, "total", "content", "position"))
    rows = "".join(
        f'<tr><td style="{_CELL}">{_text(each.text)}</td>'
        f'<td style="{_CELL};{_ground(each.total, limit)}">{number(each.total)}</td>'
        f'<td style="{_CELL}">{number(each.content)}</td>'
        f'<td style="{_CELL}">{number(each.position)}</td></tr>'
        for each in islice(entries, _ROWS)
    )
    more = f'<div style="{_FAINT}">… {len(entries) - _ROWS} more</div>'
    table = f'<table style="border-collapse:collapse;color:inherit"><tr>{heads}</tr>{rows}</table>'
    return f"<div>{table}{more if len(entries) > _ROWS else ''}</div>"


def _map(record: Attribution, shown: Map, image: Image.Image | None, box: Box | None) -> str:
    units = shown.units
    if units.grid is not None:
        return "".join(map(_picture, _pictures(shown, units.grid, image, box)))
    if units.kind in TIMED:
        return "".join(map(_picture, _ribbons(shown, image)))
    if units.kind in BARRED or not units.text:
        return entries_table(units.kind, _units(shown))
    return f'<div style="{_BLOCK}">{"".join(_flow(record, shown))}</div>'


def _flow(record: Attribution, shown: Map) -> Iterator[str]:
    """The text, every word on the colour of its relevance."""
    flow = paragraphs(shown.units, record.input)
    sums = {word: _sum(shown, word) for part in flow for word in part if not isinstance(word, str)}
    ordinary = [abs(total) for word, total in sums.items() if not word[0].special]
    limit = max(ordinary, default=0.0) or max(map(abs, sums.values()), default=0.0)
    for number_of, part in enumerate(flow):
        yield "<br>" if number_of else ""
        for item in part:
            if isinstance(item, str):
                yield escape(item)
                continue
            text = escape("".join(piece.text for piece in item))
            style = f"{_ground(sums[item], limit)};border-radius:.2em;padding:.1em 0"
            style += ";opacity:.6" if item[0].special else ""
            yield f'<span title="{number(sums[item])}" style="{style}">{text}</span>'


def _sum(shown: Map, word: Word) -> float:
    return sum(shown.relevance.total[piece.unit] for piece in word)


def _ground(value: float, limit: float) -> str:
    """The colour of a number; beyond the limit it is the strongest."""
    strength = min(abs(value) / limit, 1.0) * _STRONGEST if limit else 0.0
    red, green, blue = _FOR if value > 0 else _AGAINST
    return f"background:rgba({red},{green},{blue},{strength:.3f})"


def _pictures(
    shown: Map, grid: tuple[int, int], image: Image.Image | None, box: Box | None
) -> Iterator[Image.Image]:
    """The original, and the map over it; without an original the map alone."""
    numbers = np.array(shown.relevance.total, dtype=np.float64).reshape(grid)
    limit = float(np.abs(numbers).max(initial=0.0))
    if image is None:
        scale = max(_SIDE // max(grid), 1)
        size = (grid[1] * scale, grid[0] * scale)
        yield Image.fromarray(colours(numbers, limit)).resize(size, Image.Resampling.NEAREST)
        return
    factor = _SIDE / max(image.size)
    size = (max(round(image.width * factor), 1), max(round(image.height * factor), 1))
    original = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    yield original
    left, top, right, bottom = (round(k * factor) for k in box or Box(0, 0, *image.size))
    extent = (max(right - left, 1), max(bottom - top, 1))
    strength = np.abs(numbers) / limit if limit else np.zeros_like(numbers)
    cover = np.rint(strength * 225).astype(np.uint8)
    full, alpha = (
        Image.fromarray(each).resize(extent, Image.Resampling.NEAREST)
        for each in (colours(np.sign(numbers), 1.0), cover)
    )
    ground = original.convert("L").point(lambda level: 80 + level * 175 // 255).convert("RGB")
    ground.paste(full, (left, top), alpha)
    yield ground


def _ribbons(shown: Map, image: Image.Image | None) -> Iterator[Image.Image]:
    """The signal, and below it the map along time."""
    total = in_cells(shown)[0].relevance.total
    limit = max(map(abs, total), default=0.0)
    if image is not None:
        size = (_RIBBON[0], 2 * _RIBBON[1])
        yield image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    cells = Image.fromarray(colours(np.array([total]), limit))
    yield cells.resize(_RIBBON, Image.Resampling.NEAREST)


def _picture(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG")
    source = base64.b64encode(data.getvalue()).decode()
    style = "display:inline-block;margin:.3em .3em 0 0;max-width:100%"
    return f'<img alt="" style="{style}" src="data:image/png;base64,{source}">'


def _units(shown: Map) -> list[_Unit]:
    relevance = shown.relevance
    parts = (relevance.content, relevance.position, relevance.total)
    return [_Unit(shown.units.name(k), *(p[k] for p in parts)) for k in strongest(relevance.total)]


def _text(text: str) -> str:
    return escape(visible(text))
