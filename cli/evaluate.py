"""``palrp-onnx evaluate``: measurements over a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .dataset import files_in, inputs_option, methods_option, report_options
from .evaluate_checks import randomisation, stability
from .evaluate_images import pixels, segmentation
from .options import (
    FILE_PATH,
    method_options,
    model_argument,
    output_option,
    reporting_options,
    run_options,
    together,
    tokenizer_option,
)
from .progress import counting
from .writing import refusal, write_files, write_stdout

if TYPE_CHECKING:
    from palrp_onnx.attribution import Attribution
    from palrp_onnx.evaluate.conservation import Conservation
    from palrp_onnx.evaluate.journal import Journal
    from palrp_onnx.evaluate.perturbation import Perturbation, Protocol
    from palrp_onnx.graph.model import Model


@click.group(
    commands=[pixels, segmentation, randomisation, stability],
    short_help="Measure explanations over a data set.",
)
def evaluate() -> None:
    """Measure explanations over a data set."""


_inputs = together(inputs_option("Texts, images or tensors"), report_options)


@evaluate.command(short_help="How much of the relevance positions carry.")
@model_argument
@_inputs
@tokenizer_option
@run_options
@method_options
@reporting_options
def conservation(
    model: Path,
    sources: tuple[Path, ...],
    place: Path | None,
    as_json: bool,
    tokenizer: Path | None,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Print the share of positions in the relevance, over all inputs (PA-LRP, appendix F)."""
    del verbose  # read by the program
    import msgspec

    from palrp_onnx.evaluate.conservation import conservation as measure

    files = list(files_in(sources))
    found = measure(_records(model, files, tokenizer, options, quiet))
    data = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    if place is not None:
        write_files({place: data})
    write_stdout(data if as_json else _table(found).encode())


@evaluate.command(short_help="How early a map brings a prediction back.")
@model_argument
@_inputs
@methods_option
@click.option(
    "--unknown",
    metavar="TOKEN|ID",
    help="What stands for no token; the tokenizer's unknown token by default.",
)
@click.option("--prefix", type=click.IntRange(min=0), default=0, help="Tokens kept in front.")
@click.option("--suffix", type=click.IntRange(min=0), default=0, help="Tokens kept at the end.")
@click.option(
    "--curves", type=FILE_PATH, metavar="FILE.png", help="Also draw generation and pruning."
)
@click.option(
    "--journal",
    "notes",
    type=FILE_PATH,
    metavar="FILE.jsonl",
    help="Keep what is done, text by text; the same call goes on from there.",
)
@tokenizer_option
@run_options
@output_option
@reporting_options
def perturbation(
    model: Path,
    sources: tuple[Path, ...],
    place: Path | None,
    as_json: bool,
    methods: tuple[str, ...],
    unknown: str | None,
    prefix: int,
    suffix: int,
    curves: Path | None,
    notes: Path | None,
    tokenizer: Path | None,
    target: str,
    output_name: str | None,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Put tokens in, and take them out, in the order of the map (PA-LRP, section 5.2).

    Generation starts from unknown tokens and puts back those of highest relevance; pruning takes
    out those of lowest. AUAC is the area under the probability of the explained class, MSE that
    under the squared change of logits, both with 95 % intervals over the texts.
    """
    del verbose  # read by the program
    import msgspec

    from palrp_onnx.evaluate.baselines import competitor
    from palrp_onnx.evaluate.contest import contest
    from palrp_onnx.evaluate.perturbation import Protocol
    from palrp_onnx.graph.model import Model
    from palrp_onnx.inputs import default_tokenizer, open_sample, read_labels, unknown_token

    opened = Model.open(model)
    words = tokenizer or default_tokenizer(model)
    protocol = Protocol(unknown=unknown_token(words, unknown), prefix=prefix, suffix=suffix)
    competitors = {
        name: competitor(name, opened, output=output_name, unknown=protocol.unknown, **options)
        for name in methods
    }
    files = list(files_in(sources))
    samples = (
        open_sample(file, model_path=model, graph_inputs=opened.inputs, tokenizer=tokenizer)
        for file in files
    )
    settings = {"target": target, "output": output_name, **options}
    journal = None
    if notes is not None:
        _check_names(files)
        journal = _journal(notes, opened, methods, protocol, words, settings)
    with counting(len(files), quiet=quiet) as tell:
        found = contest(
            competitors,
            samples,
            protocol,
            target=target,
            labels=read_labels(model),
            journal=journal,
            progress=tell,
        )
    data = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    written = {} if place is None else {place: data}
    if curves is not None:
        written[curves] = _drawn(found, opened)
    write_files(written)
    write_stdout(data if as_json else _areas(found).encode())


def _check_names(files: list[Path]) -> None:
    """A journal knows texts by name."""
    from palrp_onnx.errors import UsageError

    names = Counter(file.stem for file in files)
    name, times = max(names.items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise UsageError(
            f"{times} files are named {name!r}, and a journal knows texts by name",
            hint="Give each a name of its own.",
        )


def _journal(
    path: Path,
    model: Model,
    methods: tuple[str, ...],
    protocol: Protocol,
    tokenizer: Path,
    options: Mapping[str, Any],
) -> Journal:
    """The journal of this evaluation and no other."""
    from palrp_onnx.errors import InputError
    from palrp_onnx.evaluate.journal import Journal

    settings = {
        "model": model.sha256,
        "tokenizer": sha256(tokenizer.read_bytes()).hexdigest(),
        "methods": methods,
        "protocol": asdict(protocol),
        **options,
    }
    try:
        return Journal(path, settings)
    except UnicodeDecodeError as error:
        raise InputError("The file holds no evaluation", place=str(path)) from error
    except OSError as error:
        raise refusal(error, path) from error


def _drawn(found: Mapping[str, Perturbation], model: Model) -> bytes:
    from palrp_onnx.evaluate.perturbation import FRACTIONS
    from palrp_onnx.render.curves import Chart, render_curves

    samples = next(iter(found.values())).samples
    return render_curves(
        "Perturbation of tokens",
        f"{samples} texts, model {model.sha256[:12]}",
        FRACTIONS.tolist(),
        [
            Chart(
                "generation",
                "tokens put in, the most relevant first",
                {name: each.generation_auac.curve for name, each in found.items()},
            ),
            Chart(
                "pruning",
                "tokens taken out, the least relevant first",
                {name: each.pruning_auac.curve for name, each in found.items()},
            ),
        ],
        "mean probability",
    )


def _areas(found: Mapping[str, Perturbation]) -> str:
    columns = ("generation_auac", "generation_mse", "pruning_auac", "pruning_mse", "morf", "lerf")
    heads = ("gen. AUAC", "gen. MSE", "prun. AUAC", "prun. MSE", "MoRF", "LeRF")
    samples = next(iter(found.values())).samples
    lines = [f"{samples} texts; areas with 95 % intervals", ""]
    width = max(len(name) for name in found) + 1
    lines.append(" " * width + "".join(f"{head:>28}" for head in heads))
    for name, each in found.items():
        areas = (getattr(each, column) for column in columns)
        cells = (f"{a.area:.4g} ({a.low:.4g} … {a.high:.4g})" for a in areas)
        lines.append(f"{name:{width}}" + "".join(f"{cell:>28}" for cell in cells))
    return "\n".join(lines) + "\n"


def _records(
    model_path: Path,
    files: list[Path],
    tokenizer: Path | None,
    options: dict[str, Any],
    quiet: bool,
) -> Iterator[Attribution]:
    from palrp_onnx.explainer import Explainer
    from palrp_onnx.graph.model import Model
    from palrp_onnx.inputs import open_sample, read_labels

    model = Model.open(model_path)
    target = options.pop("target")
    explainer = Explainer(model, output=options.pop("output_name"), **options)
    labels = read_labels(model_path)
    with counting(len(files), quiet=quiet) as tell:
        for number, file in enumerate(files, start=1):
            sample = open_sample(
                file, model_path=model_path, graph_inputs=model.inputs, tokenizer=tokenizer
            )
            yield from (each.record for each in explainer.explain(sample, target, labels))
            tell(number)


def _table(found: Conservation) -> str:
    low, middle, high = found.position_share.quartiles
    lines = [
        f"{found.samples} samples",
        f"position share  {found.position_share.mean:8.2%} ± {found.position_share.deviation:.2%} "
        f"(quartiles {low:.2%}, {middle:.2%}, {high:.2%})",
        f"residual        {found.residual:8.1e} at most",
        "",
        "share of the ledger",
        *(f"  {name:<14}{share:8.2%}" for name, share in found.ledger.items()),
    ]
    if found.layers:
        lines += ["", "position sites, of the ledger"]
        lines += [
            f"  layer {each.layer:<3} {each.kind:<14} {each.part:<8}{each.share:8.2%}"
            for each in found.layers
        ]
    return "\n".join(lines) + "\n"
