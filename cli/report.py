"""``palrp-onnx report``: a whole run in one page."""

from __future__ import annotations

from pathlib import Path

import click

from palrp_onnx.errors import UsageError
from palrp_onnx.files import write_files

from .options import FILE_PATH, Reporting, grouped, reporting_options


@click.command(short_help="Show a run of records in one HTML page.")
@click.argument("run", type=FILE_PATH, metavar="RUN_DIR|FILE.jsonl")
@click.option("-o", "place", type=FILE_PATH, required=True, metavar="FILE", help="The page.")
@click.option(
    "--room",
    type=click.IntRange(min=1),
    metavar="MIB",
    default=64,
    show_default=True,
    help="Maps in the page, packed. Records beyond it are listed without their maps.",
)
@reporting_options
@grouped(reporting=Reporting)
def report(run: Path, place: Path, room: int, reporting: Reporting) -> None:
    """Show the records of a run in one HTML page that needs nothing else.

    RUN_DIR is a folder with .jsonl files, one record a line. All records are listed, failed ones
    and lines that are no record as such.
    """
    from palrp_onnx.render.listing import read_run, render_run

    if place.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {place}: a report is written as .html")
    page = render_run(run.name or str(run), read_run(run), room=room)
    write_files({place: page.html})
    if reporting.quiet:
        return
    click.echo(f"{page.records} records, {page.failed} failed", err=True)
    if without := page.records - page.failed - page.packed:
        click.echo(f"  {without} are listed without their maps, which --room leaves out", err=True)
    click.echo(f"  wrote {place}", err=True)
