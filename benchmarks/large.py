"""Large language models: peak and time of inspect, compile and explain beside the forecast.

    python benchmarks/large.py FOLDER --names tinyllama-4 --tokens 64 512
    python benchmarks/large.py FOLDER --names llama3-8b-4 --ways bounded

Models are those of ``large_models.py``, written if they are not there, and removed with
``--remove``. Every command is a process of its own; its peak includes pages of the file that are
mapped. With both ways the last column is the largest difference of raw relevance, as a share of
the largest value.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_PROGRAM = str(Path(sys.executable).with_name("palrp-onnx"))


@dataclass(frozen=True)
class Cost:
    """Peak in GB, seconds from start to end, and what was printed."""

    peak: float
    seconds: float
    printed: Any


def measure(*arguments: object) -> Cost:
    """The cost of one command."""
    start = time.perf_counter()
    command = [_PROGRAM, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed with {os.waitstatus_to_exitcode(status)}")
    seconds = time.perf_counter() - start
    return Cost(usage.ru_maxrss * 1024 / 1e9, seconds, json.loads(printed) if printed else None)


def difference(first: Path, second: Path) -> float:
    """The largest difference of two files of raw relevance."""
    code = (
        "import numpy as np, sys; a, b = map(np.load, sys.argv[1:]);"
        "print(max(abs(a[k] - b[k]).max() / abs(a[k]).max() for k in a if abs(a[k]).any()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(first), str(second)], check=True, capture_output=True
    )
    return float(found.stdout)


def rows(name: str, folder: Path, tokens: list[int], ways: list[str]) -> None:
    """Print what one model costs."""
    place = folder / name
    model = place / "model.onnx"
    if not model.exists():
        made = [sys.executable, str(_HERE / "large_models.py"), str(folder), name]
        subprocess.run(made, check=True)
    compiled = place / "explainer.onnx"
    cost = measure("compile", model, "-o", compiled, "--memory", "bounded", "-q")
    size = compiled.stat().st_size / 1e6
    print(f"{name:<14} compile {cost.peak:5.1f} GB {cost.seconds:6.0f} s, {size:.1f} MB")
    compiled.unlink()
    for count in tokens:
        cost = measure("inspect", model, "--tokens", count, "--json")
        forecast = cost.printed["memory"]
        print(f"{name:<14} inspect {cost.peak:5.1f} GB {cost.seconds:6.0f} s")
        raw = []
        for way in ways:
            raw.append(place / f"{way}.npz")
            given = place / f"{count}.npz"
            options = ["--memory", way, "-q", "-o", "-", "--tensors", raw[-1]]
            cost = measure("explain", model, "--input", given, *options)
            expected = forecast[way] / 1e9
            residual = cost.printed["ledger"]["residual_relative"]
            print(
                f"{name:<14} {count:>5} {way:<8} {cost.peak:5.1f} GB, forecast {expected:5.1f} "
                f"({expected / cost.peak - 1:+.0%}), {cost.seconds:6.0f} s, residual {residual:.1e}"
                + (f", differ {difference(*raw):.1e}" if len(raw) > 1 else ""),
                flush=True,
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=["tinyllama-4"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[64, 512], choices=(64, 512))
    parser.add_argument("--ways", nargs="+", default=["fast", "bounded"])
    parser.add_argument("--remove", action="store_true", help="Remove each model afterwards.")
    options = parser.parse_args()
    for name in options.names:
        rows(name, options.folder, options.tokens, options.ways)
        if options.remove:
            shutil.rmtree(options.folder / name)


if __name__ == "__main__":
    main()
