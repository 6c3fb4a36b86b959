"""What explaining costs beside others that explain, each in an environment of its own.

    python benchmarks/neighbours.py --prepare    # environments, weights and inputs, once
    python benchmarks/neighbours.py

On one LLaMA-like classifier (twelve layers, random weights, 128 tokens), the compiled engine and
the plain forward session on its ONNX file stand beside LXT's efficient AttnLRP on the same weights
in PyTorch; exits with 1 if the maps disagree. On models of this repository, the compiled engine
stands beside DIANNA's RISE (text) and KernelSHAP (image) with their default numbers of masks: RISE
predicts 9 × 1,000 masked texts to tune its share of masks and 1,000 to explain, KernelSHAP somewhat
more than 2,048 images.

Every contender is a child process. Warm ones explain in turn, round by round, so that a busy
machine slows all of them; each answers with the wall and CPU time of one explanation. Fresh ones
are timed from the start of the process to the map on disk; this project's is the command line
program. Peaks of resident memory are the system's account of each process, mapped weights included.

ONNX Runtime takes as many threads as the machine has cores, PyTorch ``--threads``; compare where
both are the same number. PyTorch's waiting threads burn the CPU, which slows it many times over
where other processes want the CPU too: LXT runs as it comes and with sleeping waits, and ratios
take the better one, figure by figure.

Needs Linux and the extras ``export`` and ``cpu``. PyTorch is installed from wherever pip is
configured to find it: prefer a CPU build, a CUDA build weighs more. Versions found are printed.
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

from contest import Contender, Cost, Machine, measure_starts, measure_warm

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
#: Environment → what is installed there. LXT's release names this transformers as tested.
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
#: Share of the largest value by which maps of the same weights may differ.
AGREEMENT = 1e-3


@dataclass(frozen=True)
class Cache:
    """Where everything made here lies."""

    folder: Path

    def environment(self, name: str) -> Path:
        """Folder of a virtual environment."""
        return self.folder / "environments" / name

    def python(self, name: str) -> Path:
        """Its interpreter."""
        return self.environment(name) / "bin" / "python"

    @property
    def weights(self) -> Path:
        """What ``save_pretrained`` wrote."""
        return self.folder / "weights"

    @property
    def model(self) -> Path:
        """The same, exported."""
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
    """Make what is missing; environments whose requirements have changed are made again."""
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


def palrp(model: Path, source: Path, method: str, out: Path) -> Contender:
    """This project: warm through the library, fresh through the command line."""
    options = ("--method", method, "--engine", "onnxruntime", "-q", "-o", out)
    return Contender(
        child(sys.executable, "ours_child.py", model, source, method, out).warm,
        palrp_command("explain", model, "--input", source, *options),
        out,
    )


def child(python: str | Path, script: str, *arguments: object, **variables: str) -> Contender:
    """A script beside this one, warm and fresh; the last argument is where its map goes."""
    command = (str(python), str(HERE / script), *map(str, arguments))
    return Contender(command, (*command, "--once"), Path(command[-1]), variables)


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    rounds: int
    starts: int
    log: IO[str]


def measure(contenders: Mapping[str, Contender], options: Options) -> dict[str, Cost]:
    """Everything, printed as a table. Maps of open children are left on disk."""
    machine = Machine()
    costs = {name: Cost() for name in contenders}
    measure_starts(contenders, costs, options.starts, options.log)
    versions = measure_warm(contenders, costs, options.rounds, options.log)
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
    """One comparison with others, the best of them.

    Attributes:
        text: What is divided by what.
        of: The figure compared.
        others: Against whom.
        goal: What it should be: at least for theirs over ours, at most for ours over theirs.
        inverse: Ours over theirs.
    """

    text: str
    of: Figure
    others: Sequence[Cost]
    goal: float | None = None
    inverse: bool = False

    def row(self, ours: Sequence[Cost]) -> str:
        """A column for every cost of ours, starred where it reaches the goal."""
        sign = "≤" if self.inverse else "≥"
        goal = "" if self.goal is None else f"{sign} {self.goal:g}"
        return f"{self.text:<34}{goal:>8}" + "".join(self._column(cost) for cost in ours)

    def _column(self, ours: Cost) -> str:
        value = min(map(self.of, self.others)) / self.of(ours)
        if self.inverse:
            value = 1 / value
        reached = self.goal is not None and (value <= self.goal) == self.inverse
        return f"{value:>14.2f}{' *' if reached else '  '}"


def print_ratios(ours: Mapping[str, Cost], ratios: Sequence[Ratio]) -> None:
    """A column for everything of ours."""
    print(f"{'ratio (* reaches the goal)':<34}{'goal':>8}" + "".join(f"{n:>14}  " for n in ours))
    for ratio in ratios:
        print(ratio.row(list(ours.values())))
    print(flush=True)


def against_lxt(cache: Cache, options: Options) -> bool:
    """Costs and ratios on the LLaMA-like classifier, and whether the maps agree."""
    explainer = cache.folder / "explainer.onnx"
    compiling = ("compile", cache.model, "--method", "attnlrp", "-q", "-o", explainer)
    subprocess.run(palrp_command(*compiling), check=True)
    outs = {name: cache.folder / f"{name}.json" for name in ("forward", "lxt", "sleeping")}
    mine = {name: cache.folder / f"{name}.json" for name in ("attnlrp", "pa-lrp", "explainer")}
    forward = ("forward_child.py", cache.model, cache.tokens, "logits", outs["forward"])
    lxt = ("lxt_child.py", cache.weights, cache.tokens, "attnlrp")
    python = cache.python("lxt")
    contenders = {
        "forward session": child(sys.executable, *forward),
        "attnlrp": palrp(cache.model, cache.tokens, "attnlrp", mine["attnlrp"]),
        "pa-lrp": palrp(cache.model, cache.tokens, "pa-lrp", mine["pa-lrp"]),
        "explainer": palrp(explainer, cache.tokens, "attnlrp", mine["explainer"]),
        "LXT": child(python, *lxt, outs["lxt"]),
        "LXT, sleeping waits": child(python, *lxt, outs["sleeping"], OMP_WAIT_POLICY="PASSIVE"),
    }
    print(
        f"LLaMA-like classifier, 12 layers, {TOKENS} tokens; palrp-onnx: attnlrp, pa-lrp,\n"
        "and an explainer compiled beforehand (attnlrp, without features)"
    )
    costs = measure(contenders, options)
    theirs = [costs["LXT"], costs["LXT, sleeping waits"]]
    session = [costs["forward session"]]
    print_ratios(
        {name: costs[name] for name in mine},
        [
            Ratio("warm, LXT / ours", lambda c: c.warm, theirs, 1.25),
            Ratio("least of warm, LXT / ours", lambda c: c.quietest, theirs),
            Ratio("CPU time of warm, LXT / ours", lambda c: c.busy, theirs),
            Ratio("process start to map, LXT / ours", lambda c: c.start, theirs, 4),
            Ratio("peak memory warm, ours / LXT", lambda c: c.warm_peak, theirs, 0.6, True),
            Ratio("peak memory fresh, ours / LXT", lambda c: c.fresh_peak, theirs, 0.6, True),
            Ratio("peak memory warm, ours / forward", lambda c: c.warm_peak, session, 1.5, True),
            Ratio("peak memory fresh, ours / forward", lambda c: c.fresh_peak, session, 1.5, True),
            Ratio("warm, ours / forward", lambda c: c.warm, session, None, True),
        ],
    )
    difference = compare(mine["attnlrp"], outs["lxt"])
    print(f"content of attnlrp beside LXT's: {difference:.1e} of the largest value apart\n")
    return difference <= AGREEMENT


def compare(ours: Path, theirs: Path) -> float:
    """Largest difference of two maps, as a share of the largest value."""
    left, right = json.loads(ours.read_text()), json.loads(theirs.read_text())
    apart = max(abs(a - b) for a, b in zip(left, right, strict=True))
    return float(apart / max(map(abs, right)))


def against_dianna(cache: Cache, options: Options) -> None:
    """Costs and ratios on models of this repository."""
    bert, digits = MODELS / "reviews-bert", MODELS / "digits-vit"
    cases = {
        "RISE": (bert / "model.onnx", bert / "sample.txt", bert / "sample.txt"),
        "KernelSHAP": (digits / "model.onnx", digits / "sample.png", cache.pixels),
    }
    python = cache.python("dianna")
    for method, (model, source, theirs) in cases.items():
        dianna = ("dianna_child.py", model, theirs, method.lower(), cache.folder / "dianna.json")
        contenders = {
            "pa-lrp": palrp(model, source, "pa-lrp", cache.folder / "pa-lrp.json"),
            f"DIANNA {method}": child(python, *dianna),
        }
        print(f"{model.parent.name}, {source.name}")
        ours, other = measure(contenders, options).values()
        print_ratios(
            {"pa-lrp": ours},
            [
                Ratio("warm, DIANNA / ours", lambda c: c.warm, [other], 100),
                Ratio("process start to map, DIANNA / ours", lambda c: c.start, [other]),
            ],
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prepare", action="store_true", help="make what is missing, and stop")
    parser.add_argument("--beside", nargs="+", choices=REQUIREMENTS, default=list(REQUIREMENTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="warm explanations beside LXT")
    parser.add_argument("--slow-rounds", type=int, default=3, help="the same beside DIANNA")
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
        if "lxt" in options.beside:
            agree = against_lxt(cache, Options(options.rounds, options.starts, log))
        if "dianna" in options.beside:
            against_dianna(cache, Options(options.slow_rounds, options.starts, log))
    if not agree:
        sys.exit(1)


if __name__ == "__main__":
    main()
