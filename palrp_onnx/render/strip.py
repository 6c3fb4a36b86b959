"""Tokens as running text, each on the colour of its relevance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from palrp_onnx.record import Units
from palrp_onnx.render.page import GREY, INNER, MARGIN, shorten, visible, width, write
from palrp_onnx.render.palette import BLACK, colours, ink

SIZE = 19
ROW = 32
#: Largest number of drawn tokens; a note states how many more there are.
LIMIT = 2000
_PAD = 4
_TIGHT = 1  # inside a word
_BLANK = 5


@dataclass(frozen=True)
class TokenBox:
    """A placed token: its text and its rectangle, relative to the strip's upper left corner."""

    index: int
    text: str
    left: int
    row: int
    width: int
    indent: int


def place(units: Units, text: str | None, room: int = INNER) -> list[TokenBox]:
    """Place tokens in rows: pieces of one word touch, line breaks of the text are retained."""
    count = min(len(units.text), LIMIT)
    between = [_between(units, text, index) for index in range(count)] + [" "]
    boxes: list[TokenBox] = []
    left = row = 0
    for index, piece in enumerate(units.text[:count]):
        before, after = (_TIGHT if between[k] == "" else _PAD for k in (index, index + 1))
        letters = visible(piece.strip("\n\r\t ") or piece or " ")
        shown = shorten(letters, SIZE, room - before - after)
        size = width(shown, SIZE) + before + after
        left += _BLANK if left and between[index] else 0
        if left and (left + size > room or "\n" in between[index]):
            left, row = 0, row + 1
        boxes.append(TokenBox(index, shown, left, row, size, before))
        left += size
    return boxes


def _between(units: Units, text: str | None, index: int) -> str:
    """The text between a token and the one before it; a space if that is not known."""
    known = text is not None and len(units.start) == len(units.end) == len(units.text)
    if index == 0 or text is None or not known:
        return " "
    between = text[units.end[index - 1] : units.start[index]]
    if units.special and (units.special[index] or units.special[index - 1]):
        return "\n" if "\n" in between else " "
    return between


@dataclass
class Strip:
    """A titled strip of tokens.

    Attributes:
        title: Title of the map.
        units: The tokens.
        values: One number per token.
        limit: The number that gets the full colour; larger ones are marked.
        text: The text of the tokens.
        paint: (number, limit) → colour.
    """

    title: str
    units: Units
    values: Sequence[float]
    limit: float
    text: str | None
    paint: Callable[[ArrayLike, float], NDArray[np.uint8]] = colours
    boxes: list[TokenBox] = field(init=False)

    def __post_init__(self) -> None:
        self.boxes = place(self.units, self.text)
        rows = self.boxes[-1].row + 1 if self.boxes else 1
        cut = len(self.units.text) > LIMIT
        self.height = 28 + rows * ROW + (28 if cut else 0)

    def draw(self, page: Image.Image, top: int) -> None:
        """Draw onto the page."""
        write(page, (MARGIN, top + 11), self.title, 16, GREY)
        draw = ImageDraw.Draw(page)
        for box in self.boxes:
            value = self.values[box.index]
            left, upper = MARGIN + box.left, top + 28 + box.row * ROW
            right, lower = left + box.width - 1, upper + ROW - 5
            red, green, blue = self.paint(value, self.limit).tolist()
            ground = (red, green, blue)
            draw.rectangle((left, upper, right, lower), fill=ground)
            write(page, (left + box.indent, (upper + lower) / 2), box.text, SIZE, ink(ground))
            if abs(value) > self.limit:
                corner = [(right - 6, upper), (right, upper), (right, upper + 6)]
                draw.polygon(corner, fill=BLACK)
        if len(self.units.text) > LIMIT:
            left_out = len(self.units.text) - LIMIT
            note = f"{left_out} more tokens are in the record"
            write(page, (MARGIN, top + self.height - 12), note, 16, GREY)
