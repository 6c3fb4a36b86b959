"""A run as an HTML page: a list of all records, whose maps are unpacked when opened."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from palrp_onnx.errors import InputError
from palrp_onnx.record import LEDGER_ENTRIES, LEDGER_SUMS, PARTS, Attribution, Map, decode
from palrp_onnx.render.flow import visible
from palrp_onnx.render.html import fragment, page, short
from palrp_onnx.render.titles import title_of

#: MiB of packed maps in a page; further records are listed without maps.
ROOM = 64
_TARGETS = 8
_EXCERPT = 160
_COLUMNS = (
    ("#", "number", "n place"),
    ("id", "text", ""),
    ("target", "text", ""),
    ("value", "number", "n"),
    ("probability", "number", "n wide"),
    ("positions", "number", "n wide"),
    ("residual", "number", "n wide"),
    ("warnings", "number", "wide"),
    ("input", "text", "excerpt"),
)


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
    """One line of a run, with its place."""

    place: str
    record: Attribution | FailedRecord


class _Failed(msgspec.Struct):
    """The line of an input that could not be explained."""

    id: str
    error: str | dict[str, Any]


@dataclass(frozen=True)
class _ListRow:
    """One row of the list; ``packed`` is the map, ``None`` if the page does not contain it."""

    number: int
    id: str
    place: str
    error: str | None = None
    packed: str | None = None
    target: str = ""
    value: float = 0.0
    probability: float | None = None
    positions: float = 0.0
    residual: float = 0.0
    warnings: tuple[str, ...] = ()
    excerpt: str = ""


@dataclass(frozen=True)
class RunPage:
    """A page, and the numbers of records, of failed ones, and of those with maps in the page."""

    html: bytes
    records: int
    failed: int
    packed: int


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


def render_run(title: str, entries: Iterable[ListedRecord], *, room: int = ROOM) -> RunPage:
    """List a run as a self-contained HTML page.

    The list has all entries. Maps are packed into the page, in the order of the run, until the next
    one would exceed ``room`` MiB; for all further records the list has their place in the files
    instead. The page states their number.

    Args:
        title: Title of the page.
        entries: Records and failures.
        room: Largest size of packed maps, in MiB.

    Raises:
        InputError: There are no entries.
    """
    rows = list(_rows(entries, room * 2**20))
    if not rows:
        raise InputError("The run holds no records", place=title)
    good = [row for row in rows if row.error is None]
    failed = len(rows) - len(good)
    packed = sum(row.packed is not None for row in rows)
    targets = Counter(row.target for row in good).most_common()
    run = {
        "rows": rows,
        "columns": _COLUMNS,
        "failed": failed,
        "warned": sum(bool(row.warnings) for row in good),
        "targets": targets[:_TARGETS],
        "more_targets": len(targets[_TARGETS:]),
        "residual": max((row.residual for row in good), default=0.0),
        "packed": packed,
        "without": len(good) - packed,
        "room": room,
    }
    html = page("report.html.j2", visible(title), run=run).encode()
    return RunPage(html, len(rows), failed, packed)


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
        return ListedRecord(
            place, FailedRecord(record.id, f"no record: {fault}") if fault else record
        )
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


def _rows(entries: Iterable[ListedRecord], room: int) -> Iterator[_ListRow]:
    full = False
    for number, entry in enumerate(entries, 1):
        place, record = visible(entry.place), entry.record
        name = short(visible(record.id))
        if isinstance(record, FailedRecord):
            yield _ListRow(number, name, place, error=short(visible(record.error), 500))
            continue
        packed = None if full else _packed(record)
        room -= len(packed or "")
        full = full or room < 0
        yield _ListRow(
            number,
            name,
            place,
            packed=None if full else packed,
            target=short(visible(title_of(record))),
            value=record.target.value,
            probability=record.target.probability,
            positions=record.position_share,
            residual=record.residual,
            warnings=tuple(visible(warning.code) for warning in record.warnings),
            excerpt=_excerpt(record),
        )


def _packed(record: Attribution) -> str:
    """The HTML of a record, compressed: text shrinks to a third or less."""
    return base64.b64encode(zlib.compress(fragment(record).encode(), 9)).decode()


def _excerpt(record: Attribution) -> str:
    text = record.input.text
    if text is None:
        return f"{record.input.kind}, {len(record.relevance.total)} units"
    joined = " ".join(text[: 2 * _EXCERPT].split())
    return visible(joined[:_EXCERPT]) + ("…" if len(text) > _EXCERPT else "")
