"""Two runs over the same inputs, matched by id: the first is indexed, the second is streamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from palrp_onnx.errors import InputError
from palrp_onnx.record import Attribution, decode

#: Largest size of one record, in bytes.
RECORD_LIMIT = 64 << 20

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _LineName(Struct):
    """The fields of a record that matching needs."""

    id: str
    error: Any | UnsetType = UNSET


class _LinePlace(NamedTuple):
    file: Path
    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.file} at byte {self.offset}"

    def read(self) -> bytes:
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.length)


@dataclass
class Pairs:
    """Pairs of records by id. The attributes are complete after one iteration.

    Memory holds the ids of both runs, and only the two records of the current pair.

    Attributes:
        only_a: Ids that the second run does not have, in the order of the first.
        only_b: Ids that the first run does not have.
        failed_a: Ids for which the first run holds an error instead of a record.
        failed_b: The same for the second run.

    Raises:
        InputError: A run does not exist or is empty, a line is not a record, or an id occurs twice.
    """

    a: Path
    b: Path
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    failed_a: list[str] = field(default_factory=list)
    failed_b: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Attribution, Attribution]]:
        """Pairs of records with the same id, in the order of the second run."""
        index = self._index()
        met: set[str] = set()
        for place, data in _records(self.b):
            name = _name(place, data)
            if name.id in met:
                raise InputError(f"The id {name.id!r} is there twice", place=str(place))
            met.add(name.id)
            if name.error is not UNSET:
                self.failed_b.append(name.id)
            if name.id not in index:
                self.only_b.append(name.id)
                continue
            other = index[name.id]
            if other is not None and name.error is UNSET:
                yield _decode(other, other.read()), _decode(place, data)
        self.only_a.extend(each for each in index if each not in met)

    def _index(self) -> dict[str, _LinePlace | None]:
        """Places of the records of the first run; ``None`` for those that failed."""
        index: dict[str, _LinePlace | None] = {}
        for place, data in _records(self.a):
            name = _name(place, data)
            if name.id in index:
                raise InputError(f"The id {name.id!r} is there twice", place=str(place))
            if name.error is not UNSET:
                self.failed_a.append(name.id)
            index[name.id] = place if name.error is UNSET else None
        return index


def _records(run: Path) -> Iterator[tuple[_LinePlace, bytes]]:
    """Place and bytes of each record of a run."""
    files = _files(run)
    if not files:
        raise InputError("There are no .jsonl or .json files", place=str(run))
    empty = True
    for file in files:
        try:
            for place, data in _whole(file) if file.suffix == ".json" else _lines(file):
                empty = False
                yield place, data
        except OSError as error:
            message = f"cannot be read: {error.strerror or error}"
            raise InputError(message, place=str(file)) from error
    if empty:
        raise InputError("The run holds no records", place=str(run))


def _files(run: Path) -> list[Path]:
    if not run.is_dir():
        return [run]
    kinds = (sorted(run.glob(pattern)) for pattern in ("part-*.jsonl", "*.jsonl", "*.json"))
    return next(filter(None, kinds), [])


def _lines(file: Path) -> Iterator[tuple[_LinePlace, bytes]]:
    offset = 0
    with file.open("rb") as stream:
        while line := stream.readline(RECORD_LIMIT + 1):
            _check_length(line, file)
            if line.strip():
                yield _LinePlace(file, offset, len(line)), line
            offset += len(line)


def _whole(file: Path) -> Iterator[tuple[_LinePlace, bytes]]:
    with file.open("rb") as stream:
        data = stream.read(RECORD_LIMIT + 1)
    _check_length(data, file)
    yield _LinePlace(file, 0, len(data)), data


def _check_length(data: bytes, file: Path) -> None:
    if len(data) > RECORD_LIMIT:
        message = f"A record is longer than {RECORD_LIMIT >> 20} MiB"
        raise InputError(message, place=str(file))


def _name(place: _LinePlace, data: bytes) -> _LineName:
    try:
        return msgspec.json.decode(data, type=_LineName)
    except _UNREADABLE as error:
        raise _not_a_record(place, error) from error


def _decode(place: _LinePlace, data: bytes) -> Attribution:
    try:
        return decode(data)
    except _UNREADABLE as error:
        raise _not_a_record(place, error) from error


def _not_a_record(place: _LinePlace, error: Exception) -> InputError:
    return InputError(
        f"There is no record: {error}",
        place=str(place),
        hint="A run is a .jsonl file with a record a line, a folder of these, or of .json files.",
    )
