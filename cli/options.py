"""Options that mean the same in every command, and the objects that they are parsed to."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from palrp_onnx.limits import RECORD_METRICS, Limit
from palrp_onnx.relevance.method_parsing import method
from palrp_onnx.relevance.methods import BASELINES, DEFAULT_METHOD, METHODS, lines_of

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

#: A path as given; whether it can be used is for the library to say.
FILE_PATH = click.Path(path_type=Path)

FORMATS = ("json", "png", "html", "kserve")
METHOD = "NAME[:PARAMETER=NUMBER,…]"
ENGINES = ("onnxruntime", "numpy")
POSITIONS = ("relu", "abs", "signed", "single-sink")


@dataclass(frozen=True)
class Run:
    """What is explained, computed how and where."""

    target: str
    engine: str | None
    dtype: str
    device: str


@dataclass(frozen=True)
class Asked:
    """Which relevance, of which output and for which input."""

    output: str | None
    explain_input: str | None
    method: str | None
    positions: str | None
    roles: dict[str, str]


@dataclass(frozen=True)
class Reporting:
    """How much is said on stderr."""

    quiet: bool
    verbose: bool


def explainer_options(run: Run, asked: Asked) -> dict[str, Any]:
    """Options as :class:`palrp_onnx.Explainer` takes them."""
    return {"engine": run.engine, "dtype": run.dtype, "device": run.device, **vars(asked)}


def grouped(**kinds: type) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """The command gets parsed options as objects: ``run=Run`` is one of all fields of `Run`."""

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        @wraps(command)
        def call(**given: Any) -> T:
            for name, kind in kinds.items():
                given[name] = kind(**{each.name: given.pop(each.name) for each in fields(kind)})
            return command(**given)

        return call

    return decorate


def device(text: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:N``."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise click.BadParameter(f"{text!r} is not cpu, cuda or cuda:N")
    return text


def formats(text: str) -> tuple[str, ...]:
    """A list of formats, separated by commas."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [each for each in found if each not in FORMATS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}")
    return found


def model_argument(command: F) -> F:
    """MODEL: the ``.onnx`` file."""
    return click.argument("model", type=FILE_PATH)(command)


def reporting_options(command: F) -> F:
    """``-q`` and ``-v``."""
    command = click.option(
        "-v",
        "--verbose",
        is_flag=True,
        callback=_remember_verbose,
        help="Say more; show the traceback of an unexpected error.",
    )(command)
    return click.option("-q", "--quiet", is_flag=True, help="No summary on stderr.")(command)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


output_option = click.option(
    "--output",
    metavar="NAME",
    help="Graph output that holds the target, or a value inside the graph.",
)


def roles(texts: tuple[str, ...]) -> dict[str, str]:
    """``NAME=ROLE`` pairs."""
    found = {}
    for text in texts:
        name, equals, role = text.rpartition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=ROLE")
        found[name] = role
    return found


role_option = click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="NAME=ROLE",
    callback=lambda _ctx, _param, texts: roles(texts),
    help="Role of an input, or of a value that is no content: content, position, segment, mask or "
    "parameter. Can be given several times.",
)

tokenizer_option = click.option(
    "--tokenizer", type=FILE_PATH, help="tokenizer.json, where it is not beside the model."
)

example_option = click.option(
    "--example",
    type=FILE_PATH,
    metavar="FILE.npz",
    help="Arrays that the model takes, one for each graph input: for models that run on none that "
    "are made up from the graph. Their shapes serve where the graph leaves lengths open.",
)


def _below(heading: str, *lines: str) -> str:
    """Lines that click shows as they are."""
    return "\n".join(("\b", heading, *(f"  {line}" for line in lines)))


#: What is below the options where one method is asked for, and where baselines are, too.
METHODS_HELP = _below("Methods:", *lines_of(METHODS))
COMPETITORS_HELP = f"{METHODS_HELP}\n\n{_below('Baselines:', *lines_of(BASELINES))}"

#: Which relevance, of which output and for which input.
method_options = together(
    output_option,
    click.option(
        "--explain-input",
        metavar="NAME",
        help="Graph input the record is about, where there are several.",
    ),
    click.option(
        "--method",
        metavar=METHOD,
        callback=lambda _ctx, _param, text: None if text is None else method(text).text,
        show_default=DEFAULT_METHOD,
        help="One of those below, with numbers of its own as in pa-lrp-gamma:gamma=0.1.",
    ),
    click.option(
        "--positions",
        type=click.Choice(POSITIONS),
        show_default=POSITIONS[0],
        help="How the relevance of positions becomes one number a unit.",
    ),
    role_option,
)

#: What is explained, computed how and where.
run_options = together(
    click.option(
        "--target",
        default="pred",
        show_default=True,
        metavar="TARGET",
        help="pred, an index, a label, A-B (contrast), token:POS[:ID], an element I,J,…, or "
        "dot:FILE.npy or cos:FILE.npy (product with a vector); index:2 or label:2 where a text can "
        "be read as both.",
    ),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        show_default=f"{ENGINES[0]}; numpy for float64",
        help="Forward and relevance compiled into one graph, or the walk in NumPy.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float64"]),
        default="float32",
        show_default=True,
    ),
    click.option(
        "--device",
        type=device,
        default="cpu",
        show_default=True,
        metavar="cpu|cuda[:N]",
        help="Where the forward pass runs; asking for cuda and not getting it is an error.",
    ),
)


def limits_option(metrics: Collection[str], help: str) -> Callable[[F], F]:
    """``--fail-on``, of these metrics."""

    def parse(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[Limit, ...]:
        try:
            return tuple(Limit.parse(text, metrics) for text in texts)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return click.option(
        "--fail-on", "limits", multiple=True, callback=parse, metavar="CHECK", help=help
    )


fail_on_option = limits_option(
    RECORD_METRICS,
    "Exit with 5 where this holds, such as 'residual>1e-3'. Metrics: "
    f"{', '.join(RECORD_METRICS)}. Files are written all the same. Can be given several times.",
)


def _remember_verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    """Tell the program, which reports errors after the command's context is gone."""
    state = ctx.find_root().obj
    if value and state is not None:
        state.verbose = True
    return value
