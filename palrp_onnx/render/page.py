"""A page of blocks, from top to bottom, and the room that text takes."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from palrp_onnx.matrix import Matrix
from palrp_onnx.record import Attribution
from palrp_onnx.render.flow import visible
from palrp_onnx.render.fonts import ADVICE
from palrp_onnx.render.palette import BLACK, RGB
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.shaping import shape

WIDTH = 1200
MARGIN = 32
INNER = WIDTH - 2 * MARGIN
GREY: RGB = (105, 105, 105)
LINE: RGB = (210, 210, 210)

_GAP = 18
#: No line of a page has room for more characters, however narrow they are.
_LONGEST = 2000
#: The most lines that one text takes.
_LINES = 8
#: The most missing characters that are named.
_NAMED = 12


class Block(Protocol):
    """A part of a page with a known height, drawn below ``top``."""

    height: int

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        ...


@dataclass(frozen=True)
class Page:
    """Blocks below each other, the title of the file, and facts that are written into it."""

    blocks: Sequence[Block]
    title: str
    facts: Mapping[str, str]


def facts_of(record: Attribution | Matrix) -> dict[str, str]:
    """What made a record."""
    return {
        "Software": f"palrp-onnx {record.run.version}",
        "Schema": record.schema,
        "Model": record.model.sha256,
        "Id": visible(record.id),
    }


def compose(blocks: Sequence[Block]) -> tuple[Scene, tuple[int, int]]:
    """Stack blocks; returns the scene and its size."""
    scene, top = Scene(), MARGIN
    for block in blocks:
        block.draw(scene, top)
        top += block.height + _GAP
    return scene, (WIDTH, top - _GAP + MARGIN)


def foot(missing: str) -> TextLines:
    """What to say of characters that no font has."""
    kinds = sorted({unicodedata.name(c, "UNKNOWN").split()[0] for c in missing})
    names = ", ".join(f"U+{ord(c):04X}" for c in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    text = (
        f"⚠ Boxes stand for characters that no font on this machine has ({', '.join(kinds)}: "
        f"{names}{more}). To see them, {ADVICE}."
    )
    return TextLines([(text, 15, BLACK)])


def width(text: str, size: int) -> int:
    """Width of a line in pixels, rounded up."""
    return int(-(-shape(text, size).width // 1))


def shorten(text: str, size: int, room: int) -> str:
    """The beginning of a text that fits into ``room`` pixels, with an ellipsis if it was cut."""
    if len(text) <= _LONGEST and width(text, size) <= room:
        return text
    fits, too_long = 0, min(len(text), _LONGEST)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if width(text[:middle] + "…", size) <= room:
            fits = middle
        else:
            too_long = middle
    return text[:fits] + "…"


def wrap(words: Sequence[str], size: int, room: int = INNER, blank: str = "   ") -> list[str]:
    """Words joined to lines of at most ``room`` pixels; a longer word is shortened."""
    lines: list[str] = []
    for word in (shorten(w, size, room) for w in words):
        joined = f"{lines[-1]}{blank}{word}" if lines else word
        if lines and width(joined, size) <= room:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def fold(text: str, size: int, room: int = INNER) -> list[str]:
    """A text in a few lines; the last one has an ellipsis if it goes on."""
    lines = wrap(text[: _LINES * _LONGEST].split(" "), size, room, " ")
    if len(lines) > _LINES:
        rest = shorten(" ".join(lines[_LINES - 1 :])[:_LONGEST], size, room)
        return [*lines[: _LINES - 1], rest]
    return lines


@dataclass
class TextLines:
    """Texts in lines, each with its size and colour."""

    lines: Sequence[tuple[str, int, RGB]]

    def __post_init__(self) -> None:
        self._folded = [
            (line, size, ink) for text, size, ink in self.lines for line in fold(text, size)
        ]
        self.height = sum(_leading(size) for _, size, _ in self._folded)

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        for text, size, ink in self._folded:
            page.write((MARGIN, top + _leading(size) / 2), text, size, ink)
            top += _leading(size)


def _leading(size: int) -> int:
    return round(size * 1.5)
