"""A record as a picture for people."""

from __future__ import annotations

import io

from PIL import Image, PngImagePlugin

from palrp_onnx.attribution import LEDGER_ENTRIES, Attribution
from palrp_onnx.render.page import GREY, Block, Lines, compose, visible, wrap
from palrp_onnx.render.palette import BLACK
from palrp_onnx.render.panel import Panel
from palrp_onnx.render.picture import Pictures, Rectangle
from palrp_onnx.render.scale import Scale, number
from palrp_onnx.render.strip import Strip

_SMALL = 15


def render_png(
    record: Attribution, *, image: Image.Image | None = None, box: Rectangle | None = None
) -> bytes:
    """Draw a record: head, maps on one scale, colour bar, ledger, positions × layers.

    Args:
        record: What to draw.
        image: The original image, for patches.
        box: Rectangle of the original, in its pixels, that the network saw; all by default.

    Returns:
        A PNG file. The same record and image give the same bytes.
    """
    limit, remark = _limit(record)
    reduction = str(record.run.params.get("positions", "signed"))
    blocks: list[Block] = [_head(record)]
    if record.units.grid is not None:
        grid = record.units.grid
        blocks.append(Pictures(record.relevance, grid, limit, image, box, reduction))
    else:
        blocks += [
            Strip(name, record.units, values, limit, record.input.text)
            for name, values in (
                ("content", record.relevance.content),
                (f"position  ({reduction})", record.relevance.position),
                ("total", record.relevance.total),
            )
        ]
    blocks += [Scale(limit, remark, *_ends(record)), _ledger(record)]
    if record.sites and record.sites[0].relevance:
        blocks.append(Panel(record.sites, record.units))
    return _encoded(compose(blocks), record)


def _limit(record: Attribution) -> tuple[float, str]:
    """The common scale of the three maps, special tokens not counted, and what to say of it."""
    special = record.units.special or [False] * len(record.relevance.total)
    maps = (record.relevance.content, record.relevance.position, record.relevance.total)
    ordinary = [abs(v) for m in maps for v, s in zip(m, special, strict=False) if not s]
    peak = max((abs(v) for m in maps for v in m), default=0.0)
    limit = max(ordinary, default=0.0) or peak
    if peak > limit:
        return limit, f"special tokens go up to {number(peak)[1:]}; ◥ marks what is off the scale"
    return limit, "one scale for all maps, in units of the target"


def _head(record: Attribution) -> Lines:
    target = record.target
    name = _class(target.label, target.index)
    if target.kind == "contrast":
        name = f"{name} rather than {_class(target.against_label, target.against)}"
    if target.position is not None:
        name = f"{name} at token {target.position}"
    facts = [f"{target.output} {number(target.value)}"]
    if target.probability is not None:
        facts.append(f"probability {target.probability:.3g}")
    facts.append(f"{record.run.method}, {record.run.dtype}")
    facts.append(f"model {record.model.sha256[:12]}")
    facts.append(f"input {visible(record.id)}")
    lines = [(visible(name), 28, BLACK)]
    lines += [(line, _SMALL, GREY) for line in wrap(facts, _SMALL)]
    warnings = [visible(w.message) for w in record.warnings]
    lines += [(f"⚠ {text}", _SMALL, BLACK) for text in warnings]
    return Lines(lines)


def _ends(record: Attribution) -> tuple[str, str]:
    """What the ends of the colour bar speak for."""
    target = record.target
    low = "against"
    if target.kind == "contrast":
        low = f"for {visible(_class(target.against_label, target.against))}"
    return low, f"for {visible(_class(target.label, target.index))}"


def _class(label: str | None, index: int | list[int] | None) -> str:
    if label is not None:
        return label
    return f"element {index}" if isinstance(index, list) else f"class {index}"


def _ledger(record: Attribution) -> Lines:
    ledger = record.ledger
    known = {*LEDGER_ENTRIES, "target", "residual", "residual_relative"}
    names = [*LEDGER_ENTRIES, *(name for name in ledger if name not in known)]
    terms = [f"{visible(n)} {number(ledger[n])}" for n in names if ledger[n]]
    account = [f"target {number(ledger['target'])}  =", *terms]
    residual = f"residual {number(ledger['residual'])}"
    account.append(f"{residual} ({abs(ledger['residual_relative']):.1e} of the entries)")
    lines = [("ledger", 16, GREY)]
    lines += [(line, _SMALL, BLACK) for line in wrap(account, _SMALL)]
    lines.append((_shares(record), _SMALL, GREY))
    return Lines(lines)


def _shares(record: Attribution) -> str:
    """How much of the map special tokens and positions are."""
    content, position = (
        sum(map(abs, values)) for values in (record.relevance.content, record.relevance.position)
    )
    shares = [f"positions are {_percent(position, content + position)} of the map"]
    if any(record.units.special):
        pairs = zip(record.relevance.total, record.units.special, strict=False)
        special = sum(abs(v) for v, s in pairs if s)
        whole = sum(map(abs, record.relevance.total))
        shares.append(f"special tokens {_percent(special, whole)}")
    return ", ".join(shares) + "  (of Σ|relevance|)"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def _encoded(page: Image.Image, record: Attribution) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in {
        "Software": f"palrp-onnx {record.run.version}",
        "Schema": record.schema,
        "Model": record.model.sha256,
        "Id": visible(record.id),
    }.items():
        info.add_itxt(key, value)
    data = io.BytesIO()
    page.save(data, "PNG", pnginfo=info)
    return data.getvalue()
