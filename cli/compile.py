"""``palrp-onnx compile``: a model → a model that also computes its explanation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

import click

from palrp_onnx.errors import UsageError
from palrp_onnx.files import Content, write_files
from palrp_onnx.relevance.methods import DEFAULT_METHOD

from .command import command
from .options import (
    FILE_PATH,
    METHODS_HELP,
    POSITIONS,
    MethodChoice,
    Reporting,
    example_option,
    grouped,
    method_options,
    model_argument,
    reporting_options,
)


@command(short_help="Write the explanation as an ONNX graph.", epilog=METHODS_HELP)
@model_argument
@click.option("-o", "destination", type=FILE_PATH, metavar="FILE.onnx", help="Output file.")
@click.option(
    "--triton",
    "triton",
    type=FILE_PATH,
    metavar="DIR",
    help="Write the graph to this model repository of Triton Inference Server, with or without -o.",
)
@method_options
@example_option
@click.option(
    "--memory",
    type=click.Choice(["fast", "bounded"]),
    default="fast",
    show_default=True,
    help="fast keeps all values of the forward pass for the way back, bounded computes them again "
    "layer by layer.",
)
@click.option("--portable", is_flag=True, help="Use only operations of the ONNX standard.")
@click.option(
    "--required-targets",
    is_flag=True,
    help="Give the inputs for targets no default, for runtimes that pass no input with one.",
)
@click.option("--no-ledger", is_flag=True, help="Leave out the ledger.")
@click.option("--features", is_flag=True, help="Also output sinks and content by feature.")
@reporting_options
@grouped(choice=MethodChoice, reporting=Reporting)
def compile(
    model: Path,
    destination: Path | None,
    triton: Path | None,
    choice: MethodChoice,
    example: Path | None,
    memory: str,
    portable: bool,
    required_targets: bool,
    no_ledger: bool,
    features: bool,
    reporting: Reporting,
) -> None:
    """Write one graph of MODEL and its relevance pass, which any ONNX Runtime can run.

    Outputs: those of MODEL, relevance_content, relevance_position, relevance_total (their sum) and
    relevance_score, by which METHOD ranks [B, units], relevance_sites [B, sites, units],
    relevance_off_map [B, sites] if places of sites belong to no unit (with a further column for
    sites that are on no map), relevance_ledger [B, entries]. Optional inputs:
    target, target_against and, for language models, target_position [B]; target_vector [B, D].
    """
    from palrp_onnx.compiler.file import compile_model
    from palrp_onnx.compiler.graph import CompileSettings

    if destination is None and triton is None:
        raise UsageError("No output is given", hint="Give -o FILE.onnx or --triton DIR.")
    if destination is not None and os.path.realpath(destination) == os.path.realpath(model):
        raise UsageError("The explainer would replace its model", place=str(destination))
    settings = CompileSettings(
        positions=choice.positions or POSITIONS[0],
        ledger=not no_ledger,
        features=features,
        portable=portable,
        required=required_targets,
        memory=memory,
    )
    data = compile_model(
        model,
        # A repository has copies of external data, so the explainer may be anywhere.
        destination or model,
        method=choice.method or DEFAULT_METHOD,
        output=choice.output,
        explain_input=choice.explain_input,
        roles=choice.roles,
        settings=settings,
        example=example,
    )
    files: dict[Path, Content] = {} if destination is None else {destination: data}
    if triton is not None:
        files |= _repository(data, model, triton)
    write_files(files)
    if not reporting.quiet:
        for place in files:
            click.echo(f"wrote {place}", err=True)


def _repository(data: bytes, model: Path, folder: Path) -> dict[Path, Content]:
    """Files of the repository; a model that is named ``model.onnx`` gets the name of its folder."""
    from palrp_onnx.compiler.triton import repository

    name = model.absolute().parent.name if model.stem == "model" else model.stem
    return {
        folder / place: content if isinstance(content, bytes) else _copy(content)
        for place, content in repository(data, name, model.resolve().parent).items()
    }


def _copy(source: Path) -> Content:
    def write(stream: BinaryIO) -> None:
        with source.open("rb") as original:
            shutil.copyfileobj(original, stream)

    return write
