"""``palrp-onnx inspect``: the result of the analysis of a model, without an explanation."""

from __future__ import annotations

from pathlib import Path

import click

from palrp_onnx.files import to_json

from .command import command
from .options import (
    Reporting,
    example_option,
    grouped,
    model_argument,
    output_option,
    reporting_options,
    role_option,
)
from .writing import write_stdout


@command(short_help="Show roles, position sites, rules and the verdict for a model.")
@model_argument
@output_option
@role_option
@example_option
@click.option(
    "--why",
    multiple=True,
    metavar="NAME",
    help="Show the roles of a value and their reasons. Can be given several times.",
)
@click.option("--values", is_flag=True, help="List the names that --why and --output may have.")
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also forecast the memory that an explanation of N tokens takes.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
@reporting_options
@grouped(reporting=Reporting)
def inspect(
    model: Path,
    output: str | None,
    roles: dict[str, str],
    example: Path | None,
    why: tuple[str, ...],
    values: bool,
    tokens: int | None,
    as_json: bool,
    reporting: Reporting,
) -> None:
    """Show inputs, position sites and operations of MODEL, and whether it can be explained."""
    del reporting  # there is nothing to report besides the result; the program reads -v
    from palrp_onnx.api.loaded import load

    loaded = load(model, output=output, roles=roles)
    inspection = loaded.inspect(why=why, values=values, example=example, tokens=tokens)
    if as_json:
        write_stdout(to_json(inspection))
        return
    from rich.console import Console

    from palrp_onnx.render.terminal import inspection_table

    console = Console()
    with console.capture() as captured:
        console.print(inspection_table(inspection))
    write_stdout(captured.get().encode())
