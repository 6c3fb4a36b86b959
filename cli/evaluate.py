"""``palrp-onnx evaluate``: measurements over a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import Group
from .dataset import Report, files_in, inputs_option, report_options, samples_in
from .evaluate_checks import randomisation, stability
from .evaluate_choice import planted, tournament
from .evaluate_images import pixels, segmentation
from .evaluate_texts import perturbation
from .options import (
    METHODS_HELP,
    MethodChoice,
    Reporting,
    Run,
    Words,
    explainer_options,
    grouped,
    method_options,
    model_argument,
    reporting_options,
    run_options,
    words_options,
)
from .progress import counting

if TYPE_CHECKING:
    from palrp_onnx.evaluate.conservation import Conservation
    from palrp_onnx.record import Attribution


@click.group(
    cls=Group,
    commands=[
        perturbation,
        pixels,
        segmentation,
        planted,
        tournament,
        randomisation,
        stability,
    ],
    short_help="Measure explanations over a data set.",
)
def evaluate() -> None:
    """Measure explanations over a data set."""


@evaluate.command(short_help="Share of positions in the relevance.", epilog=METHODS_HELP)
@model_argument
@inputs_option("Texts, images or tensors")
@report_options
@words_options
@run_options
@method_options
@reporting_options
@grouped(destination=Report, run=Run, choice=MethodChoice, words=Words, reporting=Reporting)
def conservation(
    model: Path,
    sources: tuple[Path, ...],
    destination: Report,
    words: Words,
    run: Run,
    choice: MethodChoice,
    reporting: Reporting,
) -> None:
    """Print the share of positions in the relevance, over all inputs (PA-LRP, appendix F)."""
    from palrp_onnx.evaluate.conservation import conservation as measure

    files = list(files_in(sources))
    with counting(len(files), quiet=reporting.quiet) as advance:
        found = measure(_records(model, files, words, run, choice, advance))
    destination.write(found, _table(found))


def _records(
    model_path: Path,
    files: list[Path],
    words: Words,
    run: Run,
    choice: MethodChoice,
    advance: Callable[[int], None],
) -> Iterator[Attribution]:
    from palrp_onnx.explainer import Explainer
    from palrp_onnx.inputs import read_labels
    from palrp_onnx.model.open import Model

    model = Model.open(model_path)
    explainer = Explainer(model, **explainer_options(run, choice))
    labels = read_labels(model_path)
    for number, sample in enumerate(samples_in(files, model, words), start=1):
        yield from (each.record for each in explainer.explain(sample, run.target, labels))
        advance(number)


def _table(found: Conservation) -> str:
    low, middle, high = found.position_share.quartiles
    lines = [
        f"{found.samples} samples",
        f"position share  {middle:8.2%} (median; quartiles {low:.2%}, {high:.2%}; "
        f"mean {found.position_share.mean:.2%} ± {found.position_share.deviation:.2%})",
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
