"""The one scale of a picture: symmetric around zero, printed beside the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palrp_onnx.attribution import Attribution
from palrp_onnx.errors import InputError

_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Scale:
    """Full colour is ``limit``; units in ``beyond`` have a larger value somewhere."""

    limit: float
    beyond: tuple[int, ...]

    def clips(self, value: float) -> bool:
        """Whether ``value`` lies outside the scale."""
        return abs(value) > self.limit


def scale_of(rows: Sequence[Sequence[float]], special: Sequence[bool]) -> Scale:
    """v = max |r| over all rows, over the units that are not special (over all if none is left).

    Args:
        rows: Numbers of the same units, ``[rows][units]``.
        special: One flag a unit.
    """
    size = np.abs(np.array(rows, dtype=np.float64)).max(axis=0, initial=0.0)
    plain = ~np.array(special, dtype=bool)
    limit = float(size[plain].max() if plain.any() else size.max(initial=0.0))
    return Scale(limit, tuple(np.flatnonzero(size > limit).tolist()))


def special_flags(record: Attribution) -> list[bool]:
    """One flag a unit; a record that does not say has no special units.

    Raises:
        InputError: Lists of the record do not have one entry a unit.
    """
    relevance, units = record.relevance, record.units
    count = len(relevance.content)
    lists = [relevance.position, relevance.total, *(site.relevance for site in record.sites)]
    optional = (units.text, units.id, units.start, units.end, units.special, units.sequence)
    lists_of_units = [each for each in optional if each]
    if any(len(each) != count for each in [*lists, *lists_of_units]):
        raise InputError(
            "the record's lists differ in length",
            place=f"record {record.id}",
            hint="every list under units, relevance and sites has one entry a unit",
        )
    return units.special or [False] * count


def number(value: float, digits: int = 3) -> str:
    """A signed number for people: ``+1.92``, ``−0.034``, ``0``."""
    return "0" if value == 0 else f"{value:+.{digits}g}".replace("-", _MINUS)


def share(part: float, whole: float) -> str:
    """``part`` of ``whole`` in per cent."""
    return "0 %" if whole == 0 else f"{part / whole:.1%}".replace("%", " %")
