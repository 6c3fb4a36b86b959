"""The notebooks run in a real kernel, from a folder like any reader's, and show their maps."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from committed import ROOT

FOLDER = ROOT / "docs" / "notebooks"


def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "docs/run_notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_runs(path: Path) -> None:
    done = outputs(runner().run(path))
    assert not [each for each in done if each.output_type == "error"]
    shown = [each["data"]["text/html"] for each in done if "text/html" in each.get("data", {})]
    assert shown and all("http" not in each for each in shown)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_is_stored_with_what_it_shows(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert outputs(notebook), "Run: python docs/run_notebooks.py"
    assert str(ROOT) not in path.read_text(encoding="utf-8")
