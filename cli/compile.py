"""``palrp-onnx compile``: a model → a model that explains itself."""

from __future__ import annotations

from pathlib import Path

import click

from .options import (
    FILE_PATH,
    METHODS,
    POSITIONS,
    method_options,
    model_argument,
    reporting_options,
)
from .writing import write_files


@click.command(short_help="Write the explanation as an ONNX graph.")
@model_argument
@click.option(
    "-o", "destination", type=FILE_PATH, required=True, metavar="FILE.onnx", help="Output file."
)
@method_options
@click.option("--portable", is_flag=True, help="Operations of the ONNX standard only.")
@click.option("--no-ledger", is_flag=True, help="Leave the account out.")
@click.option("--features", is_flag=True, help="Sinks and content feature by feature as well.")
@reporting_options
def compile(
    model: Path,
    destination: Path,
    output_name: str | None,
    explain_input: str | None,
    method: str | None,
    positions: str | None,
    roles: dict[str, str],
    portable: bool,
    no_ledger: bool,
    features: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Write MODEL with its relevance pass behind it: one graph that any ONNX Runtime runs.

    Outputs: those of MODEL, relevance_content, relevance_position, relevance_total [B, units],
    relevance_sites [B, sites, units], relevance_ledger [B, entries]. Inputs that may be left out:
    target, target_against and, for language models, target_position [B].
    """
    del verbose  # read by the program
    from palrp_onnx.compiler import Settings
    from palrp_onnx.compiling import compile_model

    settings = Settings(
        positions=positions or POSITIONS[0],
        ledger=not no_ledger,
        features=features,
        portable=portable,
    )
    data = compile_model(
        model,
        destination,
        method=method or METHODS[0],
        output=output_name,
        explain_input=explain_input,
        roles=roles,
        settings=settings,
    )
    write_files({destination: data})
    if not quiet:
        click.echo(f"wrote {destination} ({len(data) / 2**20:.1f} MiB)", err=True)
