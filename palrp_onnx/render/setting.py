"""Words of a text in lines: blanks and line breaks are kept, and each line has its direction."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import numpy as np

from palrp_onnx.render.bidi import base_level, levels, visual
from palrp_onnx.render.flow import NO_UNIT, NOT_READ, Paragraph, Piece, UnreadText, Word
from palrp_onnx.render.shaping import Shaped, shape

#: Room beside a word, and beside one that touches its neighbour; a tab in blanks.
_PAD, _TIGHT, _TAB = 3, 1, 4
#: A longer word is cut before it is measured.
_LONGEST = 500
#: Stands for what has no direction.
_OBJECT = "\ufffc"
#: Left and right edge of a unit.
_Share = tuple[float, float, int]


@dataclass(frozen=True)
class Set:
    """A word, a part of one, or a blank, on its line; words are in the order of reading.

    Attributes:
        shaped: Its text.
        ends: End of each unit in the text, and the unit: negative if none covers it; none for a
            blank.
        row: The line.
        left: Left edge of its ground, from the left edge of the text.
        width: Width of the ground.
        indent: From the left edge of the ground to the text.
    """

    shaped: Shaped
    ends: tuple[tuple[int, int], ...]
    row: int
    left: int
    width: int
    indent: int

    def grounds(self) -> Iterator[tuple[int, int, int]]:
        """Units with the left and the right edge of their grounds, from left to right."""
        found: list[_Share] = []
        done = 0
        for end, units in groupby(self.ends, key=lambda each: each[0]):
            found += self._shares(done, end, [unit for _, unit in units])
            done = end
        found.sort()
        cuts = [0, *(round(self.indent + low) for low, _, _ in found[1:]), self.width]
        for (_, _, unit), (left, right) in zip(found, pairwise(cuts), strict=False):
            yield unit, self.left + left, self.left + right

    def _shares(self, start: int, end: int, units: Sequence[int]) -> Iterator[_Share]:
        """The characters of a unit; units of further bytes have a share of the last one."""
        *edges, (near, far) = self.shaped.edges[start:end]
        shares = list(pairwise(np.linspace(near, far, len(units) + 1).tolist()))
        if self.shaped.backwards:
            shares.reverse()
        lows, highs = zip(*edges, shares[0], strict=True)
        yield min(lows), max(highs), units[0]
        for (low, high), unit in zip(shares[1:], units[1:], strict=True):
            yield low, high, unit


@dataclass
class _Atom:
    """A word or a blank of a line that is being filled."""

    level: int
    width: int
    shaped: Shaped
    ends: tuple[tuple[int, int], ...] = ()
    pads: tuple[int, int] = (0, 0)

    @property
    def blank(self) -> bool:
        return not self.ends


@dataclass
class Setting:
    """A text in lines.

    Attributes:
        flow: Its paragraphs.
        size: Size of the letters.
        room: Width of the lines.
        most: Lines that may be filled; the rest of the text is left out.
        words: The words and blanks that were set.
        rows: Number of lines.
        done: Number of units that were set.
        cut: Whether the end of the text was left out.
    """

    flow: Sequence[Paragraph]
    size: int
    room: int
    most: int
    words: list[Set] = field(default_factory=list)
    rows: int = 0
    done: int = 0
    cut: bool = False

    def __post_init__(self) -> None:
        for paragraph in self.flow:
            base = base_level(_spoken(paragraph))
            for line in _lines(paragraph):
                if not self.cut:
                    self._fill(line, base)
        self.done = len({unit for word in self.words for _, unit in word.ends if unit >= 0})

    def _fill(self, line: list[Word | str], base: int) -> None:
        """Fill lines with the words up to a line break; only there, blanks may begin a line."""
        atoms: list[_Atom] = []
        taken = 0
        for group in self._groups(line, base):
            size = sum(atom.width for atom in group)
            fits = taken + size <= self.room
            if not fits and group[0].blank:
                self._end(atoms, base)
                atoms, taken = [], 0
                continue
            if not fits and taken and size <= self.room:
                self._end(atoms, base)
                atoms, taken = [], 0
            for atom in group:
                if taken and taken + atom.width > self.room:
                    self._end(atoms, base)
                    atoms, taken = [], 0
                atoms.append(atom)
                taken += atom.width
            if self.rows >= self.most:
                break
        self._end(atoms, base)

    def _groups(self, line: list[Word | str], base: int) -> Iterator[list[_Atom]]:
        """What no line break may part: a word with the marks that touch it, or a blank."""
        texts = [item if isinstance(item, str) else _text(item) for item in line]
        spoken = (_OBJECT * len(text) if _special(item) else text
                  for item, text in zip(line, texts, strict=True))  # fmt: skip
        ranks = levels("".join(spoken), base)
        done, group = 0, list[_Atom]()
        for place, (item, text) in enumerate(zip(line, texts, strict=True)):
            level = min(ranks[done : done + len(text)], default=base)
            done += len(text)
            if isinstance(item, str) and not text.strip():
                yield from filter(None, [group])
                group = []
                blank = shape(" " * len(text.replace("\t", " " * _TAB)), self.size, level % 2)
                yield [_Atom(level, round(blank.width), blank)]
                continue
            touching = [0 <= k < len(line) and bool(texts[k].strip())
                        for k in (place - 1, place + 1)]  # fmt: skip
            if group and not _clings(texts[place - 1], text):
                yield group
                group = []
            group += self._word(item, level, touching)
        yield from filter(None, [group])

    def _word(self, item: Word | str, level: int, touching: Sequence[bool]) -> Iterator[_Atom]:
        """A word, in parts if it is wider than a line."""
        if isinstance(item, str):
            unit = NOT_READ if isinstance(item, UnreadText) else NO_UNIT
            pieces: Word = (Piece(unit, item),)
        else:
            pieces = item
        before, after = (_TIGHT if near else _PAD for near in touching)
        pads = (after, before) if level % 2 else (before, after)
        room = self.room - sum(pads) - 1
        side = 0 if _special(item) else level % 2
        for part in _parts(pieces):
            text = _text(part)
            shaped = shape(text, self.size, side)
            for start, end in _cuts(shaped, room):
                cut = shaped if end - start == len(text) else shape(
                    text[start:end], self.size, side
                )  # fmt: skip
                width = max(round(cut.width), 1) + sum(pads) + 1
                yield _Atom(level, width, cut, _clipped(part, start, end), pads)

    def _end(self, atoms: list[_Atom], base: int) -> None:
        """Set a line; one that runs from right to left begins at the right."""
        if self.rows >= self.most:
            self.cut = True
            return
        while atoms and atoms[-1].blank:
            atoms.pop()
        left = self.room - sum(atom.width for atom in atoms) if base else 0
        lefts = [0] * len(atoms)
        for place in visual([atom.level for atom in atoms]):
            lefts[place] = left
            left += atoms[place].width
        self.words += [
            Set(atom.shaped, atom.ends, self.rows, left, atom.width - 1, atom.pads[0])
            for atom, left in zip(atoms, lefts, strict=True)
        ]
        self.rows += 1


def _text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces if not piece.further)


def _special(item: Word | str) -> bool:
    return not isinstance(item, str) and item[0].special


def _spoken(paragraph: Paragraph) -> str:
    """The text without special tokens, which have no direction."""
    return "".join(
        item if isinstance(item, str) else _text(item) for item in paragraph if not _special(item)
    )


def _lines(paragraph: Paragraph) -> Iterator[list[Word | str]]:
    """The parts of a paragraph between line breaks."""
    line: list[Word | str] = []
    for item in paragraph:
        if not isinstance(item, str):
            line.append(item)
            continue
        first, *others = map(type(item), item.split("\n"))
        line += _apart(first)
        for other in others:
            yield line
            line = list(_apart(other))
    if line:
        yield line


def _apart(text: str) -> Iterator[str]:
    """Words and blanks of a text that no unit covers."""
    start = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or text[place].isspace() != text[place - 1].isspace():
            yield type(text)(text[start:place])
            start = place


def _clings(left: str, right: str) -> bool:
    """Whether marks keep two words that touch on one line."""
    closing = unicodedata.category(right[0]) in ("Pe", "Pf", "Po")
    return closing or unicodedata.category(left[-1]) in ("Ps", "Pi")


def _parts(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces of a word, in parts that are not too long to be measured."""
    part: list[Piece] = []
    length = 0
    for piece in pieces:
        if piece.further:
            part.append(piece)
            continue
        for start in range(0, len(piece.text), _LONGEST):
            text = piece.text[start : start + _LONGEST]
            if part and length + len(text) > _LONGEST:
                yield part
                part, length = [], 0
            part.append(Piece(piece.unit, text, piece.special))
            length += len(text)
    if part:
        yield part


def _cuts(shaped: Shaped, room: float) -> Iterator[tuple[int, int]]:
    """Start and end of the parts of a word that fit into a line."""
    start, taken = 0, 0.0
    for place, (left, right) in enumerate(shaped.edges):
        # A quarter for letters that are wider at an end than within a word.
        if place > start and (taken + right - left) * (1.25 if shaped.width > room else 1) > room:
            yield start, place
            start, taken = place, 0.0
        taken += right - left
    yield start, len(shaped.edges)


def _clipped(pieces: Sequence[Piece], start: int, end: int) -> tuple[tuple[int, int], ...]:
    """Ends of the units in ``[start, end)`` of the joined text, counted from its start."""
    ends, done = [], 0
    for piece in pieces:
        low = done - 1 if piece.further else done
        done += 0 if piece.further else len(piece.text)
        if max(low, start) < min(done, end):
            ends.append((min(done, end) - start, piece.unit))
    return tuple(ends)
