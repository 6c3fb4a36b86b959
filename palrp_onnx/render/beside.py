"""The page of any number of records: one, a few of one input side by side, or a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from msgspec import UNSET

from palrp_onnx.record import Attribution
from palrp_onnx.render.flow import visible
from palrp_onnx.render.html import page, render_html, view
from palrp_onnx.render.listing import ROOM, RunPage, render_run
from palrp_onnx.render.run_lines import ListedRecord

#: More records of one input are listed.
MOST = 4


def render_records(
    title: str, records: Sequence[Attribution], pictures: Sequence[Mapping[str, Any]]
) -> bytes:
    """Show records as a self-contained page.

    Two to four records of one input, such as those of several targets or methods, are shown side by
    side; other records are listed, each with a link to its map.

    Args:
        title: Title of a page of several records.
        records: The records, at least one.
        pictures: ``image``, ``box`` and ``further`` of each, as for `render_html`.
    """
    if len(records) == 1:
        return render_html(records[0], **pictures[0])
    if len(records) > MOST or len({_input(record) for record in records}) > 1:
        return render_run(title, [ListedRecord(each.id, each) for each in records]).html
    views = [
        view(record, (seen.get("image"), seen.get("box")), seen.get("further"))
        for record, seen in zip(records, pictures, strict=True)
    ]
    return page("beside.html.j2", visible(title), views=views).encode()


def render_entries(title: str, entries: Iterable[ListedRecord], *, room: int = ROOM) -> RunPage:
    """Show the lines of runs: a few records of one input side by side, else as `render_run`."""
    lines = iter(entries)
    first = list(islice(lines, MOST + 1))
    records = [each.record for each in first if isinstance(each.record, Attribution)]
    few = 1 < len(records) == len(first) <= MOST
    if few and len({_input(record) for record in records}) == 1:
        html = render_records(title, records, [{}] * len(records))
        return RunPage(html, len(records), failed=0, packed=len(records))
    return render_run(title, chain(first, lines), room=room)


def _input(record: Attribution) -> tuple[Any, ...]:
    """What tells inputs apart: a text, else what the model said of it, else its name."""
    facts, units, said = record.input, record.units, record.prediction
    top = () if said is UNSET else tuple((each.index, each.value) for each in said.top)
    told = None if facts.text is not None else top or record.id
    return (facts.kind, facts.text, facts.text_pair, units.kind, tuple(units.text), told)
