"""``palrp-onnx batch``: explain a data set, one line per record; a killed run can be resumed."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palrp_onnx.errors import CheckError, InputError, UsageError
from palrp_onnx.limits import Limit

from .command import command
from .options import (
    FILE_PATH,
    METHODS_HELP,
    MethodChoice,
    Reporting,
    Run,
    Words,
    cache_option,
    columns_option,
    example_option,
    explainer_options,
    fail_on_option,
    grouped,
    head_option,
    memory_option,
    method_options,
    model_argument,
    reporting_options,
    run_options,
    together,
    windows_option,
    words_options,
)
from .progress import duration, progress

if TYPE_CHECKING:
    from palrp_onnx.jobs.run import BatchOutcome, BatchPlan
    from palrp_onnx.jobs.settings import Settings
    from palrp_onnx.jobs.sources import Source
    from palrp_onnx.jobs.tally import Tally

_SOME_FAILED = 6


@dataclass(frozen=True)
class Request:
    """The options, as parsed."""

    model: Path
    source: Path
    place: Path
    resume: bool
    shard: str
    max_errors: int | None
    engine_workers: int | None
    workers: int
    batch_size: int
    batch_tokens: int
    part_size: int
    parquet: bool
    pictures: int
    words: Words
    windows: int | None
    columns: tuple[str, ...]
    example: Path | None
    memory: str
    run: Run
    choice: MethodChoice
    head: str | None
    limits: tuple[Limit, ...]
    reporting: Reporting


_at_least_one = click.IntRange(min=1)

_places = together(
    click.option(
        "--input",
        "source",
        type=FILE_PATH,
        required=True,
        metavar="FILE|DIR|-",
        help="Records: a .jsonl, .csv or .parquet file, a folder of texts, images, sounds and .npz "
        "files, or - for JSON lines on stdin.",
    ),
    click.option(
        "-o", "place", type=FILE_PATH, required=True, metavar="DIR", help="Folder for the parts."
    ),
    click.option("--resume", is_flag=True, help="Resume the batch in DIR; existing parts stay."),
    click.option(
        "--shard",
        default="1/1",
        metavar="i/n",
        help="Explain every n-th record, starting with the i-th; each shard needs its own DIR.",
    ),
    click.option(
        "--max-errors",
        type=click.IntRange(min=0),
        metavar="N",
        help="Stop after the part with which more than N records have failed in all.",
    ),
)

_sizes = together(
    click.option(
        "--engine-workers",
        type=_at_least_one,
        metavar="N",
        help="Explain a file of JSON lines with N actors on the Ray cluster at RAY_ADDRESS, by "
        "default on this machine. DIR gets explained.jsonl, whole or not at all.",
    ),
    click.option(
        "--workers",
        type=_at_least_one,
        default=1,
        show_default=True,
        help="Processes, each with its own session. One already uses all cores.",
    ),
    click.option(
        "--batch-size",
        type=_at_least_one,
        default=16,
        show_default=True,
        help="Largest number of records in one run of the model.",
    ),
    click.option(
        "--batch-tokens",
        type=_at_least_one,
        default=8192,
        show_default=True,
        help="Largest number of tokens in one run, padding included.",
    ),
    click.option(
        "--part-size",
        type=_at_least_one,
        default=256,
        show_default=True,
        help="Records per part; a part is written whole.",
    ),
    click.option("--parquet", is_flag=True, help="Also write every part as a Parquet file."),
    click.option(
        "--pictures",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="At the end, also draw the N records with the largest |target value|.",
    ),
)


@command(short_help="Explain a data set, one line of JSON a record.", epilog=METHODS_HELP)
@model_argument
@_places
@_sizes
@words_options
@windows_option
@columns_option
@run_options
@head_option
@memory_option("auto")
@cache_option
@method_options
@example_option
@fail_on_option
@reporting_options
@grouped(run=Run, choice=MethodChoice, words=Words, reporting=Reporting)
def batch(**options: Any) -> int:
    """Explain the output of MODEL for every record of a data set.

    DIR gets part-00000.jsonl, part-00001.jsonl, … in the order of the input, and manifest.json. For
    a record that cannot be explained there is a line with the error, and the exit code is 6; if a
    record fails a check of --fail-on, it is 5.
    """
    request = Request(**options)
    _check(request)
    if request.engine_workers:
        return _on_a_cluster(request, request.engine_workers)
    from palrp_onnx.jobs.run import run
    from palrp_onnx.jobs.sources import open_source

    click.get_current_context().find_root().obj.resumable = str(request.source) != "-"
    source = open_source(request.source, sys.stdin.buffer)
    settings, plan = _settings(request), _plan(request)
    start = time.monotonic()
    with progress(quiet=request.reporting.quiet) as bar:
        outcome = run(request.model, settings, source, plan, bar)
    if outcome.complete and not outcome.tally.records and request.shard == "1/1":
        raise InputError("The input holds no record", place=str(request.source))
    if outcome.complete and request.pictures:
        _draw(request, source, plan)
    if not request.reporting.quiet:
        click.echo(_summary(outcome, request.place, time.monotonic() - start), err=True)
    if not outcome.complete:
        return _SOME_FAILED
    return _exit_code(outcome.tally)


def _exit_code(tally: Tally) -> int:
    """The exit code of a complete run.

    Raises:
        CheckError: Records fail a check.
    """
    if tally.checks:
        counts = ", ".join(f"{check}: {count}" for check, count in sorted(tally.checks.items()))
        raise CheckError(f"Records fail a check of --fail-on ({counts})")
    return _SOME_FAILED if tally.failed else 0


def _on_a_cluster(request: Request, actors: int) -> int:
    """Explain with Ray, which repeats the work of a lost machine."""
    alone = (request.resume, request.shard != "1/1", request.parquet, request.pictures)
    if any(alone) or request.workers > 1 or request.source.suffix.lower() != ".jsonl":
        raise UsageError(
            "--engine-workers explains a whole .jsonl file, without --resume, --shard, --workers, "
            "--parquet and --pictures"
        )
    from palrp_onnx.files import make_folder
    from palrp_onnx.jobs.ray import explain_lines

    start = time.monotonic()
    make_folder(request.place)
    place = request.place / "explained.jsonl"
    tally = explain_lines(
        request.model.resolve(),
        _settings(_with_absolute_paths(request)),
        request.source,
        place,
        actors=actors,
        batch_size=request.batch_size,
        num_gpus=1.0 if request.run.device.startswith("cuda") else 0.0,
    )
    if not request.reporting.quiet:
        seconds = duration(time.monotonic() - start)
        click.echo(f"{_counts(tally)} in {seconds}; wrote {place}", err=True)
    return _exit_code(tally)


def _with_absolute_paths(request: Request) -> Request:
    """The request with absolute paths, as actors run in other folders."""
    tokenizer, example = request.words.tokenizer, request.example
    return replace(
        request,
        words=replace(request.words, tokenizer=tokenizer and tokenizer.absolute()),
        example=example and example.absolute(),
    )


def _check(request: Request) -> None:
    stream = str(request.source) == "-"
    if stream and request.pictures:
        raise UsageError(
            "--pictures reads the input once more, which stdin does not allow",
            hint="Give a file or a folder as --input.",
        )
    if not stream and os.path.realpath(request.source) == os.path.realpath(request.place):
        raise UsageError(
            "The folder for results is that of the input",
            place=str(request.place),
            hint="Choose another DIR for -o.",
        )


def _settings(request: Request) -> Settings:
    from palrp_onnx.jobs.settings import Settings

    return Settings(
        target=request.run.target,
        **explainer_options(request.run, request.choice),
        head=request.head,
        memory=request.memory,
        tokenizer=None if request.words.tokenizer is None else str(request.words.tokenizer),
        bind=request.words.bind,
        windows=request.windows,
        fail_on=tuple(map(str, request.limits)),
        columns=_columns(request),
        example=None if request.example is None else str(request.example),
        batch_size=request.batch_size,
        batch_tokens=request.batch_tokens,
    )


def _columns(request: Request) -> dict[str, tuple[str, ...]]:
    from palrp_onnx.inputs.columns import read_columns
    from palrp_onnx.model.open import Model

    if not request.columns:
        return {}
    return read_columns(request.columns, [each.name for each in Model.open(request.model).inputs])


def _plan(request: Request) -> BatchPlan:
    from palrp_onnx.jobs.run import BatchPlan
    from palrp_onnx.jobs.settings import Shard
    from palrp_onnx.jobs.tables import table_encoder

    return BatchPlan(
        folder=request.place,
        resume=request.resume,
        shard=Shard.parse(request.shard),
        part_size=request.part_size,
        workers=request.workers,
        max_errors=request.max_errors,
        table=table_encoder() if request.parquet else None,
    )


def _draw(request: Request, source: Source, plan: BatchPlan) -> None:
    from palrp_onnx.inputs import bind_inputs
    from palrp_onnx.jobs.pictures import draw
    from palrp_onnx.jobs.reading import SampleReader
    from palrp_onnx.model.open import Model

    inputs = bind_inputs(Model.open(request.model).inputs, request.words.bind)
    reader = SampleReader(request.model, inputs, request.words.tokenizer)
    draw(request.place, request.pictures, source, plan.shard, reader)


def _summary(outcome: BatchOutcome, place: Path, seconds: float) -> str:
    state = "" if outcome.complete else "stopped after too many errors: "
    other = f" ({outcome.ignored} other files ignored)" if outcome.ignored else ""
    counts = _counts(outcome.tally)
    return f"{state}{counts}{other} in {duration(seconds)}; wrote {place}"


def _counts(tally: Tally) -> str:
    """What there is of records, failed and truncated ones, unknown tokens and warnings."""
    found = {
        "failed": tally.failed,
        "truncated": tally.truncated,
        "unknown tokens": tally.unknown,
        **{f"warning:{code}": count for code, count in sorted(tally.warnings.items())},
    }
    said = (f", {count} {what}" for what, count in found.items() if count)
    return f"{tally.records} records{''.join(said)}"
