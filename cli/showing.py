"""Maps for people at a terminal: in its colours, or in a window (``--open``)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palrp_onnx.errors import ResourceError

if TYPE_CHECKING:
    from rich.console import Console

    from palrp_onnx.record import Attribution

#: Suffixes of what can be looked at, the best first.
SHOWN = (".html", ".png")


def show(files: Iterable[Path]) -> None:
    """Show the first page among the files, or else the first picture.

    Raises:
        ResourceError: The system has no program for it.
    """
    candidates = [each for each in files if each.suffix.lower() in SHOWN]
    chosen = min(candidates, key=lambda each: SHOWN.index(each.suffix.lower()))
    # Only xdg-open, on Linux, returns at once with a result.
    if click.launch(str(chosen), wait=sys.platform == "linux") != 0:
        raise ResourceError(
            "No program of this system shows the file",
            place=str(chosen),
            hint="The file is written; open it by hand.",
        )


def colours_of_stdout() -> Console | None:
    """The terminal that stdout is, if it shows colours.

    One that says that it has 16 gets 256: of 16, none is a light red or blue.
    """
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    console = Console()
    if console.no_color or console.color_system is None:
        return None
    return Console(color_system="256") if console.color_system == "standard" else console


def coloured_maps(console: Console, records: Sequence[Attribution]) -> bytes:
    """The maps as coloured text."""
    from palrp_onnx.render.coloured import coloured

    with console.capture() as captured:
        for record in records:
            console.print(coloured(record))
    return captured.get().encode()
