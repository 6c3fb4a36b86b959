"""``palrp-onnx report``: a whole run as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palrp_onnx.errors import UsageError
from palrp_onnx.files import write_files

from .command import command
from .options import FILE_PATH, Reporting, grouped, reporting_options
from .progress import Progress, progress
from .showing import open_option, show

if TYPE_CHECKING:
    from palrp_onnx.render.run_lines import ListedRecord


@command(short_help="Show a run of records in one HTML page.")
@click.argument("runs", type=FILE_PATH, metavar="RUN_DIR|FILE.jsonl…", nargs=-1, required=True)
@click.option(
    "-o", "place", type=FILE_PATH, required=True, metavar="FILE", help="The page to write."
)
@click.option(
    "--room",
    type=click.IntRange(min=1),
    metavar="MIB",
    default=64,
    show_default=True,
    help="Largest size of packed maps in the page. Further records are listed without maps.",
)
@open_option
@reporting_options
@grouped(reporting=Reporting)
def report(
    runs: tuple[Path, ...], place: Path, room: int, opened: bool, reporting: Reporting
) -> None:
    """Show the records of a run in one self-contained HTML page.

    RUN_DIR is a folder with .jsonl files, one record per line. All lines are listed, including
    failed records and lines that are not records. Several runs, such as the shards of one, are
    listed one after the other. Two to four records of one input, such as those of several methods,
    are shown side by side.
    """
    from palrp_onnx.render.beside import render_entries
    from palrp_onnx.render.run_lines import read_runs

    if place.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {place}: a report has the suffix .html")
    title = ", ".join(run.name or str(run) for run in runs)
    with progress(quiet=reporting.quiet, what="reading") as bar:
        page = render_entries(title, _counted(read_runs(runs), bar), room=room)
    write_files({place: page.html})
    if opened:
        show([place])
    if reporting.quiet:
        return
    click.echo(f"{page.records} records, {page.failed} failed", err=True)
    if without := page.records - page.failed - page.packed:
        click.echo(f"  {without} are listed without their maps, which --room leaves out", err=True)
    click.echo(f"  wrote {place}", err=True)


def _counted(entries: Iterator[ListedRecord], bar: Progress) -> Iterator[ListedRecord]:
    bar.start(None)
    for entry in entries:
        yield entry
        bar.advance(1)
