"""Maps for people at a terminal: in its colours, or in a window (``--open``)."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palrp_onnx.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from palrp_onnx.record import Attribution

#: Kinds of files that can be looked at, the best first.
_SHOWN = ("html", "htm", "svg", "png")

open_option = click.option(
    "--open", "opened", is_flag=True, help="Show the page, or else the picture, that is written."
)


def check_shown(kinds: Collection[str]) -> None:
    """Check before the work that there will be something to look at.

    Raises:
        UsageError: Neither a page nor a picture is among the kinds of files that will be written.
    """
    if not set(_SHOWN) & set(kinds):
        raise UsageError(
            "--open shows a page or a picture, and none is written", hint="Give -o FILE.html."
        )


def show(files: Iterable[Path]) -> None:
    """Show the first page among the files, or else the first picture.

    Raises:
        ResourceError: The system has no program for it.
    """
    kinds = {each: each.suffix.lower()[1:] for each in files}
    chosen = min(
        (f for f, kind in kinds.items() if kind in _SHOWN), key=lambda f: _SHOWN.index(kinds[f])
    )
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
