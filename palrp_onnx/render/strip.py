"""Tokens as a person reads them, each on the colour of its relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from palrp_onnx.attribution import Units
from palrp_onnx.render.page import GREY, INNER, MARGIN, shorten, visible, width, write
from palrp_onnx.render.palette import BLACK, colour, ink

SIZE = 19
ROW = 32
#: Tokens drawn; a longer text is said to be cut.
LIMIT = 2000
_PAD = 4
_BLANK = 5


@dataclass(frozen=True)
class Box:
    """One token placed: its text and its rectangle from the strip's upper left corner."""

    index: int
    text: str
    left: int
    row: int
    width: int


def place(units: Units, text: str | None, room: int = INNER) -> list[Box]:
    """Set tokens in rows: pieces of one word touch, line breaks of the text are kept."""
    boxes: list[Box] = []
    left = row = 0
    offsets = len(units.start) == len(units.text)
    for index, piece in enumerate(units.text[:LIMIT]):
        shown = shorten(visible(piece.strip("\n\r\t ") or piece or " "), SIZE, room - 2 * _PAD)
        size = width(shown, SIZE) + 2 * _PAD
        between = (
            text[units.end[index - 1] : units.start[index]] if offsets and index and text else " "
        )
        special = bool(units.special) and (units.special[index] or units.special[index - 1])
        joined = index > 0 and offsets and between == "" and not special
        if index and not joined:
            left += _BLANK
        if left and (left + size > room or "\n" in between):
            left, row = 0, row + 1
        boxes.append(Box(index, shown, left, row, size))
        left += size
    return boxes


@dataclass
class Strip:
    """A titled strip of tokens.

    Attributes:
        title: What the numbers are.
        units: The tokens.
        values: One number a token.
        limit: The number that takes the full colour; larger ones get a mark.
        text: The text the tokens come from.
    """

    title: str
    units: Units
    values: Sequence[float]
    limit: float
    text: str | None
    boxes: list[Box] = field(init=False)

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
            ground = colour(value, self.limit)
            draw.rectangle((left, upper, right, lower), fill=ground)
            write(page, (left + _PAD, (upper + lower) / 2), box.text, SIZE, ink(ground))
            if abs(value) > self.limit:
                corner = [(right - 6, upper), (right, upper), (right, upper + 6)]
                draw.polygon(corner, fill=BLACK)
        if len(self.units.text) > LIMIT:
            left_out = len(self.units.text) - LIMIT
            note = f"{left_out} more tokens are in the record"
            write(page, (MARGIN, top + self.height - 12), note, 16, GREY)
