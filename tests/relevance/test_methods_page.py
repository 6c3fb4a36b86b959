"""``docs/methods.md`` says what the table of methods says, and its code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import write_methods

from palrp_onnx.relevance.methods import BASELINES, METHODS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_package() -> None:
    assert write_methods.written(PAGE) == PAGE, "Run: python docs/write_methods.py"


@pytest.mark.parametrize("name", [*METHODS, *BASELINES])
def test_every_formula_is_there(name: str) -> None:
    assert PAGE.count(f"\n| `{name}` | ") >= 2, f"{name} has no row in a table of formulas"


def test_a_method_of_ones_own() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    name, residual = done.stdout.split()
    assert name == "uneven:share=0.2"
    assert abs(float(residual)) < 1e-5
