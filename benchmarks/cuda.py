"""The compiled engine on a GPU compared with the CPU, in full and in half precision.

    python benchmarks/cuda.py                 # with an NVIDIA GPU and ".[gpu]" installed
    python benchmarks/cuda.py --device cpu    # the same checks without one

Explains random inputs with the models of this repository, unchanged and converted to float16, on
the device and on the CPU. One row each: the provider in the record, the largest difference of the
maps over the largest value, the residual, and the medians of both times. Exits with 1 if a provider
is not the requested one, maps differ by more than 2e-3 (half precision: 2e-2), or a ledger does not
close.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from engines import feeds_for
from onnxruntime.transformers.float16 import convert_float_to_float16

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

MODELS = Path(__file__).parents[1] / "models"
NAMES = ("reviews-rope", "reviews-bert", "digits-vit")
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
#: Largest allowed (difference of maps, residual), by half precision.
LIMITS = {False: (2e-3, 1e-5), True: (2e-2, 5e-3)}


def explain(path: Path, device: str, rounds: int) -> tuple[np.ndarray[Any, Any], float, str, float]:
    """(maps, residual, provider, median seconds)."""
    explainer = Explainer(path, device=device)
    feeds = feeds_for(explainer.model, 4, 128, vocabulary=8000, side=16)
    sample = Sample("random", "tensors", feeds, InputFacts(kind="tensors"))
    explanations = explainer.explain(sample, "0")
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        explainer.explain(sample, "0")
        times.append(time.perf_counter() - start)
    records = [each.record for each in explanations]
    maps = np.array([record.relevance.total for record in records])
    residual = max(record.residual for record in records)
    return maps, residual, records[0].run.providers[0], float(np.median(times))


def check(name: str, half: bool, device: str, rounds: int) -> bool:
    """Print one row; returns whether it is within the limits."""
    path = MODELS / name / "model.onnx"
    with tempfile.TemporaryDirectory() as folder:
        if half:
            model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
        maps, residual, provider, seconds = explain(path, device, rounds)
        reference, _, _, baseline = explain(MODELS / name / "model.onnx", "cpu", rounds)
    difference = np.abs(maps - reference).max() / np.abs(reference).max()
    most, open_books = LIMITS[half]
    wanted = PROVIDERS[device.partition(":")[0]]
    good = bool(provider == wanted and difference <= most and residual <= open_books)
    kind, verdict = "float16" if half else "float32", "ok" if good else "FAILED"
    print(
        f"{name:<14}{kind:<9}{provider:<24}{difference:>11.1e}{residual:>11.1e}"
        f"{seconds * 1e3:>9.1f}{baseline * 1e3:>9.1f}  {verdict}"
    )
    return good


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda", metavar="cuda[:N]|cpu")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    print(f"{'model':<14}{'weights':<9}{'provider':<24}{'difference':>11}{'residual':>11}", end="")
    print(f"{'ms':>9}{'CPU ms':>9}")
    good = [
        check(name, half, options.device, options.rounds)
        for name in NAMES
        for half in (False, True)
    ]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
