"""Texts about a record that pictures and pages share."""

from __future__ import annotations

from palrp_onnx.record import Attribution
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


def common_scale(record: Attribution) -> tuple[float, str]:
    """The common scale of the three maps, without special tokens, and a remark on it."""
    special = record.units.special or [False] * len(record.relevance.total)
    maps = (record.relevance.content, record.relevance.position, record.relevance.total)
    ordinary = [abs(v) for m in maps for v, s in zip(m, special, strict=False) if not s]
    peak = max((abs(v) for m in maps for v in m), default=0.0)
    limit = max(ordinary, default=0.0) or peak
    if peak > limit:
        return limit, f"special tokens go up to {number(peak)[1:]}; ◥ marks what is off the scale"
    return limit, "one scale for all maps, in units of the target"


def shares(record: Attribution) -> str:
    """Shares of positions and of special tokens in the map, as text."""
    content, position = record.relevance.magnitudes()
    found = [f"positions are {_percent(position, content + position)} of the map"]
    if any(record.units.special):
        pairs = zip(record.relevance.total, record.units.special, strict=False)
        special = sum(abs(v) for v, s in pairs if s)
        whole = sum(map(abs, record.relevance.total))
        found.append(f"special tokens {_percent(special, whole)}")
    return ", ".join(found) + "  (of Σ|relevance|)"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
