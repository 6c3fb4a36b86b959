"""Peak memory and time of an explanation, as ratios to the plain forward pass.

    python benchmarks/memory.py
    python benchmarks/memory.py --models bert --sizes 512 1024 2048
    python benchmarks/memory.py --models smollm2 --sizes 8192 --ways bounded

Each measurement is a process of its own: ONNX Runtime alone on the file (forward), and the command
line with ``--memory fast`` and ``--memory bounded``. Weights are random. Times are those of the
session's run. Sizes are pixels a side, frames, or tokens. Needs the extra ``export`` for BERT and
LLaMA. Only the standard library is imported, as a child's peak is at least what its parent has.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SIZES = {
    "conv": [512, 1024],
    "video": [32, 64],
    "bert": [512, 1024, 2048],
    "llama": [512, 1024, 2048],
    "smollm2": [512, 2048, 8192],
}
#: Ways to use memory.
WAYS = ["fast", "bounded"]


@dataclass(frozen=True)
class Cost:
    """Peak in MiB, and seconds of the session's run."""

    peak: float
    seconds: float


def measure(command: list[str]) -> Cost:
    """The cost of a process, which prints a record."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    record = json.load(process.stdout)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    return Cost(usage.ru_maxrss / 1024, record["run"]["ms"]["session"] / 1e3)


def row(name: str, size: int, folder: Path, ways: list[str]) -> str:
    """One row: peaks, and ratios to the forward pass."""
    here = Path(__file__)
    made = [sys.executable, str(here.with_name("memory_models.py")), name, str(size), str(folder)]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    model, given = str(folder / name / "model.onnx"), str(folder / name / f"{size}.npz")
    program = str(Path(sys.executable).with_name("palrp-onnx"))
    forward = measure([sys.executable, str(here.with_name("memory_forward.py")), model, given])
    texts = [f"{name:<8}{size:>6}{forward.peak:>10.0f}"]
    for way in ways:
        options = ["--memory", way, "-q", *(["--target", "0"] if name in ("conv", "video") else [])]
        found = measure([program, "explain", model, "--input", given, *options])
        ratios = found.peak / forward.peak, found.seconds / forward.seconds
        texts.append(f"{found.peak:>10.0f}{ratios[0]:>8.2f}{ratios[1]:>8.2f}")
    return "".join(texts)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--sizes", nargs="+", type=int, help="by default those of each model")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "palrp-benchmarks-memory"
    )
    options = parser.parse_args()
    print(f"{'model':<8}{'size':>6}{'forward':>10}", end="")
    print("".join(f"{way:>10}{'peak ×':>8}{'time ×':>8}" for way in options.ways))
    for name in options.models:
        for size in options.sizes or SIZES[name]:
            print(row(name, size, options.cache, options.ways), flush=True)


if __name__ == "__main__":
    main()
