"""``palrp-onnx evaluate``: measurements over a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    FILE_PATH,
    method_options,
    model_argument,
    reporting_options,
    run_options,
    tokenizer_option,
)
from .writing import write_files, write_stdout

if TYPE_CHECKING:
    from palrp_onnx.attribution import Attribution
    from palrp_onnx.evaluate.conservation import Conservation


@click.group(short_help="Measure explanations over a data set.")
def evaluate() -> None:
    """Measure explanations over a data set."""


@evaluate.command(short_help="How much of the relevance positions carry.")
@model_argument
@click.option(
    "--input",
    "sources",
    type=FILE_PATH,
    multiple=True,
    required=True,
    metavar="FILE|DIR",
    help="Texts, images or tensors; all files of a folder. Can be given several times.",
)
@click.option("-o", "place", type=FILE_PATH, metavar="FILE.json", help="Also write it as JSON.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
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

    files = list(_files(sources))
    found = measure(_records(model, files, tokenizer, options, quiet))
    data = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    if place is not None:
        write_files({place: data})
    write_stdout(data if as_json else _table(found).encode())


def _files(sources: tuple[Path, ...]) -> Iterator[Path]:
    for source in sources:
        if source.is_dir():
            yield from sorted(p for p in source.iterdir() if p.is_file())
        else:
            yield source


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
    for number, file in enumerate(files, start=1):
        sample = open_sample(
            file, model_path=model_path, graph_inputs=model.inputs, tokenizer=tokenizer
        )
        yield from (each.record for each in explainer.explain(sample, target, labels))
        if not quiet and (number % 50 == 0 or number == len(files)):
            click.echo(f"{number} of {len(files)} files", err=True)


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
