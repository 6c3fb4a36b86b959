"""What commands over a data set share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click

from .options import FILE_PATH, together

report_options = together(
    click.option("-o", "place", type=FILE_PATH, metavar="FILE.json", help="Also write it as JSON."),
    click.option("--json", "as_json", is_flag=True, help="JSON instead of a table."),
)


def files_in(sources: tuple[Path, ...]) -> Iterator[Path]:
    """Files as given; of a folder, all of them by name."""
    for source in sources:
        if source.is_dir():
            yield from sorted(p for p in source.iterdir() if p.is_file())
        else:
            yield source


def progress(total: int, quiet: bool) -> Callable[[int], None]:
    """Says now and then how many files are done."""

    def tell(done: int) -> None:
        if not quiet and (done % 50 == 0 or done == total):
            click.echo(f"{done} of {total} files", err=True)

    return tell
