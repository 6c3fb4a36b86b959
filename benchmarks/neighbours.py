"""Costs of explanations in comparison with other programs, each in its own environment.

    python benchmarks/neighbours.py --prepare    # environments, weights and inputs, once
    python benchmarks/neighbours.py

On one LLaMA-like classifier (twelve layers, random weights, 128 tokens), the compiled engine and
the plain forward session on its ONNX file are compared with LXT's efficient AttnLRP on the same
weights in PyTorch; exits with 1 if the maps disagree. On models of this repository, the compiled
engine is compared with DIANNA's RISE (text) and KernelSHAP (image) with their default numbers of
masks: RISE predicts 9 × 1,000 masked texts to tune its share of masks and 1,000 to explain,
KernelSHAP somewhat more than 2,048 images.

Every program is a child process. Warm processes explain in turn, round by round, so that a busy
machine slows all of them; each reports the wall and CPU time of one explanation. Fresh processes
are timed from their start to the map on disk; that of this project is the command line program.
Peaks of resident memory are those that the system reports for each process, mapped weights
included.

ONNX Runtime uses as many threads as the machine has cores, PyTorch ``--threads``; make both equal
to compare. PyTorch's waiting threads use the CPU, which slows it many times if other processes need
the CPU too: LXT runs with its defaults and with sleeping waits, and ratios use the better of both,
figure by figure.

Needs Linux and the extras ``export`` and ``cpu``. PyTorch is installed from the index that
pip is configured for; prefer a CPU build, a CUDA build is larger. Installed versions are printed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from child_processes import Cost, Machine, Program, measure_starts, measure_warm

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
#: Environment → its packages. This version of transformers is the one that LXT was tested with.
REQUIREMENTS = {
    "lxt": ("lxt==2.1", "transformers==4.52.4", "torch==2.13.0", "torchvision==0.28.0"),
    "dianna": (
        "dianna==1.8.1",
        "shap==0.51.0",
        "onnx==1.23.2",
        "onnxruntime==1.32.0",
        "tokenizers==0.23.3",
        "torch==2.13.0",
    ),
}
TOKENS = 128
#: Largest allowed difference of maps of the same weights, as a share of the largest value.
AGREEMENT = 1e-3


@dataclass(frozen=True)
class Cache:
    """The folder of all environments, weights and results."""

    folder: Path

    def environment(self, name: str) -> Path:
        """Folder of a virtual environment."""
        return self.folder / "environments" / name

    def python(self, name: str) -> Path:
        """Its interpreter."""
        return self.environment(name) / "bin" / "python"

    @property
    def weights(self) -> Path:
        """The model, written by ``save_pretrained``."""
        return self.folder / "weights"

    @property
    def model(self) -> Path:
        """The model, exported to ONNX."""
        return self.folder / "llama" / "model.onnx"

    @property
    def tokens(self) -> Path:
        """Input of both."""
        return self.folder / "tokens.npz"

    @property
    def pixels(self) -> Path:
        """The sample digit as the network sees it."""
        return self.folder / "pixels.npz"


def prepare(cache: Cache) -> None:
    """Make what is missing, and environments whose requirements have changed."""
    cache.folder.mkdir(parents=True, exist_ok=True)
    for name, requirements in REQUIREMENTS.items():
        installed = cache.environment(name) / "requirements.txt"
        if not installed.exists() or installed.read_text().split() != list(requirements):
            venv.create(cache.environment(name), clear=True, with_pip=True)
            install = [str(cache.python(name)), "-m", "pip", "install", "-q", *requirements]
            subprocess.run(install, check=True)
            installed.write_text("\n".join(requirements))
    if not cache.model.exists():
        _make_model(cache)
    _make_inputs(cache)


def _make_model(cache: Cache) -> None:
    import torch
    from engines import LLAMA

    from palrp_onnx.export import export_model

    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**LLAMA)
    transformers.LlamaForSequenceClassification(config).eval().save_pretrained(cache.weights)
    export_model(cache.weights, cache.model.parent, task="text-classification")


def _make_inputs(cache: Cache) -> None:
    import numpy as np

    from palrp_onnx import Model
    from palrp_onnx.inputs import open_sample

    tokens = np.random.default_rng(0).integers(5, 30000, size=(1, TOKENS))
    np.savez(cache.tokens, input_ids=tokens, attention_mask=np.ones_like(tokens))
    digits = MODELS / "digits-vit" / "model.onnx"
    inputs = Model.open(digits).inputs
    image = digits.with_name("sample.png")
    sample = open_sample(image, model_path=digits, graph_inputs=inputs, tokenizer=None)
    np.savez(cache.pixels, pixel_values=sample.feeds["pixel_values"])


def palrp_command(*arguments: object) -> tuple[str, ...]:
    """The command line program in this environment."""
    program = "from palrp_onnx.cli.main import main; main()"
    return (sys.executable, "-c", program, *map(str, arguments))


def palrp(model: Path, source: Path, method: str, out: Path) -> Program:
    """This project: warm through the library, fresh through the command line."""
    options = ("--method", method, "--engine", "onnxruntime", "-q", "-o", out)
    return Program(
        child(sys.executable, "palrp_child.py", model, source, method, out).warm,
        palrp_command("explain", model, "--input", source, *options),
        out,
    )


def child(python: str | Path, script: str, *arguments: object, **variables: str) -> Program:
    """A script in this folder, warm and fresh; the last argument is the file for its map."""
    command = (str(python), str(HERE / script), *map(str, arguments))
    return Program(command, (*command, "--once"), Path(command[-1]), variables)


@dataclass(frozen=True)
class Options:
    """Numbers of measurements."""

    rounds: int
    starts: int
    log: IO[str]


def measure(programs: Mapping[str, Program], options: Options) -> dict[str, Cost]:
    """Measure all programs, and print a table. Maps of open children stay on disk."""
    machine = Machine()
    costs = {name: Cost() for name in programs}
    measure_starts(programs, costs, options.starts, options.log)
    versions = measure_warm(programs, costs, options.rounds, options.log)
    print(", ".join(f"{name} {text}" for name, text in versions.items()))
    print(
        f"{'':<32}{'warm ms':>10}{'least ms':>10}{'CPU ms':>10}{'start s':>10}"
        f"{'warm MiB':>10}{'fresh MiB':>10}"
    )
    for name, cost in costs.items():
        print(
            f"{name:<32}{cost.warm * 1e3:>10.1f}{cost.quietest * 1e3:>10.1f}"
            f"{cost.busy * 1e3:>10.1f}{cost.start:>10.2f}"
            f"{cost.warm_peak:>10.0f}{cost.fresh_peak:>10.0f}"
        )
    print(f"other processes used {machine.others():.0%} of the CPUs meanwhile\n", flush=True)
    return costs


Figure = Callable[[Cost], float]


@dataclass(frozen=True)
class Ratio:
    """One comparison with the best of other programs.

    Attributes:
        text: Description of the ratio.
        of: The figure that is compared.
        others: Costs of the other programs.
        goal: Smallest ratio of other over own; with ``inverse`` the largest of own over other.
        inverse: Divide the own figure by the other.
    """

    text: str
    of: Figure
    others: Sequence[Cost]
    goal: float | None = None
    inverse: bool = False

    def row(self, own: Sequence[Cost]) -> str:
        """A column for every own cost, with a star if it reaches the goal."""
        sign = "≤" if self.inverse else "≥"
        goal = "" if self.goal is None else f"{sign} {self.goal:g}"
        return f"{self.text:<34}{goal:>8}" + "".join(self._column(cost) for cost in own)

    def _column(self, own: Cost) -> str:
        value = min(map(self.of, self.others)) / self.of(own)
        if self.inverse:
            value = 1 / value
        reached = self.goal is not None and (value <= self.goal) == self.inverse
        return f"{value:>14.2f}{' *' if reached else '  '}"


def print_ratios(own: Mapping[str, Cost], ratios: Sequence[Ratio]) -> None:
    """Print ratios, with a column for every own cost."""
    print(f"{'ratio (* reaches the goal)':<34}{'goal':>8}" + "".join(f"{n:>14}  " for n in own))
    for ratio in ratios:
        print(ratio.row(list(own.values())))
    print(flush=True)


def compare_with_lxt(cache: Cache, options: Options) -> bool:
    """Costs and ratios on the LLaMA-like classifier, and whether the maps agree."""
    explainer = cache.folder / "explainer.onnx"
    compiling = ("compile", cache.model, "--method", "attnlrp", "-q", "-o", explainer)
    subprocess.run(palrp_command(*compiling), check=True)
    outs = {name: cache.folder / f"{name}.json" for name in ("forward", "lxt", "sleeping")}
    own = {name: cache.folder / f"{name}.json" for name in ("attnlrp", "pa-lrp", "explainer")}
    forward = ("forward_child.py", cache.model, cache.tokens, "logits", outs["forward"])
    lxt = ("lxt_child.py", cache.weights, cache.tokens, "attnlrp")
    python = cache.python("lxt")
    programs = {
        "forward session": child(sys.executable, *forward),
        "attnlrp": palrp(cache.model, cache.tokens, "attnlrp", own["attnlrp"]),
        "pa-lrp": palrp(cache.model, cache.tokens, "pa-lrp", own["pa-lrp"]),
        "explainer": palrp(explainer, cache.tokens, "attnlrp", own["explainer"]),
        "LXT": child(python, *lxt, outs["lxt"]),
        "LXT, sleeping waits": child(python, *lxt, outs["sleeping"], OMP_WAIT_POLICY="PASSIVE"),
    }
    print(
        f"LLaMA-like classifier, 12 layers, {TOKENS} tokens; palrp-onnx: attnlrp, pa-lrp,\n"
        "and an explainer compiled beforehand (attnlrp, without features)"
    )
    costs = measure(programs, options)
    others = [costs["LXT"], costs["LXT, sleeping waits"]]
    session = [costs["forward session"]]
    print_ratios(
        {name: costs[name] for name in own},
        [
            Ratio("warm, LXT / palrp", lambda c: c.warm, others, 1.25),
            Ratio("least of warm, LXT / palrp", lambda c: c.quietest, others),
            Ratio("CPU time of warm, LXT / palrp", lambda c: c.busy, others),
            Ratio("process start to map, LXT / palrp", lambda c: c.start, others, 4),
            Ratio("peak memory warm, palrp / LXT", lambda c: c.warm_peak, others, 0.6, True),
            Ratio("peak memory fresh, palrp / LXT", lambda c: c.fresh_peak, others, 0.6, True),
            Ratio("peak memory warm, palrp / forward", lambda c: c.warm_peak, session, 1.5, True),
            Ratio("peak memory fresh, palrp / forward", lambda c: c.fresh_peak, session, 1.5, True),
            Ratio("warm, palrp / forward", lambda c: c.warm, session, None, True),
        ],
    )
    difference = compare(own["attnlrp"], outs["lxt"])
    print(f"content of attnlrp and of LXT differ by {difference:.1e} of the largest value\n")
    return difference <= AGREEMENT


def compare(own: Path, other: Path) -> float:
    """Largest difference of two maps, as a share of the largest value."""
    left, right = json.loads(own.read_text()), json.loads(other.read_text())
    difference = max(abs(a - b) for a, b in zip(left, right, strict=True))
    return float(difference / max(map(abs, right)))


def compare_with_dianna(cache: Cache, options: Options) -> None:
    """Costs and ratios on models of this repository."""
    bert, digits = MODELS / "reviews-bert", MODELS / "digits-vit"
    cases = {
        "RISE": (bert / "model.onnx", bert / "sample.txt", bert / "sample.txt"),
        "KernelSHAP": (digits / "model.onnx", digits / "sample.png", cache.pixels),
    }
    python = cache.python("dianna")
    for method, (model, source, given) in cases.items():
        dianna = ("dianna_child.py", model, given, method.lower(), cache.folder / "dianna.json")
        programs = {
            "pa-lrp": palrp(model, source, "pa-lrp", cache.folder / "pa-lrp.json"),
            f"DIANNA {method}": child(python, *dianna),
        }
        print(f"{model.parent.name}, {source.name}")
        own, other = measure(programs, options).values()
        print_ratios(
            {"pa-lrp": own},
            [
                Ratio("warm, DIANNA / palrp", lambda c: c.warm, [other], 100),
                Ratio("process start to map, DIANNA / palrp", lambda c: c.start, [other]),
            ],
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prepare", action="store_true", help="make what is missing, and stop")
    parser.add_argument("--others", nargs="+", choices=REQUIREMENTS, default=list(REQUIREMENTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--rounds", type=int, default=7, help="warm explanations in the comparison with LXT"
    )
    parser.add_argument("--slow-rounds", type=int, default=3, help="the same for DIANNA")
    parser.add_argument("--starts", type=int, default=3, help="fresh processes")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "palrp-benchmarks" / "neighbours",
    )
    options = parser.parse_args()
    cache = Cache(options.cache.resolve())
    if options.prepare:
        prepare(cache)
        return
    if not cache.pixels.exists():
        parser.error("nothing is prepared; run with --prepare first")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    print(f"{os.cpu_count()} cores for ONNX Runtime, {options.threads} threads for PyTorch\n")
    agree = True
    with (cache.folder / "children.log").open("w") as log:
        if "lxt" in options.others:
            agree = compare_with_lxt(cache, Options(options.rounds, options.starts, log))
        if "dianna" in options.others:
            compare_with_dianna(cache, Options(options.slow_rounds, options.starts, log))
    if not agree:
        sys.exit(1)


if __name__ == "__main__":
    main()
