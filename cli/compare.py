"""``palrp-onnx compare``: compare two runs over the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palrp_onnx.files import to_json, write_files
from palrp_onnx.limits import AGREEMENT_METRICS, Limit, check_agreement
from palrp_onnx.printable import printable

from .command import command
from .options import FILE_PATH, Reporting, grouped, limits_option, reporting_options
from .showing import check_shown, open_option, show
from .writing import write_stdout

if TYPE_CHECKING:
    from palrp_onnx.evaluate.agreement import Agreement, Distribution, Pair, Side

_NAMED = 5


@command(short_help="Compare two runs over the same inputs.")
@click.argument("first", type=FILE_PATH, metavar="RUN_A")
@click.argument("second", type=FILE_PATH, metavar="RUN_B")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of units that count as the strongest of a map.",
)
@click.option(
    "--worst",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Number of pairs to list, those that agree least.",
)
@click.option(
    "-o",
    "place",
    type=FILE_PATH,
    metavar="FILE",
    help="Also write the result, as JSON (.json) or as a page with both maps of the listed pairs "
    "(.html).",
)
@open_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@limits_option(
    AGREEMENT_METRICS,
    "Exit with 5 if this holds, such as 'correlation<0.9'. Metrics, means over the pairs or "
    f"counts: {', '.join(AGREEMENT_METRICS)}. Can be given several times.",
)
@reporting_options
@grouped(reporting=Reporting)
def compare(
    first: Path,
    second: Path,
    top: int,
    worst: int,
    place: Path | None,
    opened: bool,
    as_json: bool,
    limits: tuple[Limit, ...],
    reporting: Reporting,
) -> None:
    """Compare two runs over the same inputs, for example of two models or of two months.

    A run is a .jsonl file with one record per line, a folder of these (part-*.jsonl, as `batch`
    writes them), or a folder of .json files with one record each. Records are matched by id. If
    tokens differ, maps are compared word by word.
    """
    del reporting  # there is nothing to report besides the result; the program reads -v
    from palrp_onnx.evaluate.agreement import survey
    from palrp_onnx.evaluate.agreement_page import render_agreement
    from palrp_onnx.evaluate.pairing import Pairs

    if opened:
        check_shown([] if place is None else [place.suffix.lower()[1:]])
    full = survey(Pairs(first, second), top=top, worst=worst)
    found = full.agreement
    data = to_json(found)
    if place is not None:
        title = f"{first.name or first} and {second.name or second}"
        shown = place.suffix.lower() in (".html", ".htm")
        write_files({place: render_agreement(title, full) if shown else data})
        if opened:
            show([place])
    write_stdout(data if as_json else _table(found).encode())
    check_agreement(limits, found)


def _table(found: Agreement) -> str:
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Agreement) -> Iterator[str]:
    bases = ", ".join(f"{count} by {name}" for name, count in found.bases.items())
    yield f"{found.compared} pairs compared ({bases})"
    for name, side in (("RUN_A", found.a), ("RUN_B", found.b)):
        yield from _side(name, side)
    if found.incomparable:
        first = found.incomparable[0]
        ids = _ids([each.id for each in found.incomparable])
        yield f"not comparable: {ids}: {printable(first.reason)}"
    yield ""
    yield f"{'same target':24}{found.same_target:10.1%}"
    yield f"{'':24}{'mean':>10}{'25 %':>10}{'50 %':>10}{'75 %':>10}{'least':>10}"
    yield _row("rank correlation", found.correlation)
    yield _row("Pearson correlation", found.pearson)
    yield _row(f"overlap of the top {found.top}", found.overlap)
    yield _row("position share, B − A", found.position_share)
    if found.worst:
        yield ""
        yield "agree least"
        yield from map(_worst, found.worst)


def _side(name: str, side: Side) -> Iterator[str]:
    models = ", ".join(model[:12] for model in side.models)
    yield f"{name}: model {models}, {', '.join(map(printable, side.methods))}"
    if side.only:
        yield f"  only here: {_ids(side.only)}"
    if side.failed:
        yield f"  failed: {_ids(side.failed)}"


def _ids(ids: list[str]) -> str:
    more = ", …" if len(ids) > _NAMED else ""
    return f"{len(ids)} ({', '.join(map(printable, ids[:_NAMED]))}{more})"


def _row(name: str, numbers: Distribution) -> str:
    cells = [numbers.mean, *(numbers.quartiles or [None] * 3), numbers.least]
    return f"{name:24}" + "".join(f"{_number(cell):>10}" for cell in cells)


def _worst(pair: Pair) -> str:
    target = "same target" if pair.same_target else "another target"
    correlation = _number(pair.correlation)
    return f"  {printable(pair.id):24}{correlation:>10}  overlap {pair.overlap:.2f}, {target}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
