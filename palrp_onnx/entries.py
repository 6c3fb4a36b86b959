"""The entries of a map, for work in Python: tokens, words, patches, steps, columns."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import ResourceError
from palrp_onnx.record import Attribution, Map
from palrp_onnx.render.flow import paragraphs, words

Numbers = NDArray[np.float64]
#: Entries that a short text about them shows.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a map: a unit, or a word of several tokens.

    Attributes:
        text: The token, the word, or the name of the unit: ``(row, column)`` of a patch.
        content: Relevance of the content, signed, in units of the target.
        position: Relevance of its positions, signed.
        total: Their sum.
        score: What the method ranks by.
        special: Whether it is a token that is not of the text: ``[CLS]``, padding.
        start: Where it starts in the text, in code points; ``None`` where it has no place.
        end: Where it ends.
        sequence: Which text of a pair it belongs to: 0 or 1.
        units: Numbers of the units of the map that it is made of.
    """

    text: str
    content: float
    position: float
    total: float
    score: float
    special: bool
    start: int | None
    end: int | None
    sequence: int
    units: tuple[int, ...]

    def __repr__(self) -> str:
        return f"{self.text!r} {self.total:+.3g}"


class Entries(Sequence[Entry]):
    """Entries of one map, in the order of the input; a slice of them is of the same kind.

    Args:
        kind: What an entry is: token, word, patch, frame, step, column or node.
        entries: The entries.
        grid: Rows and columns of patches.
    """

    def __init__(
        self, kind: str, entries: Iterable[Entry], *, grid: tuple[int, int] | None = None
    ) -> None:
        self.kind = kind
        self.grid = grid
        self._entries = tuple(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> Entries: ...
    def __getitem__(self, place: int | slice) -> Entry | Entries:
        if isinstance(place, slice):
            return Entries(self.kind, self._entries[place])
        return self._entries[place]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entries):
            return NotImplemented
        return (self.kind, self._entries) == (other.kind, other._entries)

    def __hash__(self) -> int:
        return hash((self.kind, self._entries))

    def __repr__(self) -> str:
        more = f", … {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""
        return f"[{', '.join(map(repr, self._entries[:_SHOWN]))}{more}]"

    def _repr_html_(self) -> str:
        from palrp_onnx.render.inline import entries_table  # what draws is loaded when needed

        return entries_table(self.kind, self._entries)

    @property
    def content(self) -> Numbers:
        """Relevance of the content of every entry, signed."""
        return np.array([each.content for each in self._entries])

    @property
    def position(self) -> Numbers:
        """Relevance of the positions of every entry, signed."""
        return np.array([each.position for each in self._entries])

    @property
    def total(self) -> Numbers:
        """The sum of both."""
        return np.array([each.total for each in self._entries])

    @property
    def score(self) -> Numbers:
        """What the method ranks by."""
        return np.array([each.score for each in self._entries])

    def top(self, count: int = 10) -> Entries:
        """The entries with the largest \\|total\\|, the strongest first."""
        return self._first(count, sorted(self._entries, key=lambda each: -abs(each.total)))

    def for_(self, count: int = 10) -> Entries:
        """The entries that speak most for the target, the strongest first."""
        found = (each for each in self._entries if each.total > 0)
        return self._first(count, sorted(found, key=lambda each: -each.total))

    def against(self, count: int = 10) -> Entries:
        """The entries that speak most against the target, the strongest first."""
        found = (each for each in self._entries if each.total < 0)
        return self._first(count, sorted(found, key=lambda each: each.total))

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary an entry."""
        return [asdict(each) for each in self._entries]

    def to_frame(self) -> Any:
        """The entries as a ``pandas.DataFrame``, one row each.

        Raises:
            ResourceError: pandas is not installed.
        """
        return frame_of(self.to_dicts())

    def _first(self, count: int, entries: Sequence[Entry]) -> Entries:
        return Entries(self.kind, entries[:count])


def units_of(shown: Map) -> Entries:
    """The units of a map."""
    units, relevance = shown.units, shown.relevance
    placed = len(units.start) == len(units.end) == len(relevance.total)

    def entry(unit: int) -> Entry:
        special = bool(units.special) and units.special[unit]
        return Entry(
            text=units.name(unit),
            content=relevance.content[unit],
            position=relevance.position[unit],
            total=relevance.total[unit],
            score=relevance.score[unit],
            special=special,
            start=units.start[unit] if placed and not special else None,
            end=units.end[unit] if placed and not special else None,
            sequence=units.sequence[unit] if units.sequence else 0,
            units=(unit,),
        )

    return Entries(units.kind, map(entry, range(len(relevance.total))), grid=units.grid)


def words_of(record: Attribution, shown: Map) -> Entries:
    """The tokens of a map, joined to words as pictures and pages join them."""
    tokens = units_of(shown)
    texts = (record.input.text or "", record.input.text_pair or "")

    def joined(parts: Sequence[Entry]) -> Entry:
        if len(parts) == 1 and parts[0].start is None:
            return parts[0]
        first = parts[0]
        start = min(each.start or 0 for each in parts)
        end = max(each.end or 0 for each in parts)
        text = texts[min(first.sequence, 1)][start:end]
        start += len(text) - len(text.lstrip())
        return Entry(
            text=text.strip() or "".join(each.text for each in parts),
            content=sum(each.content for each in parts),
            position=sum(each.position for each in parts),
            total=sum(each.total for each in parts),
            score=sum(each.score for each in parts),
            special=first.special,
            start=start,
            end=end,
            sequence=first.sequence,
            units=tuple(unit for each in parts for unit in each.units),
        )

    flow = words(paragraphs(shown.units, record.input))
    return Entries("word", (joined([tokens[piece.unit] for piece in word]) for word in flow))


def frame_of(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a ``pandas.DataFrame``.

    Raises:
        ResourceError: pandas is not installed.
    """
    try:
        pandas: Any = importlib.import_module("pandas")
    except ImportError as error:
        raise ResourceError(
            "A data frame needs a package that is not installed: pandas",
            hint="pip install pandas; to_dicts() gives the same rows without it.",
        ) from error
    return pandas.DataFrame(list(rows))
