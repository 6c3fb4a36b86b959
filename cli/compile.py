"""``palrp-onnx compile``: a model → a model that also computes its explanation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
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
    Words,
    example_option,
    grouped,
    memory_option,
    method_options,
    model_argument,
    reporting_options,
    words_options,
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
@click.option(
    "--web",
    "web",
    type=FILE_PATH,
    metavar="DIR",
    help="Write a page that explains in the visitor's browser to this folder, with or without -o.",
)
@click.option(
    "--web-runtime",
    "runtime",
    type=FILE_PATH,
    default=Path("node_modules"),
    show_default=True,
    metavar="DIR",
    help="Folder of npm with what the page runs on.",
)
@words_options
@method_options
@example_option
@memory_option("fast")
@click.option("--portable", is_flag=True, help="Use only operations of the ONNX standard.")
@click.option(
    "--required-targets",
    is_flag=True,
    help="Give the inputs for targets no default, for runtimes that pass no input with one.",
)
@click.option("--no-ledger", is_flag=True, help="Leave out the ledger.")
@click.option("--features", is_flag=True, help="Also output sinks and content by feature.")
@reporting_options
@grouped(words=Words, choice=MethodChoice, reporting=Reporting)
def compile(
    model: Path,
    destination: Path | None,
    triton: Path | None,
    web: Path | None,
    runtime: Path,
    words: Words,
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

    if destination is None and triton is None and web is None:
        raise UsageError("No output is given", hint="Give -o FILE.onnx, --triton DIR or --web DIR.")
    if web is None and (words.tokenizer is not None or words.bind):
        raise UsageError(
            "Only pages read texts", hint="Give --web DIR with --tokenizer and --bind."
        )
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
    compiled = partial(
        compile_model,
        model,
        # Repositories and pages have copies of external data, so the explainer may be anywhere.
        destination or model,
        method=choice.method or DEFAULT_METHOD,
        output=choice.output,
        explain_input=choice.explain_input,
        roles=choice.roles,
        example=example,
    )
    files: dict[Path, Content] = {}
    if destination is not None or triton is not None:
        data = compiled(settings=settings)
        files |= {} if destination is None else {destination: data}
        files |= {} if triton is None else _repository(data, model, triton)
    if web is not None:
        data = compiled(settings=replace(settings, required=True))
        files |= _in_folder(_site(data, model, runtime, words), web)
    write_files(files)
    if not reporting.quiet:
        for place in files:
            if web is None or web not in place.parents or place.name == "index.html":
                click.echo(f"wrote {place}", err=True)


def _repository(data: bytes, model: Path, folder: Path) -> dict[Path, Content]:
    """Files of the repository; a model that is named ``model.onnx`` gets the name of its folder."""
    from palrp_onnx.compiler.triton import repository

    name = model.absolute().parent.name if model.stem == "model" else model.stem
    return _in_folder(repository(data, name, model.resolve().parent), folder)


def _site(data: bytes, model: Path, runtime: Path, words: Words) -> dict[Path, bytes | Path]:
    from palrp_onnx.web.site import site

    return site(data, model, runtime, tokenizer=words.tokenizer, bind=words.bind)


def _in_folder(files: Mapping[Path, bytes | Path], folder: Path) -> dict[Path, Content]:
    """Contents by their place in a folder; a path is a file to copy."""
    return {
        folder / place: content if isinstance(content, bytes) else _copy(content)
        for place, content in files.items()
    }


def _copy(source: Path) -> Content:
    def write(stream: BinaryIO) -> None:
        with source.open("rb") as original:
            shutil.copyfileobj(original, stream)

    return write
