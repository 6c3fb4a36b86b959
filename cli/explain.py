"""``palrp-onnx explain``: explain one input of one model."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from palrp_onnx.errors import UsageError
from palrp_onnx.files import Content, write_files
from palrp_onnx.limits import Limit, check_records, with_checks

from .command import command
from .destination import Destination, Shown
from .options import (
    FILE_PATH,
    METHODS_HELP,
    MethodChoice,
    Reporting,
    Run,
    Words,
    columns_option,
    default_run_options,
    explainer_options,
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
from .showing import coloured_maps, colours_of_stdout, show
from .summary import summary
from .writing import write_stdout

if TYPE_CHECKING:
    from PIL.Image import Image

    from palrp_onnx.explainer import Explainer
    from palrp_onnx.explanation import Explanation
    from palrp_onnx.inputs import Given, GraphInput, Sample
    from palrp_onnx.matrix import Matrix
    from palrp_onnx.model.open import Model
    from palrp_onnx.record import Attribution, Map
    from palrp_onnx.relevance.target import Target
    from palrp_onnx.types import Box


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
@memory_option
@method_options
@click.option(
    "--tensors", type=FILE_PATH, help="Also write raw signed relevance to this .npz file."
)
@click.option(
    "--open", "opened", is_flag=True, help="Show the page, or else the picture, that was written."
)
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
        destination.require_shown()
    model, sample = _open(request)
    explainer = _explainer(request, model)
    targets = _targets(request, explainer, sample)
    count = request.generate or _expected(request, targets, sample, explainer)
    places = destination.files(sample.id, count, matrix=_continues(request) is not None)
    read = [Path(target.file) for target in targets if target.file is not None]
    _check_places(request, [*places, *filter(None, [request.tensors])], read)
    explanations = _explain(request, explainer, sample)
    # Now the number of records is known; before, it was estimated for --generate and all targets.
    places = destination.files(sample.id, len(explanations), matrix=_continues(request) is not None)
    _check_places(request, [*places, *filter(None, [request.tensors])], read)
    records = [with_checks(each.record, request.limits) for each in explanations]
    for record in records:
        record.require_finite(place=f"sample {record.id}")
    data = _json(records, kserve="kserve" in destination.formats)
    matrix = _matrix(sample, records, explainer) if "matrix" in places.values() else None
    files = _contents(places, records, sample, data, matrix)
    if request.tensors is not None:
        files[request.tensors] = _tensors(explanations)
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
        raise UsageError("Give the input: --input FILE, --text TEXT, or --chat FILE.json")
    return Request(sources=given[0], text=text, chat=chat is not None, **options)


def _targets(request: Request, explainer: Explainer, sample: Sample) -> tuple[Target, ...]:
    """The targets, parsed before anything is explained; labels may be those of the input."""
    from palrp_onnx.inputs import read_labels
    from palrp_onnx.relevance.target_parsing import parse_targets

    labels = explainer.labels(sample, read_labels(request.model))
    return parse_targets(request.run.target, labels)


def _expected(
    request: Request, targets: Sequence[Target], sample: Sample, explainer: Explainer
) -> int:
    """Expected number of records; for ``all`` targets the output decides."""
    from palrp_onnx.inputs import read_labels

    rows = 1
    if sample.kind in ("tensors", "table", "several"):
        rows = explainer.engine(sample.feeds).subject.samples(sample.feeds)
    every = targets[0].kind == "all"  # a default is usually one
    return rows * (max(len(read_labels(request.model)), 1) if every else len(targets))


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
    if request.run.target not in ("default", "pred"):
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


def _open(request: Request) -> tuple[Model, Sample]:
    from palrp_onnx.inputs import bind_inputs
    from palrp_onnx.inputs.columns import read_columns
    from palrp_onnx.inputs.past import open_for
    from palrp_onnx.inputs.produced import read_both
    from palrp_onnx.inputs.several import names_held

    first = request.sources[0]
    source: Path | Literal["-"] = "-" if first == "-" else Path(first)
    model = open_for(request.model, source if len(request.sources) == 1 else None)
    inputs = bind_inputs(model.inputs, request.words.bind)
    given = _given(request, [each.name for each in inputs])
    sample = read_both(
        partial(_read, request, source, given),
        inputs,
        held=names_held(given),
        model_path=request.model,
        tokenizer=_tokenizer(request),
        start=request.start,
    )
    if request.columns:
        sample = replace(sample, columns=read_columns(request.columns, [i.name for i in inputs]))
    return model, sample


def _read(
    request: Request,
    source: Path | Literal["-"],
    given: Sequence[Given],
    inputs: Sequence[GraphInput],
) -> Sample:
    """Read the arrays of these inputs."""
    from palrp_onnx.inputs import open_sample, open_several

    tokenizer = request.words.tokenizer
    if len(given) > 1 or given[0].name is not None:
        if request.pair is not None or request.windows is not None or "-" in request.sources:
            raise UsageError("--pair, --windows and stdin are for a graph that takes a text alone")
        return open_several(
            given, model_path=request.model, graph_inputs=inputs, tokenizer=tokenizer
        )
    sample = open_sample(
        source,
        model_path=request.model,
        graph_inputs=inputs,
        tokenizer=tokenizer,
        pair=request.pair,
        chat=request.chat,
        windows=request.windows,
        stdin=None if request.text is None else BytesIO(os.fsencode(request.text)),
    )
    return sample if request.text is None else replace(sample, id="text")


def _read_other(request: Request, model: Model, source: Path) -> Sample:
    """Read another input, which the model's output for the explained one is compared with."""
    from palrp_onnx.inputs import bind_inputs, open_sample

    return open_sample(
        source,
        model_path=request.model,
        graph_inputs=bind_inputs(model.inputs, request.words.bind),
        tokenizer=request.words.tokenizer,
    )


def _given(request: Request, names: Collection[str]) -> list[Given]:
    """The files; what is before an equals sign is the name of an input if the graph has it."""
    from palrp_onnx.inputs import Given

    found = []
    for text in request.sources:
        name, _, file = text.partition("=")
        named = name in names and bool(file)
        found.append(Given(Path(file), name) if named else Given(Path(text)))
    return found


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


def _explainer(request: Request, model: Model) -> Explainer:
    from palrp_onnx.explainer import Explainer

    return Explainer(
        model,
        **explainer_options(request.run, request.choice),
        memory=request.memory,
        once=_continues(request) is None,
        tokenizer=request.words.tokenizer,
        head=request.head,
        reader=partial(_read_other, request, model),
    )


def _explain(request: Request, explainer: Explainer, sample: Sample) -> Sequence[Explanation]:
    from palrp_onnx.inputs import Continuation, bind_inputs, read_labels
    from palrp_onnx.inputs.text import read_text

    if _continues(request) is None:
        return explainer.explain(sample, request.run.target, read_labels(request.model))
    from palrp_onnx.generation import follow, generate

    inputs = bind_inputs(explainer.model.inputs, request.words.bind)
    text = Continuation(_tokenizer(request), inputs, model_path=request.model)
    if request.continuation is not None:
        tokens = text.tokens(sample, read_text(request.continuation))
        return list(follow(explainer, sample, text, tokens))
    assert request.generate is not None
    return list(generate(explainer, sample, text, request.generate))


def _tokenizer(request: Request) -> Path | None:
    """The tokenizer; ``None`` where there is none, for arrays alone."""
    from palrp_onnx.inputs import default_tokenizer
    from palrp_onnx.inputs.tokens import usable_tokenizer

    return request.words.tokenizer or usable_tokenizer(default_tokenizer(request.model))


def _matrix(sample: Sample, records: Sequence[Attribution], explainer: Explainer) -> Matrix:
    from palrp_onnx.inputs.produced import decoder_input
    from palrp_onnx.matrix import matrix_of

    return matrix_of(sample.id, records, decoder_input(explainer.model.inputs))


def _contents(
    places: Mapping[Path, Shown],
    records: Sequence[Attribution],
    sample: Sample,
    data: bytes,
    matrix: Matrix | None,
) -> dict[Path, Content]:
    """Contents of all files, made before any is written; ``data`` is all records as JSON."""
    return {
        path: _matrix_content(path, matrix)
        if shown == "matrix" and matrix is not None
        else _content(path, shown, records, sample, data)
        for path, shown in places.items()
    }


def _matrix_content(path: Path, matrix: Matrix) -> Content:
    from palrp_onnx.files import to_json
    from palrp_onnx.render.grid import render_matrix_html, render_matrix_png, render_matrix_svg

    match path.suffix.lower():
        case ".png":
            return render_matrix_png(matrix)
        case ".svg":
            return render_matrix_svg(matrix)
        case ".html":
            return render_matrix_html(matrix)
    return to_json(matrix)


def _content(
    path: Path, shown: Shown, records: Sequence[Attribution], sample: Sample, data: bytes
) -> Content:
    if isinstance(shown, int):
        return _picture(path, records[shown], sample)
    return _html(records, sample) if path.suffix.lower() == ".html" else data


def _json(records: Sequence[Attribution], *, kserve: bool) -> bytes:
    from palrp_onnx.record import encode, encode_kserve

    if kserve:
        return encode_kserve(records)
    return encode(list(records) if len(records) > 1 else records[0])


def _picture(path: Path, record: Attribution, sample: Sample) -> bytes:
    from palrp_onnx.render.png import render_png
    from palrp_onnx.render.svg import render_svg

    draw = render_svg if path.suffix.lower() == ".svg" else render_png
    return draw(record, **_originals(record, sample))


def _html(records: Sequence[Attribution], sample: Sample) -> bytes:
    from palrp_onnx.render.beside import render_records

    return render_records(sample.id, records, [_originals(record, sample) for record in records])


def _originals(record: Attribution, sample: Sample) -> dict[str, Any]:
    """The images of the maps."""
    first, *others = (_original(each, sample) for each in record.maps)
    image, box = first
    further = {each.input: seen for each, seen in zip(record.others or (), others, strict=True)}
    return {"image": image, "box": box, "further": further}


def _original(shown: Map, sample: Sample) -> tuple[Image | None, Box | None]:
    """The image of an input, or its drawn signal, and the part of it that the network saw."""
    from palrp_onnx.render.timeline import TIMED, draw_signal

    units = shown.units
    timed = sample.series(shown.input, len(shown.relevance.total)) if units.kind in TIMED else None
    return (
        sample.picture_of(shown.input) if timed is None else (draw_signal(timed, units.kind), None)
    )


def _tensors(explanations: Sequence[Explanation]) -> Content:
    from palrp_onnx.explanation import join_tensors, save_tensors

    return partial(save_tensors, join_tensors(explanations))


def _print_summary(request: Request, records: Sequence[Attribution], files: Sequence[Path]) -> None:
    for record in records:
        click.echo(summary(record, verbose=request.reporting.verbose), err=True)
    if files:
        click.echo(f"  wrote {', '.join(map(str, files))}", err=True)
