"""``palrp-onnx serve``: models as a service, each with its explanation beside its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palrp_onnx.limits import METRIC_NAMES, RECORD_METRICS, Limit

from .command import command
from .options import (
    FILE_PATH,
    METHOD,
    METHODS_HELP,
    MethodChoice,
    Reporting,
    Run,
    Words,
    example_option,
    explainer_options,
    grouped,
    head_option,
    limits_option,
    memory_option,
    method_options,
    reporting_options,
    run_options,
    together,
    windows_option,
    words_options,
)

if TYPE_CHECKING:
    from palrp_onnx.serving import ServingOptions


@dataclass(frozen=True)
class Request:
    """The options, as parsed."""

    models: tuple[str, ...]
    host: str
    port: int
    workers: int
    batch_size: int
    batch_tokens: int
    queue: int
    max_rows: int
    max_tokens: int
    max_body: int
    timeout: float
    reload: float
    api_keys: Path | None
    log_texts: bool
    offered: tuple[str, ...]
    windows: int | None
    example: Path | None
    limits: tuple[Limit, ...]
    memory: str
    head: str | None
    run: Run
    choice: MethodChoice
    words: Words
    reporting: Reporting


_at_least_one = click.IntRange(min=1)


def _number(
    name: str, default: float, help: str, kind: click.IntRange | click.FloatRange = _at_least_one
) -> Any:
    return click.option(name, type=kind, default=default, show_default=True, help=help)


_server = together(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at."),
    _number("--port", 8080, "Port to listen at; 0: a free one.", click.IntRange(0, 65535)),
    _number("--workers", 1, "Processes, each with models of its own. One already uses all cores."),
    _number(
        "--reload",
        5.0,
        "Seconds from one look at the files to the next; a model whose digest has changed is "
        "opened again. 0: never.",
        click.FloatRange(min=0),
    ),
    click.option(
        "--api-keys",
        type=FILE_PATH,
        metavar="FILE",
        help="Keys, one a line; a request needs one of them.",
    ),
    click.option("--log-texts", is_flag=True, help="Log messages of errors, which may have texts."),
)
_sizes = together(
    _number("--batch-size", 16, "Largest number of rows in one run of a model."),
    _number("--batch-tokens", 8192, "Largest number of tokens in one run, padding included."),
    _number("--queue", 256, "Largest number of rows of a model that wait or run."),
    _number("--max-rows", 64, "Largest number of rows in a request."),
    _number("--max-tokens", 8192, "Largest number of tokens of a row."),
    _number("--max-body", 8 << 20, "Largest number of bytes of a request."),
    _number(
        "--timeout",
        30.0,
        "Seconds within which a request is answered.",
        click.FloatRange(min=0, min_open=True),
    ),
)
_fail_on = limits_option(
    RECORD_METRICS,
    "Answer with an error if this holds, such as 'residual>1e-3'. Metrics: "
    f"{', '.join(METRIC_NAMES)}. Can be given several times.",
)


@command(short_help="Serve models and their explanations.", epilog=METHODS_HELP)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL…")
@_server
@_sizes
@words_options
@windows_option
@run_options
@head_option
@memory_option("auto")
@method_options
@click.option(
    "--offer",
    "offered",
    multiple=True,
    metavar=METHOD,
    help="A further method that requests may name. Can be given several times.",
)
@example_option
@_fail_on
@reporting_options
@grouped(run=Run, choice=MethodChoice, words=Words, reporting=Reporting)
def serve(**options: Any) -> None:
    """Serve every MODEL over HTTP: its outputs, and explanations of them.

    A model has the name of its file, or of its folder where the file is model.onnx. Protocols are
    KServe's V1 and the Open Inference Protocol V2; / is a page that shows them. Logs are JSON
    lines on stderr. SIGTERM ends the server when what was accepted is answered.
    """
    request = Request(**options)
    found = _options(request)
    from palrp_onnx.serving.server import serve as run

    run(found, host=request.host, port=request.port, workers=request.workers)


def _options(request: Request) -> ServingOptions:
    from palrp_onnx.relevance.methods import DEFAULT_METHOD
    from palrp_onnx.serving import ServingOptions, places

    loading = explainer_options(request.run, request.choice)
    method, positions = loading.pop("method"), loading.pop("positions")
    words = request.words.tokenizer
    return ServingOptions(
        models=places(request.models),
        loading={
            **loading,
            "head": request.head,
            "memory": request.memory,
            "tokenizer": None if words is None else str(words.absolute()),
            "bind": request.words.bind,
        },
        methods=tuple(dict.fromkeys((method or DEFAULT_METHOD, *request.offered))),
        positions=positions,
        target=request.run.target,
        windows=request.windows,
        fail_on=tuple(map(str, request.limits)),
        example=None if request.example is None else str(request.example.absolute()),
        batch_size=request.batch_size,
        batch_tokens=request.batch_tokens,
        queue=request.queue,
        max_rows=request.max_rows,
        max_tokens=request.max_tokens,
        max_body=request.max_body,
        timeout=request.timeout,
        reload=request.reload,
        api_keys=None if request.api_keys is None else str(request.api_keys.absolute()),
        log_texts=request.log_texts,
    )
