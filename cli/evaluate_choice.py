"""``palrp-onnx evaluate tournament`` and ``evaluate planted``: which method to use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import command
from .dataset import (
    Comparison,
    Report,
    estimate,
    every_method_option,
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
    FILE_PATH,
    Reporting,
    Words,
    grouped,
    model_argument,
    output_option,
    reporting_options,
    run_options,
    words_options,
)
from .progress import counting

if TYPE_CHECKING:
    from palrp_onnx.evaluate.choice import Choice
    from palrp_onnx.evaluate.planted import Planted

#: As in ``palrp_onnx.evaluate.pixels``, which is slow to import.
BASELINES = ("black", "mean", "blur")


@command(short_help="Which method to use on this model.", epilog=COMPARED_METHODS_HELP)
@model_argument
@inputs_option("Texts or images")
@report_options
@every_method_option
@replacement_options
@click.option(
    "--baseline",
    type=click.Choice(BASELINES),
    default="mean",
    show_default=True,
    help="What replaces pixels of images.",
)
@words_options
@run_options
@output_option
@reporting_options
@grouped(comparison=Comparison, destination=Report, words=Words, reporting=Reporting)
def tournament(
    model: Path,
    sources: tuple[Path, ...],
    destination: Report,
    comparison: Comparison,
    unknown: str | None,
    prefix: int,
    suffix: int,
    baseline: str,
    words: Words,
    reporting: Reporting,
) -> None:
    """Compare all methods on your inputs, and name the one to use.

    Tokens or pixels are replaced in the order of every map, as by evaluate perturbation and pixels.
    In every measure methods are ranked by their means; the lowest mean rank is chosen. How sure
    this is: the share of 1,000 sets, drawn from your inputs, that choose the same method.
    """
    from palrp_onnx.evaluate.perturbation import Protocol
    from palrp_onnx.evaluate.tournament import applicable
    from palrp_onnx.evaluate.tournament import tournament as measure
    from palrp_onnx.inputs import default_tokenizer, read_labels, unknown_token
    from palrp_onnx.model.open import Model

    opened, labels = Model.open(model), read_labels(model)
    files = list(files_in(sources))
    first = next(samples_in(files[:1], opened, words))
    protocol = None
    if first.kind == "text":
        token = unknown_token(words.tokenizer or default_tokenizer(model), unknown)
        protocol = Protocol(token, prefix=prefix, suffix=suffix)
    build = comparison.builder(opened, unknown=None if protocol is None else protocol.unknown)
    methods, refused = applicable(build, comparison.methods, first, comparison.target, labels)
    with counting(len(files), quiet=reporting.quiet) as advance:
        found = measure(
            methods,
            samples_in(files, opened, words),
            first.kind,
            protocol=protocol,
            baseline=baseline,
            target=comparison.target,
            labels=labels,
            progress=advance,
        )
    destination.write({"choice": found, "refused": refused}, _standings(found, refused))


def _standings(found: Choice, refused: Mapping[str, str]) -> str:
    from palrp_onnx.evaluate.choice import FEW

    rows = {
        name: [f"{each.rank:.2f}", f"{each.chosen:.0%}"]
        + [f"{own.value:.4g} ({own.low:.4g} … {own.high:.4g})" for own in each.means.values()]
        for name, each in found.methods.items()
    }
    heads = ["mean rank", "chosen"]
    heads += [f"{key} {'↑' if high else '↓'}" for key, high in found.higher.items()]
    lines = [f"{found.samples} inputs; means with 95 % intervals", "", *grid(heads, rows), ""]
    lines.append(f"Use {found.best}. {_how_sure(found)}")
    if found.level:
        lines.append(f"It is not ahead in any measure of: {', '.join(found.level)}.")
    lines += [
        f"Ahead of it in {key}, intervals apart: {', '.join(names)}."
        for key, names in found.ahead.items()
    ]
    if "random" in (found.best, *found.level):
        lines.append("A random order is level with it: these inputs show no method to be useful.")
    if found.samples < FEW:
        lines.append(f"{found.samples} inputs are few: nothing is clear with less than {FEW}.")
    lines += [f"Left out: {name} ({reason})." for name, reason in refused.items()]
    return "\n".join(lines) + "\n"


def _how_sure(found: Choice) -> str:
    share = f"{found.sure:.0%} of sets drawn from these inputs choose it"
    return {
        "clear": f"This is clear: {share}.",
        "likely": f"This is likely, not certain: {share}.",
        "open": f"This is open: only {share}.",
    }[found.certainty]


@command(
    short_help="Whether the units that decide have the most relevance.",
    epilog=COMPARED_METHODS_HELP,
)
@model_argument
@inputs_option("Texts, images or tensors")
@click.option(
    "--truth",
    type=FILE_PATH,
    required=True,
    metavar="FILE.json",
    help="The units that decide: a JSON object of file names without suffix to lists of unit "
    "numbers, the first unit being 0.",
)
@methods_option
@report_options
@words_options
@run_options
@output_option
@reporting_options
@grouped(comparison=Comparison, destination=Report, words=Words, reporting=Reporting)
def planted(
    model: Path,
    sources: tuple[Path, ...],
    truth: Path,
    comparison: Comparison,
    destination: Report,
    words: Words,
    reporting: Reporting,
) -> None:
    """Compare maps with causes that are known by construction.

    Precision at k is the share of the k strongest units that are among the k units that decide, by
    |relevance| and by relevance with its sign, with 95 % intervals over the inputs. Special tokens
    are left out.
    """
    from palrp_onnx.evaluate.planted import planted as measure
    from palrp_onnx.inputs import read_labels
    from palrp_onnx.model.open import Model

    opened = Model.open(model)
    causes = read_units(truth)
    files = list(files_in(sources))
    with counting(len(files), quiet=reporting.quiet) as advance:
        found = measure(
            comparison.on(opened),
            samples_in(files, opened, words),
            causes,
            target=comparison.target,
            labels=read_labels(model),
            progress=advance,
        )
    destination.write(found, _precisions(found))


def read_units(path: Path) -> dict[str, list[int]]:
    """Unit numbers for every file name without suffix."""
    from palrp_onnx.errors import InputError
    from palrp_onnx.inputs.reading import read_json_object

    found: dict[str, Any] = read_json_object(path)
    for name, units in found.items():
        if not isinstance(units, list) or not all(type(unit) is int for unit in units):
            raise InputError(f"{name!r} has {units!r}, and not a list of units", place=str(path))
    return found


def _precisions(found: Mapping[str, Planted]) -> str:
    rows = {
        name: [estimate(one.value, one.low, one.high) for one in (each.magnitude, each.signed)]
        for name, each in found.items()
    }
    title = f"{next(iter(found.values())).samples} inputs; precision at k with 95 % intervals"
    return "\n".join([title, "", *grid(["|relevance|", "relevance"], rows)]) + "\n"
