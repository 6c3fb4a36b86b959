"""A record in one line."""

from __future__ import annotations

from palrp_onnx.record import Attribution, Units
from palrp_onnx.render.flow import visible
from palrp_onnx.render.scale import number
from palrp_onnx.render.titles import title_of
from palrp_onnx.render.wording import plural


def headline(record: Attribution) -> str:
    """The target with its probability or value, the units, and how well the ledger closes.

    As in ``POSITIVE 0.915 · 94 tokens · residual 7e-8``.
    """
    sizes = ", ".join(count(each.units, len(each.relevance.total)) for each in record.maps)
    return f"{_target(record)} · {sizes} · residual {_power(record.residual)}"


def count(units: Units, size: int) -> str:
    """How many units there are, in words."""
    return f"{size} {units.kind if size == 1 else plural(units.kind)}"


def _target(record: Attribution) -> str:
    """The name of the target, which may state the probability already."""
    title, chance = title_of(record), record.target.probability
    if chance is None or record.target.kind == "contrast":
        return f"{visible(title)} {number(record.target.value)}"
    said = f"{chance:.3g}" in title or f"p {chance:.2g}" in title
    return visible(title) if said else f"{visible(title)} {chance:.3g}"


def _power(value: float) -> str:
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"
