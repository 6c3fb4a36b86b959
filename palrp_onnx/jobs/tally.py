"""What the lines of a batch say, counted; only what is counted is read of a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from palrp_onnx.record import Check

#: First bytes of the line of an explained record.
EXPLAINED = b'{"schema":'


@dataclass(frozen=True)
class Tally:
    """Counts over lines.

    Attributes:
        records: All lines.
        failed: Those with an error instead of a record.
        truncated: Records of which the model read a part.
        unknown: Tokens of all records that stand for what the vocabulary does not have.
        warnings: Warnings of all records by code.
        checks: Records that fail a check, by check.
    """

    records: int = 0
    failed: int = 0
    truncated: int = 0
    unknown: int = 0
    warnings: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.records + other.records,
            self.failed + other.failed,
            self.truncated + other.truncated,
            self.unknown + other.unknown,
            self.warnings + other.warnings,
            self.checks + other.checks,
        )


class _Input(Struct):
    truncated: bool = False


class _Units(Struct):
    unknown: list[bool] = []


class _Map(Struct):
    units: _Units


class _Warning(Struct):
    code: str


class _Seen(Struct):
    """What is counted of a record."""

    input: _Input = msgspec.field(default_factory=_Input)
    units: _Units = msgspec.field(default_factory=_Units)
    warnings: list[_Warning] = []
    others: list[_Map] = []
    checks: list[Check] = []


_decoder = msgspec.json.Decoder(_Seen)


def count_lines(lines: Iterable[bytes]) -> Tally:
    """Counts over lines.

    Raises:
        msgspec.MsgspecError: A line that begins like a record is no JSON of one.
    """
    found = Tally()
    for line in lines:
        found += _count(line)
    return found


def _count(line: bytes) -> Tally:
    if not line.startswith(EXPLAINED):
        return Tally(records=1, failed=1)
    seen = _decoder.decode(line)
    return Tally(
        records=1,
        truncated=int(seen.input.truncated),
        unknown=sum(sum(units.unknown) for units in (seen.units, *(m.units for m in seen.others))),
        warnings=Counter(warning.code for warning in seen.warnings),
        checks=Counter(check.check for check in seen.checks if not check.passed),
    )
