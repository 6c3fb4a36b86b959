"""``palrp-onnx inspect``: what the analysis finds in a model, before anything is explained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import model_argument, output_option, reporting_options, role_option
from .writing import write_stdout

if TYPE_CHECKING:
    from rich.table import Table

    from palrp_onnx.inspection import Uncertain


@click.command(short_help="Show roles, position sites, rules and the verdict for a model.")
@model_argument
@output_option
@role_option
@click.option(
    "--why", multiple=True, metavar="NAME", help="Tell what a value is, and why. Can be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
@reporting_options
def inspect(
    model: Path,
    output_name: str | None,
    roles: dict[str, str],
    why: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Show what MODEL is made of, and whether it can be explained."""
    del quiet, verbose  # the result is all there is to say; -v is read by the program
    from palrp_onnx.graph.model import Model
    from palrp_onnx.inspection import inspect as inspect_model

    inspection = inspect_model(Model.open(model), output=output_name, roles=roles, why=why)
    if as_json:
        import msgspec

        write_stdout(msgspec.json.format(msgspec.json.encode(inspection), indent=2) + b"\n")
        return
    from rich.console import Console

    from palrp_onnx.render.terminal import inspection_table

    console = Console()
    with console.capture() as captured:
        console.print(inspection_table(inspection))
        if inspection.uncertain:
            console.print(_doubts(inspection.uncertain))
    write_stdout(captured.get().encode())


def _doubts(uncertain: Sequence[Uncertain]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="In doubt", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("value", "taken for", "but", "otherwise say"):
        table.add_column(column, overflow="fold")
    for item in uncertain:
        table.add_row(Text(item.name), item.role, Text(item.doubt), Text(f"--role {item.say}"))
    return table
