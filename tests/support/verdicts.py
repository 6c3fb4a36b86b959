"""Whether ``inspect`` and ``explain`` agree that a file can be explained.

``python tests/support/verdicts.py FOLDER`` compares them for every ``NAME.onnx`` of a folder that
has an input ``NAME.npz`` beside it, and prints where they disagree.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from palrp_onnx.cli.main import program


@dataclass(frozen=True)
class Verdicts:
    """What the two commands say of one file.

    Attributes:
        inspected: Whether ``inspect`` says that it can be explained.
        explained: Whether ``explain`` explains it.
        inspection, explanation: What they print where they refuse it.
    """

    inspected: bool
    explained: bool
    inspection: str
    explanation: str

    @property
    def agree(self) -> bool:
        """Whether they say the same."""
        return self.inspected == self.explained


def verdicts(model: Path, example: Path) -> Verdicts:
    """Ask both commands."""
    inspection = _run("inspect", str(model), "--example", str(example), "--json")
    inspected, said = inspection.exit_code == 0, inspection.stderr
    if inspected:
        report = json.loads(inspection.stdout)
        inspected, said = report["explainable"], report["verdict"]
    explanation = _explained(model, example)
    return Verdicts(inspected, explanation.exit_code == 0, said, explanation.stderr)


def _explained(model: Path, example: Path) -> Result:
    """The explanation of the first element where the output has no classes."""
    with tempfile.TemporaryDirectory() as folder:
        call = ["explain", str(model), "--input", str(example), "-q", "-o", f"{folder}/o.json"]
        for target in ([], ["0"], ["0,0"], ["0,0,0"]):
            result = _run(*call, *(["--target", *target] if target else []))
            if result.exit_code == 0 or "--target" not in result.stderr:
                break
    return result


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(program, arguments)


def compared(folder: Path) -> Iterator[tuple[Path, Verdicts]]:
    """All files of a folder with an input."""
    for model in sorted(folder.glob("*.onnx")):
        example = model.with_suffix(".npz")
        if example.exists():
            yield model, verdicts(model, example)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    counts: Counter[str] = Counter()
    for path, found in compared(options.parse_args().folder):
        counts["agree" if found.agree else "disagree"] += 1
        if not found.agree:
            print(path.name, "inspect:", " ".join(found.inspection.split()))
            print(" " * len(path.name), "explain:", " ".join(found.explanation.split()) or "yes")
    print(dict(counts))
    sys.exit(bool(counts["disagree"]))
