"""A short summary of a record, for stderr."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from palrp_onnx.printable import printable

if TYPE_CHECKING:
    from palrp_onnx.record import Attribution, Map, TargetFacts, Units

_TOP = 5
#: Largest number of units in time that are named one by one; more are named in spans.
_SPANS = 1000


def summary(record: Attribution, *, verbose: bool = False) -> str:
    """Target, strongest units, share of positions, residual and warnings."""
    return "\n".join(_lines(record, verbose))


def _lines(record: Attribution, verbose: bool) -> Iterator[str]:
    from palrp_onnx.render.wording import covered, notices, said

    yield f"{printable(record.id)}: {_target(record)}"
    if (other := said(record)) is not None:
        yield f"  predicted: {printable(other)}"
    for shown in record.maps:
        prefix = f"{printable(shown.input)}: " if record.others else ""
        yield f"  strongest: {prefix}{', '.join(_strongest(shown))}"
    yield f"  covered:   {covered(record)}"
    yield f"  positions: {record.position_share:.1%} of the map"
    yield f"  residual:  {record.residual:.1e} of the ledger"
    if verbose:
        entries = (f"{name} {amount:+.4g}" for name, amount in record.ledger.items())
        yield f"  ledger:    {', '.join(entries)}"
        times = (f"{name} {ms:.0f} ms" for name, ms in record.run.ms.items())
        yield f"  time:      {', '.join(times)}"
    for notice in notices(record):
        yield f"  {printable(notice)}"
    for warning in record.warnings:
        yield f"  warning[{warning.code}]: {printable(warning.message)}"


def _target(record: Attribution) -> str:
    from palrp_onnx.render.titles import title_of

    target = record.target
    if (
        target.kind in ("token", "place", "answer", "span", "region")
        or target.logprob
        or target.token
    ):
        return f"{printable(title_of(record))}: {target.output} {target.value:.4g}"
    chance = "" if target.probability is None else f", probability {target.probability:.3f}"
    return f"{_name(target)} = {target.value:.4g}{chance}"


def _name(target: TargetFacts) -> str:
    if target.vector is not None:
        place = "" if target.position is None else f"[{target.position}]"
        product = "·" if target.kind == "dot" else " cosine with "
        return f"{target.output}{place}{product}{printable(target.vector)}"
    name = target.output + _index(target.index, target.label)
    if target.against is not None:
        name += f" - {target.output}{_index(target.against, target.against_label)}"
    return f"{name} - mean of the rest" if target.rest else name


def _index(index: int | list[int] | None, label: str | None) -> str:
    indices = index if isinstance(index, list) else [index]
    inside = ",".join(map(str, indices))
    return f"[{inside}]" if label is None else f"[{inside}: {printable(label)}]"


def _strongest(shown: Map) -> list[str]:
    from palrp_onnx.render.timeline import in_cells

    shown, _ = in_cells(shown, _SPANS)
    total = shown.relevance.total
    order = sorted(range(len(total)), key=lambda i: -abs(total[i]))[:_TOP]
    return [f"{_unit(shown.units, i)} {total[i]:+.3g}" for i in order]


def _unit(units: Units, index: int) -> str:
    name = printable(units.name(index))
    if units.kind == "token":
        return f'"{name}"' if index < len(units.text) else name
    return f"patch {name}" if units.kind == "patch" and units.pictures == 1 else name
