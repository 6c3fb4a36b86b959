"""``palrp-onnx evaluate perturbation``: tokens put in and taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .dataset import (
    competitors,
    curves_option,
    files_in,
    grid,
    inputs_option,
    journal_option,
    methods_option,
    open_journal,
    read_names,
    replacement_options,
    report,
    report_options,
    samples_in,
)
from .options import (
    COMPETITORS_HELP,
    FILE_PATH,
    model_argument,
    output_option,
    reporting_options,
    run_options,
    tokenizer_option,
)
from .progress import counting

if TYPE_CHECKING:
    from palrp_onnx.evaluate.perturbation import Perturbation
    from palrp_onnx.evaluate.texts import Accept
    from palrp_onnx.inputs import Sample
    from palrp_onnx.model.open import Model
    from palrp_onnx.record import TargetFacts


@click.command(short_help="How early a map brings a prediction back.", epilog=COMPETITORS_HELP)
@model_argument
@inputs_option("Texts")
@report_options
@methods_option
@replacement_options
@click.option(
    "--answers",
    type=FILE_PATH,
    metavar="FILE.json",
    help="Only texts that are answered right: an object of file names without suffix, and labels, "
    "indices or next tokens.",
)
@curves_option
@journal_option
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
    answers: Path | None,
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
    from palrp_onnx.evaluate.perturbation import Curves, Protocol
    from palrp_onnx.evaluate.texts import contest
    from palrp_onnx.inputs import default_tokenizer, read_labels, unknown_token
    from palrp_onnx.model.open import Model

    opened = Model.open(model)
    words = tokenizer or default_tokenizer(model)
    protocol = Protocol(unknown=unknown_token(words, unknown), prefix=prefix, suffix=suffix)
    right = None if answers is None else read_names(answers, "label, index or token")
    settings = {
        "methods": methods,
        "protocol": asdict(protocol),
        "answers": right,
        "target": target,
        "output": output_name,
        **options,
    }
    journal = open_journal(notes, Curves, opened, settings)
    files = list(files_in(sources))
    with counting(len(files), quiet=quiet) as tell:
        found = contest(
            competitors(opened, methods, output=output_name, unknown=protocol.unknown, **options),
            samples_in(files, opened, tokenizer),
            protocol,
            target=target,
            labels=read_labels(model),
            accept=None if right is None else _right(right, words),
            journal=journal,
            progress=tell,
        )
    drawn = {} if curves is None else {curves: _drawn(found, opened)}
    report(found, _areas(found, len(files)), place, as_json, drawn)


def _right(answers: Mapping[str, str], tokenizer: Path) -> Accept:
    """Whether what is explained is the answer: its index, its label, or what the token says."""
    from palrp_onnx.errors import InputError
    from palrp_onnx.inputs.tokens import load_tokenizer, piece_text

    opened = load_tokenizer(tokenizer)

    def accept(sample: Sample, facts: TargetFacts) -> bool:
        if sample.id not in answers:
            raise InputError("The answer is missing", place=sample.id)
        if facts.entry is None:
            return False
        token = facts.kind == "token" and facts.label is None
        said = piece_text(opened, facts.entry) if token else facts.label or ""
        wanted = answers[sample.id].strip().casefold()
        return wanted in (said.strip().casefold(), str(facts.entry))

    return accept


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
