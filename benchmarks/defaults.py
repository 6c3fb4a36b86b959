"""The default methods: a grid on a tuning split, one rule, then the test split once.

    python benchmarks/defaults.py data FOLDER               # once: models, texts, pictures, causes
    python benchmarks/defaults.py run FOLDER RESULTS        # all parts, in processes
    python benchmarks/defaults.py tables RESULTS            # choices, and tables
    python benchmarks/defaults.py tables RESULTS --place docs/results/defaults.json

    python benchmarks/defaults.py run FOLDER RESULTS --device cuda --jobs 14 --seconds 200
    python benchmarks/defaults.py run FOLDER RESULTS --only digits --samples 10 --jobs 1   # small

Every task has a tuning split, which no table uses, and a test split. ``tables`` applies the rule of
`palrp_onnx.evaluate.choice` to the tuning split of the tasks of each family (texts, language
model, images), and only then prints the test split. See docs/evaluation.md. A part stops taking
inputs after ``--seconds``, and results say how many inputs they are of; parts that exist are not
run again.
``data`` needs PyPI and the scripts in models; what it cannot make is left out, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "models"))
sys.path.insert(0, str(ROOT / "benchmarks"))

Array = NDArray[Any]
REDUCTIONS = ("relu", "abs", "signed", "single-sink")
#: The grid of texts: methods, and reductions of sinks. Methods that run the model for every unit
#: are left to short inputs.
GRID = (
    "pa-lrp attnlrp pe-only pa-lrp:single-sink pa-lrp:abs pa-lrp:signed "
    "pa-lrp-kept pa-lrp-kept:abs attnlrp-kept pa-lrp-adaptive cp-lrp pa-cp-lrp "
    "pa-gim pa-gim:abs pa-gim:signed pa-gim:temperature=1 pa-gim:temperature=4 "
    "gim gim:temperature=1 gim:temperature=4 pa-lrp-open attnlrp-open "
    "eps-lrp gradient-x-input rollout chefer abslrp tibav attention-norm"
).split()
#: Of a model of 30 layers: opening each takes seconds.
DEEP = (
    "pa-lrp attnlrp pe-only pa-lrp:single-sink pa-lrp:abs pa-gim gim pa-lrp-kept "
    "pa-gim:temperature=4 gim:temperature=4 pa-cp-lrp cp-lrp gradient-x-input abslrp pa-lrp-open"
).split()
PICTURES = (
    "pa-lrp attnlrp pe-only pa-lrp:abs pa-lrp-kept attnlrp-kept pa-lrp-gamma pa-lrp-gamma:abs "
    "pa-lrp-gamma:gamma=0.05 pa-lrp-gamma:gamma=0.25 pa-lrp-gamma:gamma=1 attnlrp-gamma "
    "pa-lrp-alpha cp-lrp cp-lrp-gamma pa-cp-lrp gim pa-gim eps-lrp gradient-x-input ig rollout "
    "chefer abslrp tibav attention-norm"
).split()
FEW = (
    "pa-lrp attnlrp pe-only pa-lrp-kept cp-lrp pa-cp-lrp gim pa-gim gradient-x-input ig rollout "
    "chefer abslrp tibav value-zeroing attention-norm occlusion"
).split()
SHUFFLED = "pa-lrp attnlrp gim pa-gim chefer rollout".split()
PLANTED = [
    f"{task}-{kind}"
    for task in ("token", "negated", "first", "order", "distance", "half")
    for kind in ("rope", "bert")
]


@dataclass(frozen=True)
class Task:
    """What is measured on one model.

    Attributes:
        family: Tasks that share a default.
        kind: ``text``, ``image``, ``planted``, ``stability``, ``agreement`` or ``randomisation``.
        methods: The compared methods, the first of which chooses the target.
        tuning: Whether there is a tuning split.
        together: Methods per process, which opens each once; 0: all.
        deep: Whether all methods run on the device, as is faster for a large model.
        model: Folder of the model, if it is not that of the task.
    """

    family: str
    kind: str
    methods: Sequence[str]
    tuning: bool = True
    together: int = 0
    deep: bool = False
    model: str = ""


TASKS = {
    "smollm2": Task("language model", "text", DEEP, together=3, deep=True),
    "reviews-rope": Task("texts", "text", GRID, together=7),
    "reviews-bert": Task("texts", "text", GRID, together=7),
    **{
        f"reviews-{kind}-{form}": Task("", "text", FEW[:4], tuning=False)
        for kind in ("rope", "bert")
        for form in ("int8", "nbits")
    },
    "clothes": Task("images", "image", PICTURES, together=7),
    "digits": Task("images", "image", PICTURES, together=7),
    **{name: Task("", "planted", FEW, tuning=False) for name in PLANTED},
    **{f"{name}-vit": Task("", "planted", FEW, tuning=False) for name in ("patch", "side")},
    **{
        f"stability-{kind}": Task("", "stability", FEW, tuning=False, model=f"reviews-{kind}")
        for kind in ("rope", "bert")
    },
    **{
        f"agreement-{kind}": Task("", "agreement", FEW, tuning=False, model=f"reviews-{kind}")
        for kind in ("rope", "bert")
    },
    **{
        f"randomisation-{kind}": Task(
            "", "randomisation", SHUFFLED, tuning=False, model=f"reviews-{kind}"
        )
        for kind in ("rope", "bert")
    },
}
#: Inputs of the two splits: of those that are held out, none is in both.
TEST, TUNING = slice(0, 1000), slice(2000, 2200)
WORDS_TOKENS = 48
SANITY = {"stability": 50, "agreement": 50, "randomisation": 20}
#: Share of the time that the tuning split may take.
TUNED = 0.35


# --- data -----------------------------------------------------------------------------------------
def make_data(folder: Path, options: argparse.Namespace) -> None:
    """Everything that ``run`` reads."""
    import train_reviews

    folder.mkdir(parents=True, exist_ok=True)
    _, held_out = train_reviews.read_reviews(options.cache)
    texts = [text for text, _ in held_out]
    for kind in ("rope", "bert"):
        name = f"reviews-{kind}"
        _link(ROOT / "models" / name, folder / name)
        _write_texts(folder / name, texts)
        for form in ("int8", "nbits"):
            with _said(f"{name}-{form}"):
                _make_form(ROOT / "models" / name, form, folder / f"{name}-{form}")
                _write_texts(folder / f"{name}-{form}", texts, tuning=False)
    if options.smollm2 is not None:
        _link(options.smollm2, folder / "smollm2")
        short = _first_tokens(options.smollm2 / "tokenizer.json", texts)
        _write_texts(folder / "smollm2", short, test=500)
    for name, script in (("clothes", "train_clothes.py"), ("digits", "train_digits.py")):
        with _said(name):
            _write_pictures(name, script, folder, options)
    if options.planted is not None:
        for place in options.planted.iterdir():
            if (place / "truth.json").exists():
                _link(place, folder / place.name)
                _files(place / "inputs", folder / place.name / "test")
                shutil.copy(place / "truth.json", folder / place.name)


@contextlib.contextmanager
def _said(name: str) -> Iterator[None]:
    """Say what could not be made, and go on."""
    try:
        yield
    except Exception as error:
        print(f"left out: {name} ({type(error).__name__}: {error})", file=sys.stderr)


def _link(source: Path, target: Path) -> None:
    """The files of a model; large ones are linked."""
    target.mkdir(parents=True, exist_ok=True)
    for each in source.iterdir():
        if each.is_file() and not (target / each.name).exists():
            if each.stat().st_size > 2**20:
                (target / each.name).symlink_to(each.resolve())
            else:
                shutil.copy(each, target)


def _make_form(source: Path, form: str, target: Path) -> None:
    from production import make_form

    _link(source, target)
    (target / "model.onnx").unlink()
    made = make_form(source, form, target)
    if made != target / "model.onnx":
        made.rename(target / "model.onnx")


def _write_texts(folder: Path, texts: list[str], *, tuning: bool = True, test: int = 1000) -> None:
    splits = {"test": range(*TEST.indices(test)), "tuning": range(*TUNING.indices(len(texts)))}
    for split, numbers in splits.items():
        if tuning or split == "test":
            (folder / split).mkdir(exist_ok=True)
            for number in numbers:
                place = folder / split / f"{number:04}.txt"
                place.write_text(texts[number], encoding="utf-8")


def _first_tokens(tokenizer: Path, texts: list[str]) -> list[str]:
    """The beginnings of texts that are cut to one number of tokens."""
    from tokenizers import Tokenizer

    opened = Tokenizer.from_file(str(tokenizer))
    found = []
    for text in texts:
        ends = [end for _, end in opened.encode(text).offsets[:WORDS_TOKENS]]
        found.append(text[: ends[-1]] if ends else text)
    return found


def _write_pictures(name: str, script: str, folder: Path, options: argparse.Namespace) -> None:
    made = folder / f"{name}-made"
    command = [sys.executable, ROOT / "models" / script, "--write", made, "--samples"]
    cache = ["--cache", str(options.cache)] if name == "clothes" else []
    subprocess.run([*map(str, command), str(options.pictures), *cache], check=True)
    _link(ROOT / "models" / f"{name}-vit", folder / name)
    files = sorted((made / "images").iterdir())
    first = len(files) * 5 // 7
    for split, own in (("test", files[:first]), ("tuning", files[first:])):
        for kind in ("images", "masks"):
            target = folder / name / split if kind == "images" else folder / name / "masks"
            target.mkdir(exist_ok=True)
            for each in own:
                shutil.copy(made / kind / each.name, target)
    shutil.rmtree(made)


def _files(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for each in source.iterdir():
        shutil.copy(each, target)


# --- one part -------------------------------------------------------------------------------------
def build(name: str, model: Any, device: str, unknown: int | None) -> Any:
    """A method of the grid: ``NAME[:REDUCTION]`` or ``NAME:PARAMETER=NUMBER``."""
    from palrp_onnx import Explainer
    from palrp_onnx.evaluate.baselines import compared_method

    method, _, last = name.rpartition(":")
    if last in REDUCTIONS and method:
        return Explainer(model, method=method, positions=last, device=device)
    return compared_method(name, model, device=device, unknown=unknown)


def run_part(task: Task, folder: Path, options: argparse.Namespace) -> None:
    """Measure methods on the inputs, split after split, and write what is done."""
    from palrp_onnx.evaluate.tournament import applicable
    from palrp_onnx.inputs import default_tokenizer, open_sample, unknown_token
    from palrp_onnx.model.open import Model

    _one_thread()
    model = Model.open(folder / "model.onnx")
    read = partial(open_sample, model_path=model.path, graph_inputs=model.inputs, tokenizer=None)
    first = next((folder / "test").iterdir())
    text = first.suffix == ".txt"
    unknown = unknown_token(default_tokenizer(model.path), None) if text else None

    def built(name: str, model: Any = model) -> Any:
        """Explanations of small models are as fast on a core; perturbed rows run on the device."""
        on = options.device if task.deep or name == options.methods[0] else "cpu"
        return build(name, model, on, unknown)

    found, refused = applicable(built, options.methods, read(first))
    for name, reason in refused.items():
        print(f"{folder.name}: {name} left out ({reason})", file=sys.stderr)
    setting = Setting(folder, unknown, built, {})
    measure = MEASURED[task.kind]
    step = 32 if task.deep else SANITY.get(task.kind, 10)
    step = step if task.kind in ("text", "randomisation") else 10
    start = time.monotonic()
    for split in options.splits if task.tuning else ["test"]:
        share = TUNED if split == "tuning" else 1.0
        files = sorted((folder / split).iterdir())[: options.samples]
        values: dict[str, list[Array]] = {}
        names: list[str] = []
        for begin in range(0, len(files), step):
            if begin and time.monotonic() - start > share * options.seconds:
                break
            some = [read(file) for file in files[begin : begin + step]]
            for name, each in measure(found, some, setting).items():
                values.setdefault(name, []).append(each)
            names += [sample.id for sample in some]
        place = options.place.with_name(f"{options.place.name}.{split}.npz")
        write_part(place, names, {name: np.concatenate(each) for name, each in values.items()})


@dataclass(frozen=True)
class Setting:
    """What measurements need besides methods and samples.

    Attributes:
        folder: The model's folder.
        unknown: Id of the unknown token.
        build: Method by name, and model.
        forms: Methods on the model in other forms, once they are open.
    """

    folder: Path
    unknown: int | None
    build: Any
    forms: dict[str, Any]


def _one_thread() -> None:
    """Sessions of one thread: processes share the cores."""
    import onnxruntime

    plain = onnxruntime.SessionOptions

    class Options(plain):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = 1

    onnxruntime.SessionOptions = Options


def _texts(methods: Any, samples: Any, setting: Setting) -> dict[str, Array]:
    from palrp_onnx.evaluate.perturbation import Protocol, areas_of
    from palrp_onnx.evaluate.texts import perturbation_curves

    curves = perturbation_curves(methods, samples, Protocol(setting.unknown))
    return {name: areas_of(each) for name, each in curves.items()}


def _images(methods: Any, samples: Any, setting: Setting) -> dict[str, Array]:
    """Areas of positive and negative perturbation, pixel accuracy, IoU and AP of each image."""
    from palrp_onnx.evaluate.image_maps import ComparedMaps
    from palrp_onnx.evaluate.images import evaluate_segmentation, perturbed_images
    from palrp_onnx.evaluate.masks import read_mask
    from palrp_onnx.evaluate.pixels import area_of

    compared = ComparedMaps(methods)
    images = perturbed_images(compared, samples, baseline="mean")
    found: dict[str, list[list[float]]] = {name: [] for name in images}
    for number, sample in enumerate(samples):
        masks = evaluate_segmentation(
            compared, [(sample, read_mask(setting.folder / "masks" / f"{sample.id}.png"))]
        )
        for name, each in images.items():
            kept = each[number].predicted
            areas = [float(area_of(way[None])[0]) for way in (kept.positive, kept.negative)]
            own = masks[name]
            found[name].append(
                [*areas, own.pixel_accuracy.value, own.mean_iou.value, own.mean_ap.value]
            )
    return {name: np.array(each) for name, each in found.items()}


def _planted(methods: Any, samples: Any, setting: Setting) -> dict[str, Array]:
    from palrp_onnx.evaluate.planted import precisions

    truth = json.loads((setting.folder / "truth.json").read_text())
    return precisions(methods, samples, truth)


def _stability(methods: Any, samples: Any, setting: Setting) -> dict[str, Array]:
    from palrp_onnx.evaluate.stability import Replacement, stability

    rows: dict[str, list[list[float]]] = {name: [] for name in methods}
    for sample in samples:
        for name, each in stability(methods, [sample], Replacement(setting.unknown)).items():
            rows[name].append([each.signed.value, each.magnitude.value])
    return {name: np.array(each) for name, each in rows.items()}


def _agreement(methods: Any, samples: Any, setting: Setting) -> dict[str, Array]:
    """Rank correlation of maps with those of the same model in eight and four bits."""
    from palrp_onnx.evaluate.maps import in_turn, target_text
    from palrp_onnx.evaluate.statistics import spearman
    from palrp_onnx.model.open import Model

    for form in ("int8", "nbits"):
        if form not in setting.forms:
            place = setting.folder.with_name(f"{setting.folder.name}-{form}")
            model = Model.open(place / "model.onnx")
            setting.forms[form] = {name: setting.build(name, model) for name in methods}
    rows: dict[str, list[list[float]]] = {name: [] for name in methods}
    for sample in samples:
        plain = list(in_turn(methods, sample, "pred"))
        target = target_text(plain[0][1], "pred")
        others = [
            {n: m for n, _, m in in_turn(form, sample, target)} for form in setting.forms.values()
        ]
        for name, _, own in plain:
            rows[name].append([spearman(own, other[name]) or 0.0 for other in others])
    return {name: np.array(each) for name, each in rows.items()}


def _randomisation(methods: Any, samples: Any, setting: Setting) -> dict[str, Array]:
    from palrp_onnx.evaluate.randomisation import randomisation
    from palrp_onnx.model.open import Model

    found = randomisation(
        Model.open(setting.folder / "model.onnx"),
        lambda other: {name: setting.build(name, other) for name in methods},
        lambda: samples,
        draws=3,
    )
    return {
        name: np.array([[step.magnitude.value for step in each.steps]])
        for name, each in found.items()
    }


MEASURED = {
    "text": _texts,
    "image": _images,
    "planted": _planted,
    "stability": _stability,
    "agreement": _agreement,
    "randomisation": _randomisation,
}


# --- all parts ------------------------------------------------------------------------------------
def parts(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Name of the result, and command, of every part whose data is there."""
    for name, task in TASKS.items():
        place = folder / (task.model or name)
        chosen = not options.only or any(name.startswith(each) for each in options.only)
        if not chosen or not (place / "model.onnx").exists():
            continue
        together = task.together or len(task.methods)
        for start in range(0, len(task.methods), together):
            methods = list(task.methods[start : start + together])
            samples = min(options.samples, SANITY.get(task.kind, 10**6))
            command = ["part", str(place), name, "--splits", *options.splits]
            command += ["--device", options.device, "--seconds", str(options.seconds)]
            command += ["--samples", str(samples), "--methods"]
            first = [] if start == 0 else [task.methods[0]]
            yield f"{name}.{start}", [*command, *first, *methods]


def run_all(folder: Path, results: Path, options: argparse.Namespace) -> None:
    """Run all parts in processes."""
    results.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def one(part: tuple[str, list[str]]) -> None:
        name, command = part
        place = results / name
        if place.with_name(f"{name}.test.npz").exists():
            return
        start = time.monotonic()
        own = [sys.executable, __file__, *command, "--place", str(place)]
        found = subprocess.run(own, env=environment, capture_output=True, text=True, check=False)
        said = "done" if not found.returncode else f"FAILED: {found.stderr.strip()[-600:]}"
        left = [line for line in found.stderr.splitlines() if "left out" in line]
        print(f"{time.monotonic() - start:6.0f} s  {name}  {said}", *left, sep="\n  ", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, parts(folder, options)))


def gather(results: Path) -> dict[tuple[str, str], tuple[list[str], dict[str, Array]]]:
    """All parts of a task and a split, joined: names of inputs, values by method."""
    rows: dict[tuple[str, str], dict[str, dict[str, Array]]] = {}
    for path in sorted(results.glob("*.npz")):
        name, *_, split, _ = path.name.split(".")
        with np.load(path) as archive:
            ids = archive["names"].tolist()
            for method in archive.files:
                if method != "names" and len(archive[method]):
                    own = rows.setdefault((name, split), {}).setdefault(method, {})
                    numbers = archive[method]
                    keys = ids if len(numbers) == len(ids) else range(len(numbers))
                    for key, row in zip(keys, numbers, strict=True):
                        own.setdefault(str(key), row)
    found = {}
    for key, methods in rows.items():
        common = sorted(set.intersection(*(set(own) for own in methods.values())))
        found[key] = common, {m: np.stack([own[k] for k in common]) for m, own in methods.items()}
    return found


def write_part(place: Path, names: list[str], values: Mapping[str, Array]) -> None:
    """Write what was measured in one go, so that an interrupted part leaves nothing."""
    scratch = place.with_name(f"{place.name}.tmp")
    with scratch.open("wb") as stream:
        np.savez_compressed(stream, **{"names": np.array(names, str), **values})
    scratch.rename(place)


# --- tables ---------------------------------------------------------------------------------------
TEXT_MEASURES = ("gen. AUAC", "gen. MSE", "prun. AUAC", "prun. MSE", "compr.", "between")
MEASURES = {
    "text": dict(zip(TEXT_MEASURES, (True, False, True, False, True, True), strict=True)),
    "image": {"positive": False, "negative": True, "pixel accuracy": True, "IoU": True, "AP": True},
    "planted": {"magnitude": True, "signed": True},
    "stability": {"signed": True, "magnitude": True},
    "agreement": {"int8": True, "4 bits": True},
    "randomisation": {"25 %": False, "50 %": False, "75 %": False, "100 %": False},
}
RIVAL = "attnlrp"


def tables(results: Path) -> str:
    """Choices on the tuning splits, then tables of the test splits."""
    from palrp_onnx.evaluate.choice import choose

    found = gather(results)
    lines = ["## Choices on the tuning splits", ""]
    chosen = {}
    for family in dict.fromkeys(task.family for task in TASKS.values() if task.family):
        own = [n for n, t in TASKS.items() if t.family == family and (n, "tuning") in found]
        if not own:
            continue
        methods = [m for m in found[own[0], "tuning"][1] if m != "random"]
        methods = [m for m in methods if all(m in found[n, "tuning"][1] for n in own)]
        joined, higher = _joined([found[n, "tuning"] for n in own], methods, own)
        choice = choose(joined, higher)
        chosen[family] = choice.best
        lines.append(
            f"**{family}** ({', '.join(own)}; {choice.samples} inputs each): `{choice.best}`, "
            f"chosen by {choice.sure:.0%} of resampled sets. Mean ranks: "
            + ", ".join(f"{n} {each.rank:.1f}" for n, each in list(choice.methods.items())[:8])
        )
    for (name, split), (ids, values) in found.items():
        if split == "test" and name in TASKS:
            task = TASKS[name]
            lines += ["", f"**{name}**, {len(ids)} inputs", ""]
            lines += table(values, MEASURES[task.kind], chosen.get(task.family, ""))
    return "\n".join(lines) + "\n"


def summary(results: Path) -> dict[str, Any]:
    """Mean and ends of the 95 % interval of every measure, by task and split, and method."""
    from palrp_onnx.evaluate.statistics import mean_interval

    found = {}
    for (name, split), (ids, values) in gather(results).items():
        measures = MEASURES[TASKS[name].kind]
        found[f"{name}, {split}"] = {
            "inputs": len(ids),
            "methods": {
                method: {
                    key: [round(float(n), 4) for n in (column.mean(), *mean_interval(column))]
                    for key, column in zip(measures, own.T, strict=True)
                }
                for method, own in values.items()
            },
        }
    return found


def _joined(
    parts: Sequence[tuple[list[str], dict[str, Array]]],
    methods: Sequence[str],
    names: Sequence[str],
) -> tuple[dict[str, Array], dict[str, bool]]:
    """The measures of several tasks side by side, each task with the same number of inputs."""
    count = min(len(ids) for ids, _ in parts)
    values = {m: np.concatenate([own[m][:count] for _, own in parts], axis=1) for m in methods}
    higher = {
        f"{name}: {key}": high for name in names for key, high in MEASURES[TASKS[name].kind].items()
    }
    return values, higher


def table(values: Mapping[str, Array], measures: Mapping[str, bool], chosen: str) -> list[str]:
    """Means ± half of the interval; bold: level with the best, input by input."""
    from palrp_onnx.evaluate.statistics import mean_interval

    order = sorted(values, key=lambda name: (name == "random", list(values).index(name)))
    best = [
        (max if high else min)(values, key=lambda name: values[name][:, k].mean())
        for k, high in enumerate(measures.values())
    ]
    lines = ["| | " + " | ".join(f"{m} {'↑' if h else '↓'}" for m, h in measures.items()) + " |"]
    lines.append("|---" * (len(measures) + 1) + "|")
    for name in order:
        cells = []
        for k in range(len(measures)):
            column = values[name][:, k]
            low, high = mean_interval(column)
            text = f"{column.mean():.3f} ± {(high - low) / 2:.3f}"
            ends = mean_interval(column - values[best[k]][:, k])
            cells.append(f"**{text}**" if ends[0] <= 0 <= ends[1] else text)
        label = f"{name} (chosen)" if name == chosen else name
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    if chosen in values and RIVAL in values:
        cells = []
        for k in range(len(measures)):
            difference = values[chosen][:, k] - values[RIVAL][:, k]
            low, high = mean_interval(difference)
            text = f"{difference.mean():+.3f} ({low:+.3f} … {high:+.3f})"
            cells.append(f"**{text}**" if low > 0 or high < 0 else text)
        lines.append(f"| {chosen} − {RIVAL} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("data", "run", "part", "tables"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("results", nargs="?")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10**6)
    parser.add_argument("--samples", type=int, default=10**6)
    parser.add_argument("--only", nargs="+", default=[], help="beginnings of names of tasks")
    parser.add_argument("--splits", nargs="+", default=["tuning", "test"])
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--place", type=Path)
    parser.add_argument("--smollm2", type=Path, help="folder of models/smollm2.py export")
    parser.add_argument("--planted", type=Path, help="folder of models/train_planted.py")
    parser.add_argument("--pictures", type=int, default=350)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/palrp-models"))
    options = parser.parse_args()
    if options.command == "data":
        make_data(options.folder, options)
    elif options.command == "run":
        run_all(options.folder, Path(options.results), options)
    elif options.command == "part":
        run_part(TASKS[options.results], options.folder, options)
    else:
        if options.place is not None:
            options.place.write_text(json.dumps(summary(options.folder), indent=1) + "\n")
        print(tables(options.folder))


if __name__ == "__main__":
    main()
