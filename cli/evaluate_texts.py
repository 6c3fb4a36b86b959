"""``palrp-onnx evaluate perturbation``: tokens are inserted and removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import command
from .dataset import (
    Comparison,
    Report,
    curves_option,
    files_in,
    grid,
    inputs_option,
    journal_option,
    methods_option,
    open_journal,
    read_names,
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
    from palrp_onnx.evaluate.perturbation import Perturbation
    from palrp_onnx.model.open import Model


@command(
    short_help="How early a prediction returns in the order of the map.",
    epilog=COMPARED_METHODS_HELP,
)
@model_argument
@inputs_option("Texts")
@report_options
@methods_option
@replacement_options
@click.option(
    "--answers",
    type=FILE_PATH,
    metavar="FILE.json",
    help="Use only texts with the right prediction: a JSON object of file names without suffix to "
    "labels, indices or next tokens.",
)
@curves_option
@journal_option
@words_options
@run_options
@output_option
@reporting_options
@grouped(comparison=Comparison, destination=Report, words=Words, reporting=Reporting)
def perturbation(
    model: Path,
    sources: tuple[Path, ...],
    destination: Report,
    comparison: Comparison,
    unknown: str | None,
    prefix: int,
    suffix: int,
    answers: Path | None,
    curves: Path | None,
    notes: Path | None,
    words: Words,
    reporting: Reporting,
) -> None:
    """Insert and remove tokens in the order of the map (PA-LRP, section 5.2).

    Generation starts from unknown tokens and inserts those of highest relevance first; pruning
    removes those of lowest relevance first. AUAC is the area under the probability of the explained
    class, MSE the area under the squared change of logits, both with 95 % intervals over the texts.
    """
    from palrp_onnx.evaluate.perturbation import Curves, Protocol
    from palrp_onnx.evaluate.texts import accept_answers
    from palrp_onnx.evaluate.texts import evaluate_perturbation as measure
    from palrp_onnx.inputs import default_tokenizer, read_labels, unknown_token
    from palrp_onnx.model.open import Model

    opened = Model.open(model)
    tokens = words.tokenizer or default_tokenizer(model)
    protocol = Protocol(unknown=unknown_token(tokens, unknown), prefix=prefix, suffix=suffix)
    right = None if answers is None else read_names(answers, "label, index or token")
    journal = open_journal(
        notes, Curves, opened, comparison, protocol=asdict(protocol), answers=right
    )
    files = list(files_in(sources))
    with counting(len(files), quiet=reporting.quiet) as advance:
        found = measure(
            comparison.on(opened, unknown=protocol.unknown),
            samples_in(files, opened, words),
            protocol,
            target=comparison.target,
            labels=read_labels(model),
            accept=None if right is None else accept_answers(right, tokens),
            journal=journal,
            progress=advance,
        )
    drawn = {} if curves is None else {curves: _drawn(curves, found, opened)}
    destination.write(found, _areas(found, len(files)), drawn)


def _drawn(place: Path, found: Mapping[str, Perturbation], model: Model) -> bytes:
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
        vector=place.suffix.lower() == ".svg",
    )


def _areas(found: Mapping[str, Perturbation], files: int) -> str:
    columns = ("generation_auac", "generation_mse", "pruning_auac", "pruning_mse", "morf", "lerf")
    heads = ("gen. AUAC", "gen. MSE", "prun. AUAC", "prun. MSE", "MoRF", "LeRF")
    samples = next(iter(found.values())).samples
    of = f" of {files}" if samples < files else ""
    rows = {
        name: [
            f"{a.area:.4g} ({a.low:.4g} … {a.high:.4g})"
            for a in (getattr(each, column) for column in columns)
        ]
        for name, each in found.items()
    }
    title = f"{samples}{of} texts; areas with 95 % intervals"
    return "\n".join([title, "", *grid(heads, rows)]) + "\n"
