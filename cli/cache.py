"""``palrp-onnx cache``: what is kept of models that were explained before."""

from __future__ import annotations

import click

from .command import Group
from .writing import write_stdout


@click.group(cls=Group, short_help="Show or clear what is kept of models.")
def cache() -> None:
    """Facts of models and compiled graphs, kept so that the next start is faster."""


@cache.command()
def show() -> None:
    """Print the folder, and the number and bytes of its entries."""
    from palrp_onnx.cache.folder import LIMIT, CacheFolder
    from palrp_onnx.errors import OutputError

    if (folder := CacheFolder.of_user()) is None:
        click.echo("nothing is kept: the user has no folder", err=True)
        return
    try:
        held = folder.held()
    except OSError as error:
        raise OutputError(
            "The cache is not used", place=str(folder.path), hint=str(error)
        ) from error
    size = sum(each.size for each in held)
    lines = (
        f"folder   {folder.path}",
        f"entries  {len(held)}",
        f"bytes    {size} of at most {LIMIT}",
    )
    write_stdout("".join(f"{line}\n" for line in lines).encode())


@cache.command()
def clear() -> None:
    """Remove all entries."""
    from palrp_onnx.cache.folder import CacheFolder
    from palrp_onnx.errors import OutputError

    if (folder := CacheFolder.of_user()) is None:
        return
    try:
        held = folder.clear()
    except OSError as error:
        raise OutputError(
            "The cache cannot be cleared", place=str(folder.path), hint=str(error)
        ) from error
    size = sum(each.size for each in held)
    click.echo(f"removed {len(held)} entries, {size} bytes, from {folder.path}", err=True)
