"""The paper's experiments on images; the command can be repeated to resume them.

    python benchmarks/pictures.py
    python benchmarks/pictures.py digits-vit --samples 20 --methods pa-lrp attnlrp

Held-out pictures of the two vision models, written by the scripts that trained them, with masks
that are known by construction: clothes pasted onto photographs, and the strokes of digits. Pixels
are replaced by the mean of the image. Results are written to docs/results as JSON, journals to the
cache.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
#: Models, and the scripts that write their pictures.
MODELS = {"clothes-vit": "train_clothes.py", "digits-vit": "train_digits.py"}
METHODS = (
    "pa-lrp attnlrp pe-only pa-lrp-kept attnlrp-kept pa-lrp-adaptive pa-lrp-gamma attnlrp-gamma "
    "pa-lrp-alpha cp-lrp pa-cp-lrp cp-lrp-gamma eps-lrp gradient-x-input ig rollout chefer"
).split()


def measure(name: str, options: argparse.Namespace) -> None:
    """Both evaluations of one model."""
    pictures = options.cache / f"pictures-{name}-{options.samples}"
    script = ROOT / "models" / MODELS[name]
    _run(sys.executable, script, "--write", pictures, "--samples", options.samples)
    own = {
        "pixels": ("--baseline", "mean", "--classes", pictures / "classes.json"),
        "segmentation": ("--masks", pictures / "masks"),
    }
    for command, arguments in own.items():
        journal = options.cache / f"journal-{command}-{name}-{options.samples}.jsonl"
        methods = (part for each in options.methods for part in ("--method", each))
        print(f"{name}: {command}", flush=True)
        _run(
            *("palrp-onnx", "evaluate", command, ROOT / "models" / name / "model.onnx"),
            *("--input", pictures / "images", *arguments, *methods, "--journal", journal),
            *("-o", RESULTS / f"{command}-{name}.json"),
        )


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "palrp-models")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        measure(name, options)


if __name__ == "__main__":
    main()
