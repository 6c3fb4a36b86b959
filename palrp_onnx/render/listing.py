"""A run as an HTML page: what it says as a whole, and a list of all records."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from palrp_onnx.errors import InputError
from palrp_onnx.record import Attribution
from palrp_onnx.render.flow import visible
from palrp_onnx.render.html import fragment, page
from palrp_onnx.render.markup import short
from palrp_onnx.render.mini import MiniMap, mini_map
from palrp_onnx.render.run_facets import Trait, facets_of, meta_traits
from palrp_onnx.render.run_lines import FailedRecord, ListedRecord
from palrp_onnx.render.run_summary import RunSummary, predicted_class, target_class
from palrp_onnx.render.titles import title_of

#: MiB of packed maps in a page; further records are listed without maps.
ROOM = 64
_EXCERPT = 160
_STRONGEST = 3
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


@dataclass(frozen=True)
class _ListRow:
    """One row of the list; ``packed`` is the map, ``None`` if the page does not contain it."""

    number: int
    id: str
    place: str
    traits: tuple[Trait, ...]
    note: str = ""
    meta: str = ""
    error: str | None = None
    packed: str | None = None
    target: str = ""
    value: float = 0.0
    probability: float | None = None
    positions: float = 0.0
    residual: float = 0.0
    warnings: tuple[str, ...] = ()
    excerpt: str = ""
    mini: MiniMap | None = None
    strongest: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class RunPage:
    """A page, and the numbers of records, of failed ones, and of those with maps in the page."""

    html: bytes
    records: int
    failed: int
    packed: int


def render_run(title: str, entries: Iterable[ListedRecord], *, room: int = ROOM) -> RunPage:
    """Show a run as a self-contained HTML page.

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
    summary = RunSummary()
    rows = list(_rows(entries, room * 2**20, summary))
    if not rows:
        raise InputError("The run holds no records", place=title)
    same = summary.predicted == summary.targets
    traits = [[t for t in row.traits if not (same and t[0] == "predicted")] for row in rows]
    facets, numbers = facets_of(traits)
    packed = sum(row.packed is not None for row in rows)
    run = {
        "rows": list(zip(rows, numbers, strict=True)),
        "columns": _COLUMNS,
        "summary": summary,
        "facets": facets,
        "packed": packed,
        "without": summary.explained - packed,
        "room": room,
    }
    html = page("report.html.j2", visible(title), run=run).encode()
    return RunPage(html, len(rows), summary.failed, packed)


def _rows(entries: Iterable[ListedRecord], room: int, summary: RunSummary) -> Iterator[_ListRow]:
    full = False
    for number, entry in enumerate(entries, 1):
        place, record = visible(entry.place), entry.record
        name, given = short(visible(record.id)), tuple(meta_traits(entry.meta))
        run = (("run", visible(entry.source)),)
        if isinstance(record, FailedRecord):
            summary.failed += 1
            error, traits = short(visible(record.error), 500), (*run, ("target", "failed"))
            yield _ListRow(number, name, place, traits, error=error)
            continue
        strongest = summary.add(record)[:_STRONGEST]
        packed = None if full else _packed(record)
        room -= len(packed or "")
        full = full or room < 0
        warnings = tuple(visible(warning.code) for warning in record.warnings)
        target = ("target", target_class(record.target))
        predicted = ("predicted", predicted_class(record) or target[1])
        told = tuple(("warning", code) for code in dict.fromkeys(warnings or ("none",)))
        yield _ListRow(
            number,
            name,
            place,
            (*run, predicted, target, *told, *given),
            note=short(" · ".join(f"{name[5:]} {value}" for name, value in given), 200),
            meta="" if entry.meta is None else visible(msgspec.json.encode(entry.meta).decode()),
            packed=None if full else packed,
            target=short(visible(title_of(record))),
            value=record.target.value,
            probability=record.target.probability,
            positions=record.position_share,
            residual=record.residual,
            warnings=warnings,
            excerpt=_excerpt(record),
            mini=mini_map(record),
            strongest=[(short(word, 30), value) for word, value in strongest],
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
