"""What commands over a data set share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from .options import BASELINES, FILE_PATH, METHODS, together

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def inputs_option(what: str) -> Callable[[Decorated], Decorated]:
    """``--input``, of files of this kind."""
    return click.option(
        "--input",
        "sources",
        type=FILE_PATH,
        multiple=True,
        required=True,
        metavar="FILE|DIR",
        help=f"{what}; all files of a folder. Can be given several times.",
    )


methods_option = click.option(
    "--method",
    "methods",
    type=click.Choice((*METHODS, *BASELINES)),
    multiple=True,
    default=("pa-lrp", "attnlrp"),
    show_default=True,
    help="Held against each other. Can be given several times.",
)
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
