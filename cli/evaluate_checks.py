"""``palrp-onnx evaluate randomisation`` and ``evaluate stability``: whether maps can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import command
from .dataset import (
    Comparison,
    Report,
    estimate,
    files_in,
    grid,
    inputs_option,
    methods_option,
    replacement_options,
    report_options,
    samples_in,
)
from .options import (
    COMPARED_METHODS_HELP,
    Reporting,
    Words,
    grouped,
    model_argument,
    output_option,
    reporting_options,
    run_options,
    together,
    words_options,
)
from .progress import counting

if TYPE_CHECKING:
    from palrp_onnx.evaluate.randomisation import Randomisation
    from palrp_onnx.evaluate.stability import Stability
    from palrp_onnx.evaluate.statistics import Estimate

_common = together(
    methods_option,
    report_options,
    words_options,
    run_options,
    output_option,
    reporting_options,
    grouped(comparison=Comparison, destination=Report, words=Words, reporting=Reporting),
)


@command(short_help="Whether maps depend on learnt weights.", epilog=COMPARED_METHODS_HELP)
@model_argument
@inputs_option("Texts, images or tensors")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the permutations.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Number of permutations.",
)
@_common
def randomisation(
    model: Path,
    sources: tuple[Path, ...],
    seed: int,
    draws: int,
    comparison: Comparison,
    destination: Report,
    words: Words,
    reporting: Reporting,
) -> None:
    """Shuffle the weights from the output down, and compare maps (Adebayo et al. 2018).

    In four steps, the entries of a further quarter of the weights are permuted. Rank correlations
    with the maps of the unchanged model, of relevance and of its magnitude, should fall; both have
    95 % intervals over the samples and the draws, as results depend more on the permutation than on
    the samples.
    """
    from palrp_onnx.evaluate.randomisation import SHARES
    from palrp_onnx.evaluate.randomisation import randomisation as measure
    from palrp_onnx.inputs import read_labels
    from palrp_onnx.model.open import Model

    opened = Model.open(model)
    files = list(files_in(sources))
    with counting(len(files) * (len(SHARES) * draws + 1), quiet=reporting.quiet) as advance:
        found = measure(
            opened,
            comparison.on,
            lambda: samples_in(files, opened, words),
            target=comparison.target,
            labels=read_labels(model),
            seed=seed,
            draws=draws,
            progress=advance,
        )
    destination.write(found, _steps_table(found))


@command(
    short_help="Whether maps stay the same when one token changes.", epilog=COMPARED_METHODS_HELP
)
@model_argument
@inputs_option("Texts")
@replacement_options
@_common
def stability(
    model: Path,
    sources: tuple[Path, ...],
    unknown: str | None,
    prefix: int,
    suffix: int,
    comparison: Comparison,
    destination: Report,
    words: Words,
    reporting: Reporting,
) -> None:
    """Replace single tokens by the unknown token, and compare maps.

    Five tokens of a text are replaced, each alone. Rank correlations with the map of the unchanged
    text are over all other tokens, with 95 % intervals over the texts.
    """
    from palrp_onnx.evaluate.stability import Replacement
    from palrp_onnx.evaluate.stability import stability as measure
    from palrp_onnx.inputs import default_tokenizer, read_labels, unknown_token
    from palrp_onnx.model.open import Model

    opened = Model.open(model)
    token = unknown_token(words.tokenizer or default_tokenizer(model), unknown)
    files = list(files_in(sources))
    with counting(len(files), quiet=reporting.quiet) as advance:
        found = measure(
            comparison.on(opened, unknown=token),
            samples_in(files, opened, words),
            Replacement(token, prefix, suffix),
            target=comparison.target,
            labels=read_labels(model),
            progress=advance,
        )
    destination.write(found, _stability_table(found))


def _steps_table(found: Mapping[str, Randomisation]) -> str:
    first = next(iter(found.values()))
    lines = [
        f"{first.samples} samples, seed {first.seed}, draws {first.draws}; rank correlations "
        "with 95 % intervals"
    ]
    heads = [f"{step.share:.0%} ({step.tensors} tensors)" for step in first.steps]
    for part in ("signed", "magnitude"):
        rows = {
            name: [_cell(getattr(step, part)) for step in each.steps]
            for name, each in found.items()
        }
        lines += ["", *grid(heads, rows, part)]
    return "\n".join(lines) + "\n"


def _stability_table(found: Mapping[str, Stability]) -> str:
    first = next(iter(found.values()))
    rows = {name: [_cell(each.signed), _cell(each.magnitude)] for name, each in found.items()}
    title = (
        f"{first.samples} texts, {first.draws} tokens each; rank correlations with 95 % intervals"
    )
    return "\n".join([title, "", *grid(["signed", "magnitude"], rows)]) + "\n"


def _cell(figure: Estimate) -> str:
    return estimate(figure.value, figure.low, figure.high)
