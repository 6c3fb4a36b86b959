"""Any text, drawn with the one font that is shipped: the same pixels on every machine.

Characters that the font lacks, and characters that would act instead of showing (controls, bidi
marks, zero-width joiners), are drawn as small boxes with their code point in them.
"""

from __future__ import annotations

import math
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from io import BytesIO
from itertools import groupby

from PIL import ImageDraw, ImageFont

from palrp_onnx.render.palette import RGB

ELLIPSIS = "…"

_SHOWN = {"\n": "↵", "\r": "␍", "\t": "⇥", "\N{NO-BREAK SPACE}": " "}
# Control, format, surrogate, private, unassigned, line and paragraph separator.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_LEFT_TO_RIGHT = frozenset({"L", "EN", "AN"})
_UNICODE_FULL = 12  # the format of the character map that reaches beyond U+FFFF
_LONGEST = 400  # characters that are looked at before a text is shortened to its room


@dataclass(frozen=True)
class _Piece:
    """Text that the font has, or (``coded``) hexadecimal digits to draw in a box."""

    text: str
    coded: bool


def measure(text: str, size: int) -> int:
    """Width of ``text`` in pixels, rounded up."""
    return sum(_width(piece, size) for piece in _pieces(text))


def draw_text(
    canvas: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, fill: RGB
) -> None:
    """Draw ``text`` from ``at``, the left end of its baseline."""
    x, baseline = at
    for piece in _pieces(text):
        if piece.coded:
            _draw_code(canvas, (x, baseline), piece.text, size, fill)
        else:
            canvas.text((x, baseline), piece.text, font=font(size), fill=fill, anchor="ls")
        x += _width(piece, size)


def shorten(text: str, size: int, room: int) -> str:
    """The longest beginning of ``text`` that fits, with an ellipsis where something is missing."""
    if len(text) <= _LONGEST and measure(text, size) <= room:
        return text
    low, high = 0, min(len(text), _LONGEST)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(text[:middle] + ELLIPSIS, size) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low] + ELLIPSIS


def right_to_left(text: str) -> bool:
    """Whether all letters of ``text`` run from right to left, and there is one."""
    kinds = {unicodedata.bidirectional(character) for character in text}
    return bool(kinds & _RIGHT_TO_LEFT) and not kinds & _LEFT_TO_RIGHT


def in_reading_order(text: str) -> str:
    """``text`` as it has to be drawn from left to right; marks stay with their letters."""
    if not right_to_left(text):
        return text
    clusters: list[str] = []
    for character in text:
        if clusters and unicodedata.combining(character):
            clusters[-1] += character
        else:
            clusters.append(character)
    return "".join(reversed(clusters))


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The shipped font at a size in pixels, without a shaping engine that may not be there."""
    return ImageFont.truetype(BytesIO(_font_file()), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1)
def _font_file() -> bytes:
    return (resources.files("palrp_onnx.render") / "fonts" / "DejaVuSans.ttf").read_bytes()


@lru_cache(maxsize=1)
def _covered() -> frozenset[int]:
    """Code points the font has a glyph for, from its ``cmap`` table."""
    data = _font_file()
    (count,) = struct.unpack_from(">H", data, 4)
    entries = (struct.unpack_from(">4s4xI", data, 12 + 16 * i) for i in range(count))
    start = next(offset for tag, offset in entries if tag == b"cmap")
    (count,) = struct.unpack_from(">H", data, start + 2)
    subtables = (struct.unpack_from(">4xI", data, start + 4 + 8 * i)[0] for i in range(count))
    full = next(
        start + offset
        for offset in subtables
        if struct.unpack_from(">H", data, start + offset)[0] == _UNICODE_FULL
    )
    (count,) = struct.unpack_from(">I", data, full + 12)
    groups = (struct.unpack_from(">II", data, full + 16 + 12 * i) for i in range(count))
    return frozenset(code for first, last in groups for code in range(first, last + 1))


@lru_cache(maxsize=65536)
def _drawable(character: str) -> bool:
    return ord(character) in _covered() and unicodedata.category(character) not in _ACTING


@lru_cache(maxsize=8192)
def _pieces(text: str) -> tuple[_Piece, ...]:
    return tuple(_split(text))


def _split(text: str) -> Iterator[_Piece]:
    shown = "".join(_SHOWN.get(character, character) for character in text)
    if shown and unicodedata.combining(shown[0]):
        shown = "\N{DOTTED CIRCLE}" + shown  # a mark alone would hang over what stands before it
    for drawable, run in groupby(shown, _drawable):
        if drawable:
            yield _Piece("".join(run), False)
        else:
            for character in run:
                yield _Piece(f"{ord(character):04X}", True)


def _width(piece: _Piece, size: int) -> int:
    if piece.coded:
        return _code_box(piece.text, size)[0] + 2
    return math.ceil(font(size).getlength(piece.text))


def _code_box(digits: str, size: int) -> tuple[int, int, int]:
    """(width, height, size of digits) of the box around two rows of digits."""
    small = max(6, round(size * 0.42))
    widest = max(font(small).getlength(digit) for digit in "0123456789ABCDEF")
    return math.ceil(widest * ((len(digits) + 1) // 2)) + 5, 2 * small + 2, small


def _draw_code(
    canvas: ImageDraw.ImageDraw, at: tuple[int, int], digits: str, size: int, fill: RGB
) -> None:
    x, baseline = at
    width, height, small = _code_box(digits, size)
    bottom = baseline + round(size * 0.12)
    canvas.rectangle((x + 1, bottom - height, x + width - 1, bottom), outline=fill)
    half = (len(digits) + 1) // 2
    for row, part in enumerate((digits[:half], digits[half:])):
        y = bottom - height + (row + 1) * small - (0 if row else 1) + row
        canvas.text((x + 3, y), part, font=font(small), fill=fill, anchor="ls")
