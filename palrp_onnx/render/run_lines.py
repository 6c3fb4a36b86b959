"""Reading the lines of a run: records, failures, and lines that are neither."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from palrp_onnx.errors import InputError
from palrp_onnx.record import LEDGER_ENTRIES, LEDGER_SUMS, PARTS, Attribution, Map, decode

_PER_UNIT = ("text", "start", "end", "special", "sequence", "unknown")
_ACCOUNT = (*LEDGER_ENTRIES, *LEDGER_SUMS)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class FailedRecord:
    """A record that could not be explained, or a line that could not be read."""

    id: str
    error: str


@dataclass(frozen=True)
class ListedRecord:
    """One line of a run, with its place, its run, and the ``meta`` of its input."""

    place: str
    record: Attribution | FailedRecord
    source: str = ""
    meta: Any = None


class _Failed(msgspec.Struct):
    """The line of an input that could not be explained."""

    id: str
    error: str | dict[str, Any]


class _Meta(msgspec.Struct):
    """What a line has besides its record."""

    meta: Any = None


def read_runs(paths: Sequence[Path]) -> Iterator[ListedRecord]:
    """Read several runs one after the other, such as the shards of one; each line names its run.

    Raises:
        InputError: As `read_run`.
    """
    if len(paths) == 1:
        yield from read_run(paths[0])
        return
    names = [str(path) if _shared(path, paths) else path.name for path in paths]
    for name, path in zip(names, paths, strict=True):
        for entry in read_run(path):
            yield replace(entry, place=f"{name}, {entry.place}", source=name)


def _shared(path: Path, paths: Sequence[Path]) -> bool:
    """Whether runs in several folders have this name."""
    return sum(path.name == other.name for other in paths) > 1


def read_run(path: Path) -> Iterator[ListedRecord]:
    """Read records one by one: a file of JSON lines, or all ``.jsonl`` files of a folder.

    A ``.json`` file holds one record or an array of them. A line that is not a record becomes a
    `FailedRecord`: no line is left out.

    Raises:
        InputError: The path does not exist, cannot be read, or has no such files.
    """
    files = _parts(path) if path.is_dir() else [path]
    if not files:
        raise InputError("The folder has no .jsonl files", place=str(path))
    for file in files:
        try:
            yield from _array(file) if file.suffix.lower() == ".json" else _lines(file)
        except OSError as error:
            message = f"Cannot be read: {error.strerror or error}"
            raise InputError(message, place=str(file)) from error


def _parts(folder: Path) -> list[Path]:
    """Files in the order of their numbers: part-100000 comes after part-99999."""
    return sorted(folder.glob("*.jsonl"), key=lambda file: (len(file.name), file.name))


def _lines(file: Path) -> Iterator[ListedRecord]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _entry(f"{file.name}:{number}", line)


def _array(file: Path) -> Iterator[ListedRecord]:
    data = file.read_bytes()
    several = data.lstrip()[:1] == b"["
    try:
        items = msgspec.json.decode(data if several else b"[%b]" % data, type=list[msgspec.Raw])
    except _UNREADABLE as error:
        raise InputError(f"Not JSON: {error}", place=str(file)) from error
    for number, item in enumerate(items):
        yield _entry(f"{file.name}[{number}]", bytes(item))


def _entry(place: str, data: bytes) -> ListedRecord:
    try:
        record = decode(data)
    except _UNREADABLE as error:
        reason = f"no record: {error}"
    else:
        fault = _fault(record)
        if fault:
            return ListedRecord(place, FailedRecord(record.id, f"no record: {fault}"))
        return ListedRecord(place, record, meta=msgspec.json.decode(data, type=_Meta).meta)
    try:
        failed = msgspec.json.decode(data, type=_Failed)
    except _UNREADABLE:
        return ListedRecord(place, FailedRecord(place, reason))
    return ListedRecord(place, FailedRecord(failed.id, _message(failed.error)))


def _fault(record: Attribution) -> str | None:
    """Checks beyond the schema: lists that belong together have equal lengths."""
    for fault in map(_fault_of, record.maps):
        if fault is not None:
            return fault
    if missing := [name for name in _ACCOUNT if name not in record.ledger]:
        return f"the ledger has no {missing[0]}"
    return None


def _fault_of(shown: Map) -> str | None:
    units, relevance = shown.units, shown.relevance
    count = len(relevance.total)
    lists = {
        **{name: getattr(relevance, name) for name in PARTS},
        **{name: getattr(units, name) or relevance.total for name in _PER_UNIT},
        **{site.name: site.relevance or relevance.total for site in shown.sites},
    }
    for name, values in lists.items():
        if len(values) != count:
            return f"{name} has {len(values)} numbers or texts for {count} units"
    if units.grid is not None and units.grid[0] * units.grid[1] != count:
        return f"a grid of {units.grid[0]} × {units.grid[1]} for {count} units"
    return None


def _message(error: str | dict[str, Any]) -> str:
    if isinstance(error, str):
        return error
    return "; ".join(f"{name}: {value}" for name, value in error.items() if value)
