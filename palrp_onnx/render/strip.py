"""Tokens as running text, each on the colour of its relevance."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby

from palrp_onnx.render.flow import NO_UNIT, NOT_READ, Paragraph, words
from palrp_onnx.render.page import GREY, INNER, MARGIN
from palrp_onnx.render.palette import BLACK, RGB, ink
from palrp_onnx.render.scale import number
from palrp_onnx.render.scene import Scene, Span
from palrp_onnx.render.setting import Set, Setting
from palrp_onnx.render.views import MapView

#: Size of letters, and the smaller one of long texts.
SIZES = (19, 14)
#: All maps of a text are at most so many pixels high: programs show no pictures of 16,384 and more.
TALLEST = 14_000
_HEAD = 28


def row(size: int) -> int:
    """Height of a line."""
    return round(size * 1.7)


def set_text(
    maps: Sequence[MapView], flow: Sequence[Paragraph]
) -> tuple[Setting, Sequence[MapView], str]:
    """Set a text for its maps; returns the maps that there is room for, and a note for the reader.

    A long text has smaller letters. If that is not enough, only the first map is drawn, and at last
    the end of the text is left out.
    """
    for shown in (maps, maps[:1]):
        for size in SIZES:
            text = Setting(flow, size, INNER, TALLEST // (row(size) * len(shown)))
            if not text.cut:
                break
        if not text.cut:
            break
    count = len({piece.unit for word in words(list(flow)) for piece in word})
    notes = []
    if len(shown) < len(maps):
        others = ", ".join(view.name for view in maps[1:])
        notes.append(f"The text is long: {others} are left to the record and its page.")
    if text.cut:
        notes.append(f"{count - text.done} more tokens are in the record and on its page.")
    return text, shown, " ".join(notes)


@dataclass
class Strip:
    """A titled strip of tokens.

    Attributes:
        title: Title of the map.
        view: The map.
        text: The tokens in lines.
        unknown: Tokens that stand for what the vocabulary does not have; they are underlined.
    """

    title: str
    view: MapView
    text: Setting
    unknown: AbstractSet[int] = frozenset()

    def __post_init__(self) -> None:
        self.height = _HEAD + max(self.text.rows, 1) * row(self.text.size)

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        page.write((MARGIN, top + 11), self.title, 16, GREY)
        high = row(self.text.size)
        grounds = self.view.paint(self.view.values, self.view.limit).tolist()
        for line, placed in groupby(self.text.words, key=lambda word: word.row):
            upper = top + _HEAD + line * high
            lower = upper + high - 5
            spans = [self._word(page, word, grounds, upper, lower) for word in placed]
            page.words((upper + lower) / 2, self.text.size, spans)

    def _word(
        self, page: Scene, word: Set, grounds: Sequence[Sequence[int]], upper: int, lower: int
    ) -> Span:
        """Draw the grounds of a word, and return its letters."""
        shown: dict[int, tuple[RGB, str]] = {NO_UNIT: (BLACK, ""), NOT_READ: (GREY, "not read")}
        for unit, left, right in word.grounds():
            if unit == NOT_READ:
                middle = (upper + lower) / 2
                page.stroke([(MARGIN + left, middle), (MARGIN + right, middle)], GREY)
            if unit < 0:
                continue
            value = self.view.values[unit]
            red, green, blue = grounds[unit]
            ground, title = (red, green, blue), f"{self.view.name} {number(value)}"
            shown[unit] = (ink(ground), title)
            edges = (MARGIN + left, upper, MARGIN + right - 1, lower)
            page.box(edges, fill=ground, title=title)
            if self.view.signed and abs(value) > self.view.limit:
                at = edges[2]
                page.polygon([(at - 6, upper), (at, upper), (at, upper + 6)], BLACK)
            if unit in self.unknown:
                for at in range(edges[0], edges[2], 5):
                    page.stroke([(at, lower), (min(at + 2, edges[2]), lower)], BLACK, 2)
        inks = tuple((end, *shown[unit]) for end, unit in word.ends)
        return Span(
            word.shaped,
            MARGIN + word.left + word.indent,
            inks or ((len(word.shaped.text), BLACK, ""),),
        )
