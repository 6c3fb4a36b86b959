"""What commands over a data set share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palrp_onnx.files import refusal, to_json, write_files
from palrp_onnx.relevance.method_parsing import competitor_text

from .options import FILE_PATH, METHOD, together
from .writing import write_stdout

if TYPE_CHECKING:
    from palrp_onnx.evaluate.baselines import Competitor
    from palrp_onnx.evaluate.journal import Journal
    from palrp_onnx.inputs import Sample
    from palrp_onnx.model.open import Model

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Kept = TypeVar("Kept")


def inputs_option(what: str) -> Callable[[Decorated], Decorated]:
    """``--input``, of files of this kind."""
    return click.option(
        "--input",
        "sources",
        type=FILE_PATH,
        multiple=True,
        required=True,
        metavar="FILE|DIR",
        help=f"{what}; all files of a folder. Can be given several times.",
    )


methods_option = click.option(
    "--method",
    "methods",
    metavar=METHOD,
    callback=lambda _ctx, _param, texts: tuple(map(competitor_text, texts)),
    multiple=True,
    default=("pa-lrp", "attnlrp"),
    show_default=True,
    help="Held against each other: one of those below. Can be given several times.",
)
report_options = together(
    click.option("-o", "place", type=FILE_PATH, metavar="FILE.json", help="Also write it as JSON."),
    click.option("--json", "as_json", is_flag=True, help="JSON instead of a table."),
)
#: What takes the place of tokens, and which ones stay.
replacement_options = together(
    click.option(
        "--unknown",
        metavar="TOKEN|ID",
        help="What stands for no token; the tokenizer's unknown token by default.",
    ),
    click.option("--prefix", type=click.IntRange(min=0), default=0, help="Tokens kept in front."),
    click.option("--suffix", type=click.IntRange(min=0), default=0, help="Tokens kept at the end."),
)
journal_option = click.option(
    "--journal",
    "notes",
    type=FILE_PATH,
    metavar="FILE.jsonl",
    help="Keep what is done, input by input; the same call goes on from there.",
)
curves_option = click.option(
    "--curves", type=FILE_PATH, metavar="FILE.png", help="Also draw the curves."
)


@dataclass(frozen=True)
class Contest:
    """Methods that are compared, what they explain, and how they are computed."""

    methods: tuple[str, ...]
    target: str
    output: str | None
    engine: str | None
    dtype: str
    device: str

    def competitors(self, model: Model, *, unknown: int | None = None) -> dict[str, Competitor]:
        """The methods by name, on one model; ``unknown`` is the token that stands for none."""
        from palrp_onnx.evaluate.baselines import competitor

        return {
            name: competitor(
                name,
                model,
                engine=self.engine,
                dtype=self.dtype,
                device=self.device,
                output=self.output,
                unknown=unknown,
            )
            for name in self.methods
        }


@dataclass(frozen=True)
class Report:
    """Where the result goes."""

    place: Path | None
    as_json: bool

    def write(
        self, found: object, table: str, pictures: Mapping[Path, bytes] | None = None
    ) -> None:
        """Write what was found, and print it."""
        data = to_json(found)
        files = {} if self.place is None else {self.place: data}
        write_files({**files, **(pictures or {})})
        write_stdout(data if self.as_json else table.encode())


def files_in(sources: tuple[Path, ...]) -> Iterator[Path]:
    """Files as given; of a folder, all of them by name."""
    for source in sources:
        if source.is_dir():
            yield from sorted(p for p in source.iterdir() if p.is_file())
        else:
            yield source


def samples_in(files: list[Path], model: Model, tokenizer: Path | None = None) -> Iterator[Sample]:
    """What the files hold, one after the other."""
    from palrp_onnx.inputs import open_sample

    for file in files:
        yield open_sample(
            file, model_path=model.path, graph_inputs=model.inputs, tokenizer=tokenizer
        )


def read_names(path: Path, what: str) -> dict[str, str]:
    """One label or index for every file name without suffix."""
    from palrp_onnx.errors import InputError
    from palrp_onnx.inputs.reading import read_json_object

    found = read_json_object(path)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{name!r} has {value!r}, no {what}", place=str(path))
    return {name: str(value) for name, value in found.items()}


def open_journal(
    path: Path | None, kind: type[Kept], model: Model, contest: Contest, **more: Any
) -> Journal[Kept] | None:
    """The journal of this evaluation, with this contest and what ``more`` it goes by."""
    from palrp_onnx.evaluate.journal import Journal

    if path is None:
        return None
    try:
        return Journal(path, kind, {"model": model.sha256, **asdict(contest), **more})
    except OSError as error:
        raise refusal(error, path) from error


def estimate(value: float, low: float, high: float) -> str:
    """A figure with its interval."""
    return f"{value:.3f} ({low:.3f} … {high:.3f})"


def grid(heads: Sequence[str], rows: Mapping[str, Sequence[str]], corner: str = "") -> list[str]:
    """Lines of a table, one row a method."""
    width = max(map(len, (*rows, corner))) + 2
    return [
        f"{corner:{width}}" + "".join(f"{head:>28}" for head in heads),
        *(f"{name:{width}}" + "".join(f"{c:>28}" for c in cells) for name, cells in rows.items()),
    ]
