"""The text of an input, cut into the units that carry relevance; units are joined to words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import msgspec

from palrp_onnx.record import InputFacts, Units

_APOSTROPHES = "'’"
_JOINERS = "\u200c\u200d"
#: Marks and tones belong to the character before them.
_JOINED = ("Mn", "Mc", "Me", "Sk")
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
#: Scripts that are written without spaces, in which the ends of words are not visible.
_NO_BLANKS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "BOPOMOFO")


#: Blanks and line breaks as SentencePiece and byte-level vocabularies write them.
_MARKS = {" ": " ", "▁": " ", "Ġ": " ", "Ċ": "\n"}
#: What WordPiece puts before the continuation of a word.
_CONTINUED = "##"
#: Stands for further bytes of a character, where they cannot have a part of it.
_FURTHER = "·"


@dataclass(frozen=True)
class Piece:
    """The displayed text of one unit.

    Attributes:
        unit: The unit.
        text: Its text.
        special: Whether it is a special token.
        further: Whether it has only further bytes of the character before it.
    """

    unit: int
    text: str
    special: bool = False
    further: bool = False


class UnreadText(str):
    """Text that the model did not read, as it is beyond its limit."""

    unread = True


#: Units of pieces that are none: text that no unit covers, and text that was not read.
NO_UNIT, NOT_READ = -1, -2


Word = tuple[Piece, ...]
#: Words, and the text between them.
Paragraph = list[Word | str]


def visible(text: str, keep: str = "", before: str = " ") -> str:
    """Text with control and format characters replaced by their codes, as in ``‹202E›``.

    Characters of ``keep`` are retained. So are the joiners U+200C and U+200D after a character
    beyond ASCII, where they are part of the spelling: Persian words, Indic conjuncts, joined emoji.
    ``before`` is the character before the text.
    """
    shown = []
    for character in text:
        shaping = character in _JOINERS and before > "\x7f"
        plain = shaping or character in keep or unicodedata.category(character) not in _HIDDEN
        shown.append(character if plain else f"‹{ord(character):04X}›")
        before = character
    return "".join(shown)


def paragraphs(units: Units, facts: InputFacts) -> list[Paragraph]:
    """The text with its units, one paragraph per text; a pair has two.

    If units have offsets, the whole text is shown, also the parts that no unit covers. Otherwise
    the text is made of the units: they are joined where the vocabulary marks blanks or
    continuations, else separated by spaces.
    """
    placed = facts.text is not None and len(units.start) == len(units.end) == len(units.text) > 0
    if placed:
        texts = facts.text or "", facts.text_pair or ""
        return _Setter(units, texts, facts.unread is not None).set()
    if any(text.startswith((*_MARKS, _CONTINUED)) for text in units.text):
        return _Setter(*_joined(units)).set()
    singles = [
        (Piece(unit, _alone(text), _special(units, unit)),) for unit, text in enumerate(units.text)
    ]
    return [[item for single in singles for item in (single, " ")]]


def _joined(units: Units) -> tuple[Units, tuple[str, str]]:
    """Units without a text as units of the text that they spell."""
    marked = any(text.startswith(tuple(_MARKS)) for text in units.text)
    text, start, end = "", [], []
    for unit, shown in enumerate(units.text):
        special = _special(units, unit)
        if not (marked or special or not text or shown.startswith(_CONTINUED)):
            text += " "
        start.append(len(text))
        text += "" if special else _spelled(shown)
        end.append(len(text))
    placed = msgspec.structs.replace(units, start=start, end=end, sequence=[])
    return placed, (text, "")


def _spelled(text: str) -> str:
    """A token of a vocabulary as text: marks of blanks and line breaks are such."""
    for mark, meant in _MARKS.items():
        text = text.replace(mark, meant)
    return text.removeprefix(_CONTINUED)


def named(units: Units, count: int) -> Units:
    """Units with texts: tokens without a text are shown by their number."""
    if units.kind != "token" or units.text:
        return units
    return msgspec.structs.replace(units, text=[str(unit) for unit in range(count)])


def words(flow: list[Paragraph]) -> Iterator[Word]:
    """All words of all paragraphs."""
    return (item for paragraph in flow for item in paragraph if not isinstance(item, str))


@dataclass
class _Setter:
    """Joins units to paragraphs. ``done`` is the end of the text that was added so far."""

    units: Units
    texts: tuple[str, str]
    cut: bool = False
    done: int = 0
    sequence: int = 0
    open: list[Piece] = field(default_factory=list)
    made: list[Paragraph] = field(default_factory=lambda: [[]])

    def set(self) -> list[Paragraph]:
        self.sequence = self.units.sequence[0] if self.units.sequence else 0
        for unit in range(len(self.units.text)):
            if _special(self.units, unit):
                self._close()
                self._between(" " if self.made[-1] else "")
                shown = _alone(self.units.text[unit])
                self.made[-1] += [(Piece(unit, shown, True),), " "]
            else:
                self._place(unit)
        self._rest()
        return self.made

    def _place(self, unit: int) -> None:
        sequence = self.units.sequence[unit] if self.units.sequence else 0
        if sequence != self.sequence:
            self._rest()
            self.made.append([])
            self.sequence, self.done = sequence, 0
        text = self.texts[min(sequence, 1)]
        start, end = self.units.start[unit], self.units.end[unit]
        overlaps = start < self.done and start < end
        touches = start == self.done and 0 < start < len(text) and _inside_word(text, start)
        if not (overlaps or touches):
            self._close()
            self._between(text[self.done : start], unread=self.cut and not self.done)
        shown = text[max(self.done, start) : end]
        letters = shown.lstrip()
        if letters and letters != shown:
            self._close()
            self._between(shown[: -len(letters)])
        if overlaps and not shown:
            self.open.append(Piece(unit, _FURTHER, further=bool(self.open)))
            return
        at = end - len(letters)
        spelled = visible(letters, before=text[at - 1] if at else " ")
        self.open.append(Piece(unit, spelled or _alone(shown or self.units.text[unit])))
        if "\n" in shown and not letters:
            self._close()
            self._between("\n")
        self.done = max(self.done, end)

    def _between(self, text: str, *, unread: bool = False) -> None:
        if text:
            shown = visible(text, keep="\n\t")
            self.made[-1].append(UnreadText(shown) if unread and text.strip() else shown)

    def _close(self) -> None:
        if self.open:
            self.made[-1].append(tuple(self.open))
            self.open = []

    def _rest(self) -> None:
        self._close()
        self._between(self.texts[min(self.sequence, 1)][self.done :], unread=self.cut)


def _special(units: Units, unit: int) -> bool:
    return bool(units.special) and units.special[unit]


def _alone(text: str) -> str:
    """A unit outside of a text: white space is shown by symbols, as it would be invisible."""
    if not text:
        return "∅"
    if text.isspace():
        return "".join({" ": "␣", "\n": "↵", "\t": "⇥"}.get(c, f"‹{ord(c):04X}›") for c in text)
    return visible(text)


def _inside_word(text: str, at: int) -> bool:
    """Whether the place before ``text[at]`` is inside a word: between two letters, or joined."""
    left, right = text[at - 1], text[at]
    if left in _JOINERS or right in _JOINERS or unicodedata.category(right) in _JOINED:
        return True
    if right in _APOSTROPHES and at + 1 < len(text):
        right = text[at + 1]
    if left in _APOSTROPHES and at > 1:
        left = text[at - 2]
    return _letter(left) and _letter(right)


@cache
def _letter(character: str) -> bool:
    if character in _JOINERS:
        return True
    if unicodedata.category(character)[0] not in "LMN":
        return False
    return not unicodedata.name(character, "").startswith(_NO_BLANKS)
