"""Options that mean the same in every command, and the objects that they are parsed to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from palrp_onnx.heads import HEADS
from palrp_onnx.limits import METRIC_NAMES, RECORD_METRICS, Limit
from palrp_onnx.relevance.methods import BASELINES, DEFAULT_METHOD, METHODS, lines_of

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

#: A path as given; the library checks whether it can be used.
FILE_PATH = click.Path(path_type=Path)

FORMATS = ("json", "png", "svg", "html", "kserve")
METHOD = "NAME[:PARAMETER=NUMBER,…]"
ENGINES = ("onnxruntime", "numpy")
POSITIONS = ("relu", "abs", "signed", "single-sink")


@dataclass(frozen=True)
class Run:
    """The target, and how and where it is computed."""

    target: str
    engine: str | None
    dtype: str
    device: str


@dataclass(frozen=True)
class MethodChoice:
    """The method with its options, and the output and input that it explains."""

    output: str | None
    explain_input: tuple[str, ...]
    method: str | None
    positions: str | None
    roles: dict[str, str]


@dataclass(frozen=True)
class Words:
    """How a text becomes arrays."""

    tokenizer: Path | None
    bind: dict[str, str]


@dataclass(frozen=True)
class Reporting:
    """How much is printed on stderr."""

    quiet: bool
    verbose: bool


def explainer_options(run: Run, choice: MethodChoice) -> dict[str, Any]:
    """Keyword arguments of :class:`palrp_onnx.Explainer`."""
    return {"engine": run.engine, "dtype": run.dtype, "device": run.device, **vars(choice)}


def grouped(**kinds: type) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Pass options to the command as objects: ``run=Run`` collects all fields of `Run`."""

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
    """MODEL: the ``.onnx`` file, or a folder with a single one."""

    @wraps(command)
    def call(*, model: Path, **given: Any) -> Any:
        from palrp_onnx.model.locate import model_file

        return command(model=model_file(model), **given)  # before anything slow is imported

    argument = click.argument("model", type=FILE_PATH)
    return argument(call)  # type: ignore[return-value]


def reporting_options(command: F) -> F:
    """``-q`` and ``-v``."""
    command = click.option(
        "-v",
        "--verbose",
        is_flag=True,
        callback=_remember_verbose,
        help="Print more; show the traceback of an unexpected error.",
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
    help="Graph output to explain, or a value inside the graph.",
)


def pairs(texts: tuple[str, ...], form: str) -> dict[str, str]:
    """``NAME=SOMETHING`` pairs."""
    found = {}
    for text in texts:
        name, equals, role = text.rpartition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not {form}")
        found[name] = role
    return found


def _pairs_option(*names: str, form: str, help: str) -> Callable[[F], F]:
    """An option for pairs that can be given several times."""
    return click.option(
        *names,
        multiple=True,
        metavar=form,
        callback=lambda _ctx, _param, texts: pairs(texts, form),
        help=f"{help} Can be given several times.",
    )


role_option = _pairs_option(
    "--role",
    "roles",
    form="NAME=ROLE",
    help="Override the role of an input, or of a value without content: content, position, "
    "segment, mask or parameter.",
)

#: Options of `Words`.
words_options = together(
    click.option(
        "--tokenizer",
        type=FILE_PATH,
        metavar="FILE|DIR",
        help="tokenizer.json, vocab.txt, or vocab.json with merges.txt, or a folder with one of "
        "them, if it is neither in the folder of the model nor one folder up.",
    ),
    _pairs_option(
        "--bind",
        form="NAME=WHAT",
        help="What an input of the graph receives of a text, where that is open: ids, mask, types "
        "or positions.",
    ),
)

windows_option = click.option(
    "--windows",
    type=click.IntRange(min=-1),
    is_flag=False,
    flag_value="-1",
    metavar="[N]",
    help="Explain a text that is longer than the model in windows that share N tokens, by default "
    "half of each.",
)
columns_option = click.option(
    "--columns",
    multiple=True,
    metavar="NAMES|INPUT=NAMES",
    help="Names of the columns of a table, nodes or steps, in their order: a file with one a line, "
    "or names separated by commas.",
)

example_option = click.option(
    "--example",
    type=FILE_PATH,
    metavar="FILE.npz",
    help="A valid input, one array for each graph input, for models that do not run on a synthetic "
    "one. Its shapes are used for lengths that the graph leaves open.",
)


def _below(heading: str, *lines: str) -> str:
    """A paragraph that click does not rewrap."""
    return "\n".join(("\b", heading, *(f"  {line}" for line in lines)))


#: Text below the options: the methods; for comparisons the baselines, too.
METHODS_HELP = _below("Methods:", *lines_of(METHODS))
COMPARED_METHODS_HELP = f"{METHODS_HELP}\n\n{_below('Baselines:', *lines_of(BASELINES))}"


def _method_text(text: str) -> str:
    """The normal form of a method's text."""
    from palrp_onnx.relevance.method_parsing import method

    return method(text).text


#: Options of `MethodChoice`.
method_options = together(
    output_option,
    click.option(
        "--explain-input",
        metavar="NAME",
        multiple=True,
        help="Graph input whose units get relevance, if there are several; by default all. Can be "
        "given several times.",
    ),
    click.option(
        "--method",
        metavar=METHOD,
        callback=lambda _ctx, _param, text: None if text is None else _method_text(text),
        show_default=DEFAULT_METHOD,
        help="One of those below, optionally with parameters, as in pa-lrp-gamma:gamma=0.1.",
    ),
    click.option(
        "--positions",
        type=click.Choice(POSITIONS),
        show_default=POSITIONS[0],
        help="How the relevance of positions is reduced to one number per unit.",
    ),
    role_option,
)


class _Memory(click.ParamType[str]):
    """A way to use memory, or a size."""

    name = "memory"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from palrp_onnx.machine import Memory

        Memory.of(value)
        return value


def memory_option(default: str) -> Callable[[F], F]:
    """The option ``--memory``."""
    return click.option(
        "--memory",
        type=_Memory(),
        metavar="auto|fast|bounded|SIZE",
        default=default,
        show_default=True,
        help="fast keeps all values of the forward pass for the way back, bounded computes them "
        "again layer by layer; auto is bounded where memory may not suffice otherwise, a SIZE, as "
        "6GB, where that would not; inspect --tokens N prints what each takes.",
    )


def _switch_off(ctx: click.Context, _param: click.Parameter, off: bool) -> None:
    """Switch the cache off for the command, and for processes that it starts."""
    from palrp_onnx.cache.folder import SWITCH

    if off and not ctx.resilient_parsing:
        before = os.environ.get(SWITCH)
        os.environ[SWITCH] = "0"

        def restore() -> None:
            if before is None:
                os.environ.pop(SWITCH, None)
            else:
                os.environ[SWITCH] = before

        ctx.call_on_close(restore)


cache_option = click.option(
    "--no-cache",
    is_flag=True,
    expose_value=False,
    callback=_switch_off,
    help="Neither take facts of the model and compiled graphs from the cache, nor keep them.",
)


def _target_option(default: str, meaning: str) -> Callable[[F], F]:
    return click.option(
        "--target",
        default=default,
        show_default=meaning,
        metavar="TARGET",
        help="pred, an index, a label, a token in quotes, A-B (contrast), token:POS[:CLASS], "
        "answer, logprob:TARGET, rest:TARGET, span:FIRST-LAST, an element I,J,…, "
        "region:CLASS[:MASK], or dot:FILE, cos:FILE or similarity:FILE (a vector or another "
        "input); index:2 or label:2 if the text is ambiguous.",
    )


_ENGINE_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        show_default=f"{ENGINES[0]}; numpy for float64",
        help="Forward and relevance pass compiled into one graph, or the relevance pass in NumPy.",
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
        help="Device of the forward pass. If cuda is not available, that is an error.",
    ),
)

head_option = click.option(
    "--head",
    type=click.Choice(HEADS),
    metavar="KIND",
    help="The kind of head, where the graph and config.json say another or none: "
    f"{', '.join(HEADS)}.",
)

#: Options of `Run`: one target, or several where the task usually asks for several.
run_options = together(_target_option("pred", "pred"), *_ENGINE_OPTIONS)
# A class may have the label "default", so that the word alone is ambiguous.
default_run_options = together(
    _target_option("index:default", "what the task asks for"), *_ENGINE_OPTIONS
)


def limits_option(metrics: Collection[str], help: str) -> Callable[[F], F]:
    """``--fail-on`` for these metrics."""

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
    "Exit with 5 if this holds, such as 'residual>1e-3'. Metrics: "
    f"{', '.join(METRIC_NAMES)}. Files are written nevertheless. Can be given several times.",
)


def _remember_verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    """Store ``-v`` for the program, which reports errors after the command's context has ended."""
    state = ctx.find_root().obj
    if value and state is not None:
        state.verbose = True
    return value
