"""Options and helpers that commands over a data set share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palrp_onnx.files import refusal, to_json, write_files
from palrp_onnx.relevance.methods import BASELINES, METHODS

from .options import FILE_PATH, METHOD, Words, together
from .writing import write_stdout

if TYPE_CHECKING:
    from palrp_onnx.evaluate.baselines import ComparedMethod
    from palrp_onnx.evaluate.journal import Journal
    from palrp_onnx.inputs import Sample
    from palrp_onnx.model.open import Model

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Found = TypeVar("Found")


def inputs_option(what: str) -> Callable[[Decorated], Decorated]:
    """``--input`` for files of this kind."""
    return click.option(
        "--input",
        "sources",
        type=FILE_PATH,
        multiple=True,
        required=True,
        metavar="FILE|DIR",
        help=f"{what}; a folder stands for all its files. Can be given several times.",
    )


def _method_texts(texts: Sequence[str]) -> tuple[str, ...]:
    """The normal forms of the texts of methods and baselines."""
    from palrp_onnx.relevance.method_parsing import compared_method_text

    return tuple(map(compared_method_text, texts))


def _option_of_methods(
    default: Sequence[str] | None, text: str
) -> Callable[[Decorated], Decorated]:
    return click.option(
        "--method",
        "methods",
        metavar=METHOD,
        callback=lambda _ctx, _param, texts: _method_texts(texts),
        multiple=True,
        default=default,
        show_default=text,
        help="A method to compare, one of those below. Can be given several times.",
    )


methods_option = _option_of_methods(("pa-lrp", "attnlrp"), "pa-lrp, attnlrp")
every_method_option = _option_of_methods(
    (*METHODS, *(name for name, facts in BASELINES.items() if not facts.slow)),
    "all but baselines that run the model for every unit",
)
report_options = together(
    click.option(
        "-o", "place", type=FILE_PATH, metavar="FILE.json", help="Also write the result as JSON."
    ),
    click.option("--json", "as_json", is_flag=True, help="JSON instead of a table."),
)
#: The token that replaces others, and which tokens are never replaced.
replacement_options = together(
    click.option(
        "--unknown",
        metavar="TOKEN|ID",
        help="Token that replaces others; by default the tokenizer's unknown token.",
    ),
    click.option(
        "--prefix",
        type=click.IntRange(min=0),
        default=0,
        help="Number of tokens at the start that are never replaced.",
    ),
    click.option(
        "--suffix",
        type=click.IntRange(min=0),
        default=0,
        help="Number of tokens at the end that are never replaced.",
    ),
)
journal_option = click.option(
    "--journal",
    "notes",
    type=FILE_PATH,
    metavar="FILE.jsonl",
    help="Store the result of every input; the same command resumes from this file.",
)
curves_option = click.option(
    "--curves", type=FILE_PATH, metavar="FILE.png|.svg", help="Also draw the curves."
)


@dataclass(frozen=True)
class Comparison:
    """The compared methods, their target, and how they are computed."""

    methods: tuple[str, ...]
    target: str
    output: str | None
    engine: str | None
    dtype: str
    device: str

    def on(self, model: Model, *, unknown: int | None = None) -> dict[str, ComparedMethod]:
        """The methods by name, on one model; ``unknown`` is the token that replaces others."""
        build = self.builder(model, unknown=unknown)
        return {name: build(name) for name in self.methods}

    def builder(
        self, model: Model, *, unknown: int | None = None
    ) -> Callable[[str], ComparedMethod]:
        """The name of a method → the method on one model."""
        from palrp_onnx.evaluate.baselines import compared_method

        return partial(
            compared_method,
            model=model,
            engine=self.engine,
            dtype=self.dtype,
            device=self.device,
            output=self.output,
            unknown=unknown,
        )


@dataclass(frozen=True)
class Report:
    """Where the result is written."""

    place: Path | None
    as_json: bool

    def write(
        self, found: object, table: str, pictures: Mapping[Path, bytes] | None = None
    ) -> None:
        """Write the result to files, and print it."""
        data = to_json(found)
        files = {} if self.place is None else {self.place: data}
        write_files({**files, **(pictures or {})})
        write_stdout(data if self.as_json else table.encode())


def files_in(sources: tuple[Path, ...]) -> Iterator[Path]:
    """The given files, and all files of the given folders by name."""
    for source in sources:
        if source.is_dir():
            yield from sorted(p for p in source.iterdir() if p.is_file())
        else:
            yield source


def samples_in(files: list[Path], model: Model, words: Words | None = None) -> Iterator[Sample]:
    """The samples of the files, one after the other."""
    from palrp_onnx.inputs import bind_inputs, open_sample

    words = words or Words(None, {})
    inputs = bind_inputs(model.inputs, words.bind)
    for file in files:
        yield open_sample(
            file, model_path=model.path, graph_inputs=inputs, tokenizer=words.tokenizer
        )


def read_names(path: Path, what: str) -> dict[str, str]:
    """One label or index for every file name without suffix."""
    from palrp_onnx.errors import InputError
    from palrp_onnx.inputs.reading import read_json_object

    found = read_json_object(path)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{name!r} has {value!r}, which is not a {what}", place=str(path))
    return {name: str(value) for name, value in found.items()}


def open_journal(
    path: Path | None, kind: type[Found], model: Model, comparison: Comparison, **more: Any
) -> Journal[Found] | None:
    """The journal of this evaluation; ``more``: settings besides those of the comparison."""
    from palrp_onnx.evaluate.journal import Journal

    if path is None:
        return None
    try:
        return Journal(path, kind, {"model": model.sha256, **asdict(comparison), **more})
    except OSError as error:
        raise refusal(error, path) from error


def estimate(value: float, low: float, high: float) -> str:
    """A figure with its interval."""
    return f"{value:.3f} ({low:.3f} … {high:.3f})"


def grid(heads: Sequence[str], rows: Mapping[str, Sequence[str]], corner: str = "") -> list[str]:
    """Lines of a table, one row per method."""
    width = max(map(len, (*rows, corner))) + 2
    return [
        f"{corner:{width}}" + "".join(f"  {head:>26}" for head in heads),
        *(f"{name:{width}}" + "".join(f"  {c:>26}" for c in cells) for name, cells in rows.items()),
    ]
