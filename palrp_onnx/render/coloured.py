"""A map as coloured text, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.color import Color
from rich.style import Style
from rich.text import Text

from palrp_onnx.printable import printable
from palrp_onnx.record import Attribution, Map
from palrp_onnx.render.flow import paragraphs
from palrp_onnx.render.palette import RGB, colour, ink
from palrp_onnx.render.scale import number

#: Largest number of rows of a picture, and of named units; more do not fit on a screen.
_ROWS = 64
_NAMED = 10


def coloured(record: Attribution) -> Text:
    """The signed relevance of all explained inputs, and the scale of the colours.

    Texts are shown as running text and pictures patch by patch. Of other units, the strongest are
    listed.
    """
    return Text("\n").join(line for shown in record.maps for line in _lines(record, shown))


def _lines(record: Attribution, shown: Map) -> Iterator[Text]:
    values, units = shown.relevance.total, shown.units
    limit = _limit(values, units.special)
    if record.others:
        yield Text(printable(shown.input), style="bold")
    if units.kind == "token" and units.text:
        yield from _running(record, shown, limit)
    elif units.grid is not None and units.grid[0] <= _ROWS:
        columns = units.grid[1]
        for start in range(0, len(values), columns):
            row = (("  ", _style(v, limit)) for v in values[start : start + columns])
            yield Text.assemble(*row)
    else:
        yield from _strongest(shown, limit)
    against, target = ((_style(sign * limit, limit), number(sign * limit)) for sign in (-1, 1))
    legend = ((" against ", against[0]), f" {against[1]}   ", (" for the target ", target[0]))
    yield Text.assemble(*legend, f" {target[1]}")


def _running(record: Attribution, shown: Map, limit: float) -> Iterator[Text]:
    """Every paragraph of the text, its tokens on their colours."""
    values = shown.relevance.total
    for paragraph in paragraphs(shown.units, record.input):
        line = Text()
        for item in paragraph:
            if isinstance(item, str):
                line.append(item)
                continue
            for piece in item:
                line.append(piece.text, _style(values[piece.unit], limit))
        yield line


def _strongest(shown: Map, limit: float) -> Iterator[Text]:
    """The units with the largest relevance, one a line."""
    values = shown.relevance.total
    order = sorted(range(len(values)), key=lambda unit: -abs(values[unit]))[:_NAMED]
    for unit in order:
        name = printable(shown.units.name(unit))
        yield Text.assemble(
            (f" {number(values[unit]):>9} ", _style(values[unit], limit)), f" {name}"
        )


def _limit(values: Sequence[float], special: Sequence[bool]) -> float:
    """The number of the full colour: the largest one, that of special tokens left out."""
    marks = special or [False] * len(values)
    ordinary = [abs(v) for v, mark in zip(values, marks, strict=False) if not mark]
    return max(ordinary, default=0.0) or max(map(abs, values), default=0.0)


def _style(value: float, limit: float) -> Style:
    background = colour(value, limit)
    return Style(color=_rich(ink(background)), bgcolor=_rich(background))


def _rich(colour: RGB) -> Color:
    return Color.from_rgb(*colour)
