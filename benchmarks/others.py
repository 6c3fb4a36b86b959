"""Files of other projects: how many are explained, and why the others are refused.

    python benchmarks/others.py FOLDER [--only TEXT] [--jobs N] [--table FILE.md]

FOLDER holds models, each with an input of the same name (``.npz``) that plain ONNX Runtime runs; if
there is none, it is synthetic. The folder may hold an ``index.json``: a list of objects with
``file`` and ``repo``. Every file is explained by the command line program. A file is *explained* if
the exit code is 0, the ledger closes to 1e-3 and not all of its entries are zero, *wrong* if the
exit code is 0 and the ledger is not so, and otherwise *refused*; reasons are counted. Nothing is
copied from the folder.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from palrp_onnx import Model
from palrp_onnx.errors import PalrpError
from palrp_onnx.prepare import make_example
from palrp_onnx.record import LEDGER_SUMS

TOOL = Path(sys.executable).with_name("palrp-onnx")
#: Targets that are tried one after the other; outputs without classes need an element.
TARGETS = ("pred", "0", "0,0", "0,0,0")
CLOSED = 1e-3
SECONDS = 180


def verdict(model: Path) -> tuple[str, str]:
    """("explained" | "wrong" | "refused", reason) of one file."""
    errors = ""
    with tempfile.TemporaryDirectory() as folder:
        out, feeds = Path(folder) / "record.json", model.with_suffix(".npz")
        if not feeds.is_file():
            feeds = Path(folder) / "input.npz"
            try:
                np.savez(feeds, **make_example(Model.open(model)))
            except PalrpError as error:
                return "refused", reason(f"error[{error.code}]: {error.message}")
        for target in TARGETS:
            call = [TOOL, "explain", model, "--input", feeds, "-o", out, "-q", "--target", target]
            try:
                done = subprocess.run(
                    [str(part) for part in call], capture_output=True, text=True, timeout=SECONDS
                )
            except subprocess.TimeoutExpired:
                return "refused", f"takes more than {SECONDS} s"
            if done.returncode == 0:
                return judged(json.loads(out.read_text()))
            errors = done.stderr
            if "target" not in errors.lower():
                break
    return "refused", reason(errors)


def judged(found: Any) -> tuple[str, str]:
    """Whether the ledgers of all rows close."""
    for record in found if isinstance(found, list) else [found]:
        ledger = record["ledger"]
        nothing = not any(v for k, v in ledger.items() if k not in LEDGER_SUMS)
        if abs(ledger["residual_relative"]) >= CLOSED or (nothing and abs(ledger["target"]) > 1e-6):
            return "wrong", f"residual {ledger['residual_relative']:.1e}"
    return "explained", ""


def reason(errors: str) -> str:
    """The first line of an error, without numbers and names of the file."""
    lines = [line for line in errors.splitlines() if line.startswith("error")]
    text = re.sub(r"^error\[(\w+)\]: ", r"\1: ", lines[0] if lines else "no message")
    text = re.sub(r"'[^']*'", "…", text)
    return re.sub(r"\[[\d, ]*\]|\d+", "N", text)


def main() -> None:
    """Explain all files, and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    index = options.folder / "index.json"
    rows = json.loads(index.read_text()) if index.is_file() else []
    projects = {row["file"]: row["repo"] for row in rows if "repo" in row}
    models = sorted(options.folder.rglob("*.onnx"))
    models = [m for m in models if options.only in f"{projects.get(m.name, '')} {m}"]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        for model, (kind, why) in zip(models, pool.map(verdict, models), strict=True):
            counts[projects.get(model.name, str(model.parent.name))][kind] += 1
            if kind != "explained":
                reasons[f"{kind}: {why}"] += 1
                print(f"{kind:10}{model.name}  {why}")
    table = markdown(counts, reasons)
    print(table)
    if options.table is not None:
        options.table.write_text(table, encoding="utf-8")


def markdown(counts: dict[str, Counter[str]], reasons: Counter[str]) -> str:
    """Both tables."""
    kinds = ("explained", "refused", "wrong")
    total = sum((c for c in counts.values()), Counter[str]())
    lines = ["| project | files | explained | refused | wrong |", "|---|---|---|---|---|"]
    for name, found in [*sorted(counts.items()), ("**all**", total)]:
        cells = [str(found.total()), *(str(found[kind]) for kind in kinds)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| why not | files |", "|---|---|"]
    lines += [f"| {why} | {count} |" for why, count in reasons.most_common()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
