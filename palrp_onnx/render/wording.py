"""Texts about a record that pictures and pages share."""

from __future__ import annotations

from palrp_onnx.record import Attribution, Map
from palrp_onnx.render.page import visible
from palrp_onnx.render.scale import number
from palrp_onnx.render.titles import class_name, first_name


def ends(record: Attribution) -> tuple[str, str]:
    """Labels for the negative and the positive end of the colour bar."""
    target = record.target
    low = "against"
    if target.kind == "contrast":
        low = f"for {visible(class_name(target.against_label, target.against))}"
    return low, f"for {visible(first_name(target))}"


def common_scale(shown: Map) -> tuple[float, str]:
    """The common scale of content, position and total, without special tokens, and a remark."""
    relevance = shown.relevance
    special = shown.units.special or [False] * len(relevance.total)
    parts = (relevance.content, relevance.position, relevance.total)
    ordinary = [abs(v) for part in parts for v, s in zip(part, special, strict=False) if not s]
    peak = max((abs(v) for part in parts for v in part), default=0.0)
    limit = max(ordinary, default=0.0) or peak
    if peak > limit:
        return limit, f"special tokens go up to {number(peak)[1:]}; ◥ marks what is off the scale"
    return limit, "one scale for all maps, in units of the target"


def shares(record: Attribution) -> str:
    """Shares of inputs, of positions and of special tokens in the maps, as text."""
    content, position = record.magnitudes()
    maps = record.maps
    found = [f"positions are {_percent(position, content + position)} of the map"]
    sizes = [sum(map(abs, each.relevance.total)) for each in maps]
    whole = sum(sizes)
    if any(any(each.units.special) for each in maps):
        special = sum(
            abs(v)
            for each in maps
            for v, s in zip(each.relevance.total, each.units.special, strict=False)
            if s
        )
        found.append(f"special tokens {_percent(special, whole)}")
    if len(maps) > 1:
        names = zip(maps, sizes, strict=True)
        found += [f"{visible(each.input)} {_percent(size, whole)}" for each, size in names]
    return ", ".join(found) + "  (of Σ|relevance|)"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
