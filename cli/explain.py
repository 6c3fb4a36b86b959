"""``palrp-onnx explain``: explain one input of one model."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palrp_onnx.errors import UsageError
from palrp_onnx.files import Content, write_files
from palrp_onnx.limits import Limit, check_records

from .command import command
from .destination import Destination, Shown
from .options import (
    FILE_PATH,
    METHODS_HELP,
    MethodChoice,
    Reporting,
    Run,
    Words,
    cache_option,
    columns_option,
    default_run_options,
    fail_on_option,
    formats,
    grouped,
    head_option,
    memory_option,
    method_options,
    model_argument,
    reporting_options,
    windows_option,
    words_options,
)
from .showing import check_shown, coloured_maps, colours_of_stdout, open_option, show
from .summary import summary
from .writing import write_stdout

if TYPE_CHECKING:
    from palrp_onnx.api.loaded import LoadedModel
    from palrp_onnx.explanations import Explanations
    from palrp_onnx.inputs import Given, Sample
    from palrp_onnx.inputs.values import Value
    from palrp_onnx.record import Attribution
    from palrp_onnx.relevance.target import Target


@dataclass(frozen=True)
class Request:
    """The options, as parsed."""

    model: Path
    sources: tuple[str, ...]
    text: str | None
    chat: bool
    pair: Path | None
    windows: int | None
    place: str | None
    formats: tuple[str, ...] | None
    words: Words
    tensors: Path | None
    opened: bool
    start: str | None
    generate: int | None
    head: str | None
    continuation: Path | None
    columns: tuple[str, ...]
    limits: tuple[Limit, ...]
    memory: str
    run: Run
    choice: MethodChoice
    reporting: Reporting


@command(short_help="Explain one input: text, an image or tensors.", epilog=METHODS_HELP)
@model_argument
@click.option(
    "--input",
    "sources",
    multiple=True,
    metavar="FILE|NAME=FILE|-",
    help="Text (.txt), an image, sound (.wav, .flac), rows of a table (.csv, .parquet), or tensors "
    "(.npz, one array per graph input); - is text on stdin. Several times for a graph with inputs "
    "of several kinds, with the input's name where the kind leaves it open.",
)
@click.option("--text", help="The text itself, instead of --input.")
@click.option(
    "--chat",
    type=FILE_PATH,
    metavar="FILE.json",
    help="Messages instead of --input: the tokenizer's chat template makes a text of them.",
)
@columns_option
@click.option("--pair", type=FILE_PATH, help="Second text, for models of text pairs.")
@windows_option
@click.option(
    "-o",
    "place",
    metavar="DIR|FILE|-",
    help="A folder, a .json, .png, .svg or .html file, or - for JSON on stdout. By default JSON on "
    "stdout, and where that is a terminal, a coloured map instead.",
)
@click.option(
    "--format",
    "formats",
    type=formats,
    metavar="LIST",
    help="json, png, svg or html, several separated by commas; json,png for a folder by default. "
    "Or kserve: the response to an explain request of KServe's V1 protocol.",
)
@words_options
@default_run_options
@head_option
@memory_option("auto")
@cache_option
@method_options
@click.option(
    "--tensors", type=FILE_PATH, help="Also write raw signed relevance to this .npz file."
)
@open_option
@click.option(
    "--generate",
    type=click.IntRange(min=1),
    metavar="N",
    help="Continue the text by up to N tokens, greedily, and explain each of them.",
)
@click.option(
    "--continuation",
    type=FILE_PATH,
    metavar="FILE.txt",
    help="Explain each token of this text, as what the model continues with.",
)
@click.option(
    "--start",
    metavar="TEXT",
    help="What the decoder of an encoder begins with, instead of the tokens that "
    "generation_config.json names: a language, a task.",
)
@fail_on_option
@reporting_options
@grouped(run=Run, choice=MethodChoice, words=Words, reporting=Reporting)
def explain(**options: Any) -> None:
    """Explain the output of MODEL for one input.

    The record is JSON: one object, or an array of them if a .npz file holds several rows, several
    targets are given (--target A,B or --target all) or several tokens are generated.
    """
    request = _request(**options)
    _check_generation(request)
    _check_windows(request)
    destination = Destination.parse(request.place, request.formats)
    if request.opened:
        check_shown(destination.formats)
    model = _loaded(request)
    sample = _sample(request, model)
    targets = _targets(request, model, sample)
    count = request.generate or _expected(request, targets, model, sample)
    continues = _continues(request) is not None
    places = destination.files(sample.id, count, matrix=continues)
    read = [Path(target.file) for target in targets if target.file is not None]
    _check_places(request, [*places, *filter(None, [request.tensors])], read)
    found = _explained(request, model, sample)
    # Now the number of records is known; before, it was estimated for --generate and all targets.
    places = destination.files(sample.id, len(found), matrix=continues)
    _check_places(request, [*places, *filter(None, [request.tensors])], read)
    records = [each.record for each in found]
    data = _json(records, kserve="kserve" in destination.formats)
    files = {path: _content(path, shown, found, data) for path, shown in places.items()}
    if request.tensors is not None:
        files[request.tensors] = _tensors(found)
    write_files(files)
    if destination.kind == "stdout":
        console = colours_of_stdout() if destination.by_default else None
        write_stdout(data if console is None else coloured_maps(console, records))
    if request.opened:
        show(files)
    if not request.reporting.quiet:
        _print_summary(request, records, list(files))
    check_records(request.limits, records)


def _request(
    *, sources: tuple[str, ...], text: str | None, chat: Path | None, **options: Any
) -> Request:
    """The input is given in one of three ways; a text itself is read as if it came from stdin."""
    ways = (sources, text is not None and ("-",), chat is not None and (str(chat),))
    given = [way for way in ways if way]
    if len(given) != 1:
        asked = "Give the input only once" if given else "Give the input"
        raise UsageError(f"{asked}: --input FILE, --text TEXT, or --chat FILE.json")
    return Request(sources=given[0], text=text, chat=chat is not None, **options)


def _targets(request: Request, model: LoadedModel, sample: Sample) -> tuple[Target, ...]:
    """The targets, parsed before anything is explained; labels may be those of the input."""
    from palrp_onnx.relevance.target_parsing import parse_targets

    labels = model.explainer(sample, **_way(request)).labels(sample, model.labels)
    return parse_targets(request.run.target, labels)


def _expected(
    request: Request, targets: Sequence[Target], model: LoadedModel, sample: Sample
) -> int:
    """Expected number of records; for ``all`` targets the output decides."""
    rows = 1
    if sample.kind in ("tensors", "table", "several"):
        explainer = model.explainer(sample, **_way(request))
        rows = explainer.engine(sample.feeds).subject.samples(sample.feeds)
    every = targets[0].kind == "all"  # a default is usually one
    return rows * (max(len(model.labels), 1) if every else len(targets))


def _continues(request: Request) -> str | None:
    """The option by which a text is continued, if there is one."""
    if request.generate is not None:
        return "--generate"
    return None if request.continuation is None else "--continuation"


def _check_generation(request: Request) -> None:
    option = _continues(request)
    if option is None:
        return
    if request.generate is not None and request.continuation is not None:
        raise UsageError(
            "--generate continues the text, and --continuation says how it goes on",
            hint="Leave out one of them.",
        )
    if request.run.target not in ("index:default", "pred"):
        raise UsageError(
            f"{option} explains the tokens that follow, so it cannot be used with --target",
            hint="Leave out one of them.",
        )
    if request.tensors is not None:
        raise UsageError(
            f"{option} yields maps of different lengths, which --tensors cannot join",
            hint="Explain a step with --target token:POS.",
        )


def _check_windows(request: Request) -> None:
    if request.windows is None:
        return
    if _continues(request) is not None or request.tensors is not None:
        raise UsageError(
            "--windows joins maps of one text, which --generate and --tensors cannot follow",
            hint="Leave out one of them.",
        )


def _loaded(request: Request) -> LoadedModel:
    from palrp_onnx.hashing import Digest
    from palrp_onnx.model.locate import real_files

    Digest.begin(real_files(request.model))  # it goes on during the imports
    from palrp_onnx.api.loaded import load

    run, choice = request.run, request.choice
    return load(
        request.model,
        tokenizer=request.words.tokenizer,
        bind=request.words.bind,
        device=run.device,
        engine=run.engine,
        dtype=run.dtype,
        memory=request.memory,
        output=choice.output,
        explain_input=choice.explain_input,
        roles=choice.roles,
        head=request.head,
        once=_continues(request) is None,
    )


def _way(request: Request) -> dict[str, Any]:
    """The method, as the library takes it."""
    return {"method": request.choice.method, "positions": request.choice.positions}


def _sample(request: Request, model: LoadedModel) -> Sample:
    from palrp_onnx.inputs.columns import read_columns

    names = [each.name for each in model.inputs]
    value, name = _value(request, names)
    sample = model.read(value, id=name, windows=request.windows, start=request.start)
    if request.columns:
        sample = replace(sample, columns=read_columns(request.columns, names))
    return sample


def _value(request: Request, names: Collection[str]) -> tuple[Value, str | None]:
    """The input as the library takes it, and its name if it is no file."""
    from palrp_onnx.inputs import Given
    from palrp_onnx.inputs.chat import read_messages
    from palrp_onnx.inputs.kinds import TEXT
    from palrp_onnx.inputs.open import read_stdin
    from palrp_onnx.inputs.text import read_text

    first, *others = request.sources
    if request.chat:
        if first == "-" or request.pair is not None:
            raise UsageError("--chat takes a file of messages, and no --pair")
        messages = read_messages(Path(first))
        return messages if isinstance(messages, dict) else {"messages": messages}, Path(first).stem
    given = [_given(text, names) for text in request.sources]
    if others or given[0].name is not None:
        if request.pair is not None or request.windows is not None or "-" in request.sources:
            raise UsageError("--pair, --windows and stdin are for a graph that takes a text alone")
        return tuple(given), None
    only, name = given[0], None
    if first == "-":
        stdin = None if request.text is None else BytesIO(os.fsencode(request.text))
        only, name = Given(read_stdin(stdin)), "stdin" if request.text is None else "text"
    if request.pair is None:
        return only, name
    if only.suffix not in TEXT:
        raise UsageError("Only texts can be given in pairs", place=first)
    return (*only.texts, read_text(request.pair)), name or only.id


def _given(text: str, names: Collection[str]) -> Given:
    """A file; what is before an equals sign is the name of an input if the graph has it."""
    from palrp_onnx.inputs import Given

    name, _, file = text.partition("=")
    if name in names and file:
        return Given(Path(file), name)
    if file and not Path(text).exists() and Path(file).exists():
        raise UsageError(
            f"The graph has no input {name!r}",
            place=f"--input {text}",
            hint=f"Inputs: {', '.join(names)}.",
        )
    return Given(Path(text))


def _check_places(request: Request, places: Sequence[Path], read: Sequence[Path]) -> None:
    """Refuse to overwrite inputs: a map of ``cat.png`` in its folder would replace the picture."""
    given = [request.model, request.pair, request.words.tokenizer, request.continuation]
    files = [Path(part) for text in request.sources for part in (text, text.partition("=")[2])]
    sources = filter(None, [*given, *(f for f in files if f.name), *read])
    taken = {os.path.realpath(path) for path in sources}
    for place in places:
        real = os.path.realpath(place)  # unlike Path.resolve, no error for a link to itself
        if real in taken:
            raise UsageError(
                "The result would replace a file that was read, or another result",
                place=str(place),
                hint="Write to another folder or under another name.",
            )
        taken.add(real)


def _explained(request: Request, model: LoadedModel, sample: Sample) -> Explanations:
    from palrp_onnx.explanation import Explanation
    from palrp_onnx.explanations import Explanations
    from palrp_onnx.inputs.text import read_text

    if _continues(request) is None:
        found = model.explain(sample, request.run.target, **_way(request))
        several = Explanations([found] if isinstance(found, Explanation) else found)
    else:
        given = request.continuation
        several = model.generate(
            sample,
            request.generate or 0,
            continuation=None if given is None else read_text(given),
            **_way(request),
        )
    return several.checked(request.limits)


def _tensors(found: Explanations) -> Content:
    from palrp_onnx.explanations import content_of

    return content_of(found, ".npz")


def _content(path: Path, shown: Shown, found: Explanations, data: bytes) -> Content:
    """What a file holds; ``data`` is all records as JSON."""
    from palrp_onnx.explanations import Generated, content_of
    from palrp_onnx.files import to_json

    suffix = path.suffix.lower()
    if shown == "matrix" and isinstance(found, Generated):
        return to_json(found.matrix) if suffix == ".json" else content_of(found, suffix)
    if isinstance(shown, int):
        return content_of(found[shown], suffix)
    return content_of(found[:], suffix) if suffix == ".html" else data


def _json(records: Sequence[Attribution], *, kserve: bool) -> bytes:
    from palrp_onnx.record import encode, encode_kserve

    if kserve:
        return encode_kserve(records)
    return encode(list(records) if len(records) > 1 else records[0])


def _print_summary(request: Request, records: Sequence[Attribution], files: Sequence[Path]) -> None:
    for record in records:
        click.echo(summary(record, verbose=request.reporting.verbose), err=True)
    if files:
        click.echo(f"  wrote {', '.join(map(str, files))}", err=True)
