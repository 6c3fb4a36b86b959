"""A record as blocks of a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from PIL import Image

from palrp_onnx.record import Attribution, Map, entry_names
from palrp_onnx.render.bars import BARRED, Bars
from palrp_onnx.render.film import Film
from palrp_onnx.render.flow import named, paragraphs, visible
from palrp_onnx.render.page import GREY, Block, Page, TextLines, facts_of, wrap
from palrp_onnx.render.palette import BLACK
from palrp_onnx.render.panel import Panel
from palrp_onnx.render.picture import Pictures, Seen
from palrp_onnx.render.scale import Scale, number
from palrp_onnx.render.strip import Strip, set_text
from palrp_onnx.render.timeline import TIMED, Timeline, in_cells
from palrp_onnx.render.titles import title_of
from palrp_onnx.render.views import MapView, bounds, views
from palrp_onnx.render.wording import (
    common_scale,
    covered,
    ends,
    failed_checks,
    notices,
    said,
    score_remark,
    shares,
)
from palrp_onnx.types import Box

_SMALL = 15


def lay_out(
    record: Attribution,
    *,
    image: Image.Image | None = None,
    box: Box | None = None,
    further: Mapping[str, Seen] | None = None,
) -> Page:
    """Lay out a record: head, maps on one scale, colour bar, ledger, positions × layers.

    Args:
        record: The record.
        image: The original image, for patches.
        box: The part of the original that the network saw, in its pixels; all of it by default.
        further: The same two for each further explained input, by its name.
    """
    blocks: list[Block] = [_head(record)]
    seen = further or {}
    first, *others = record.maps
    blocks += _map(record, first, image, box)
    for shown in others:
        blocks += _map(record, shown, *seen.get(shown.input, (None, None)))
    blocks.append(_ledger(record))
    for shown in record.maps:
        if shown.sites and shown.sites[0].relevance:
            cells, each = in_cells(shown)
            blocks.append(Panel(cells.sites, cells.units, _prefix(record, shown), each))
    return Page(blocks, visible(title_of(record)), facts_of(record))


def _map(
    record: Attribution, shown: Map, image: Image.Image | None, box: Box | None
) -> Iterator[Block]:
    """The maps of one input, and their scale."""
    shown, each = in_cells(shown)
    limit, remark = common_scale(shown)
    prefix = _prefix(record, shown)
    maps: Sequence[MapView] = views(shown.relevance, limit)
    if shown.units.kind in TIMED:
        if prefix:
            yield TextLines([(prefix, 16, GREY)])
        yield Timeline(maps, shown.units, each, image)
    elif shown.units.kind in BARRED:
        yield Bars(maps, shown.units, prefix)
    elif (grid := shown.units.grid) is not None:
        if prefix:
            yield TextLines([(prefix, 16, GREY)])
        if shown.units.pictures > 1 and image is None:
            yield Film(maps, grid, shown.units.pictures)
        else:
            yield Pictures(maps, grid, image, box)
    else:
        units = named(shown.units, len(shown.relevance.total))
        unknown = {unit for unit, marked in enumerate(units.unknown) if marked}
        text, maps, note = set_text(maps, paragraphs(units, record.input))
        for each_map in maps:
            yield Strip(f"{prefix}{each_map.name}", each_map, text, unknown)
        if note:
            yield TextLines([(note, _SMALL, GREY)])
    yield Scale(limit, remark + _summed(shown, each), *ends(record))
    if not maps[-1].signed:
        low, high = bounds(maps[-1].values)
        yield Scale(high, score_remark(record), "lowest", "highest score", least=low)


def _summed(shown: Map, each: int) -> str:
    return f"; a cell is the sum of {each} {shown.units.kind}s" if each > 1 else ""


def _prefix(record: Attribution, shown: Map) -> str:
    """The name of the input before the titles of its maps, if there are several inputs."""
    return f"{visible(shown.input)}:  " if record.others else ""


def _head(record: Attribution) -> TextLines:
    target = record.target
    name = title_of(record)
    facts = [f"{target.output} {number(target.value)}"]
    if target.probability is not None:
        facts.append(f"probability {target.probability:.3g}")
    if (other := said(record)) is not None:
        facts.append(other)
    facts.append(f"{record.run.method}, {record.run.dtype}")
    facts.append(f"{visible(record.model.name or 'model')} {record.model.sha256[:12]}")
    facts.append(f"input {visible(record.id)}")
    lines = [(visible(name), 28, BLACK)]
    lines += [(line, _SMALL, GREY) for line in wrap(facts, _SMALL)]
    warnings = [visible(w.message) for w in record.warnings]
    notes = [*notices(record), *failed_checks(record), *warnings]
    lines += [(f"⚠ {text}", _SMALL, BLACK) for text in notes]
    return TextLines(lines)


def _ledger(record: Attribution) -> TextLines:
    ledger = record.ledger
    terms = [f"{visible(n)} {number(ledger[n])}" for n in entry_names(ledger) if ledger[n]]
    account = [f"target {number(ledger['target'])}  =", *terms]
    residual = f"residual {number(ledger['residual'])}"
    account.append(f"{residual} ({record.residual:.1e} of the entries)")
    lines = [("ledger", 16, GREY)]
    lines += [(line, _SMALL, BLACK) for line in wrap(account, _SMALL)]
    lines.append((covered(record), _SMALL, BLACK))
    lines.append((shares(record), _SMALL, GREY))
    return TextLines(lines)
