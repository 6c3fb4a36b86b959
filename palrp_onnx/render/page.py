"""A page of blocks, from top to bottom, and drawing of text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageDraw, ImageFont

from palrp_onnx.render.palette import BLACK, RGB, WHITE

WIDTH = 1200
MARGIN = 32
INNER = WIDTH - 2 * MARGIN
GREY: RGB = (105, 105, 105)
LINE: RGB = (210, 210, 210)

_FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"


class Block(Protocol):
    """A part of a page with a known height, drawn below ``top``."""

    height: int

    def draw(self, page: Image.Image, top: int) -> None:
        """Draw onto the page."""
        ...


def compose(blocks: Sequence[Block], gap: int = 18) -> Image.Image:
    """Stack blocks on a white page."""
    height = 2 * MARGIN + sum(b.height for b in blocks) + gap * (len(blocks) - 1)
    page = Image.new("RGB", (WIDTH, height), WHITE)
    top = MARGIN
    for block in blocks:
        block.draw(page, top)
        top += block.height + gap
    return page


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The bundled font, without complex layout, so that pictures are the same everywhere."""
    return ImageFont.truetype(str(_FONT), size, layout_engine=ImageFont.Layout.BASIC)


def width(text: str, size: int) -> int:
    """Width of a line in pixels, rounded up."""
    return int(-(-font(size).getlength(text) // 1))


def write(
    page: Image.Image, place: tuple[float, float], text: str, size: int, ink: RGB = BLACK
) -> None:
    """Draw one line of text; ``place`` is the middle of its left edge."""
    ImageDraw.Draw(page).text(place, text, fill=ink, font=font(size), anchor="lm")


def visible(text: str) -> str:
    """Text that can be drawn: characters that are invisible, or not in the font, become codes."""
    return "".join(_visible(character) for character in text)


@cache
def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    if hidden or not _drawable(character):
        return f"‹{ord(character):04X}›"
    return character


def _drawable(character: str) -> bool:
    if character.isspace():
        return True
    shape, missing = (font(24).getmask(c) for c in (character, "\U0010ffff"))
    return shape.size != missing.size or bytes(shape) != bytes(missing)


#: No line of a page has room for more characters, however narrow they are.
_LONGEST = 2000


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


def wrap(words: Sequence[str], size: int, room: int = INNER) -> list[str]:
    """Words joined to lines of at most ``room`` pixels; a longer word is shortened."""
    lines: list[str] = []
    for word in (shorten(w, size, room) for w in words):
        joined = f"{lines[-1]}   {word}" if lines else word
        if lines and width(joined, size) <= room:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


@dataclass
class TextLines:
    """Lines of text, each with its size and colour."""

    lines: Sequence[tuple[str, int, RGB]]

    def __post_init__(self) -> None:
        self.height = sum(_leading(size) for _, size, _ in self.lines)

    def draw(self, page: Image.Image, top: int) -> None:
        """Draw onto the page."""
        for text, size, ink in self.lines:
            write(page, (MARGIN, top + _leading(size) / 2), shorten(text, size, INNER), size, ink)
            top += _leading(size)


def _leading(size: int) -> int:
    return round(size * 1.5)
