"""``compare``: what is printed, written and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

pytestmark = pytest.mark.quick

Run = Callable[..., Result]


@pytest.fixture
def runs(run: Run, model: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two methods over two texts; the second run has a third text."""
    texts = {"one": "a good film", "two": "a bad film", "three": "film"}
    folders = tmp_path / "pa-lrp", tmp_path / "attnlrp"
    for folder in folders:
        for name, text in texts.items():
            if name == "three" and folder == folders[0]:
                continue
            (tmp_path / f"{name}.txt").write_text(text)
            options = ["--method", folder.name, "--format", "json", "-o", f"{folder}/"]
            found = run("explain", model, "--input", tmp_path / f"{name}.txt", *options)
            assert found.exit_code == 0, found.output
    return folders


def test_a_run_agrees_with_itself(run: Run, runs: tuple[Path, Path]) -> None:
    found = run("compare", runs[0], runs[0], "--json", "--fail-on", "worst_correlation<1")
    assert found.exit_code == 0, found.output
    agreement = json.loads(found.stdout)
    assert agreement["compared"] == 2
    assert agreement["same_target"] == 1
    assert agreement["correlation"]["mean"] == 1


def test_the_table(run: Run, runs: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / "agreement.json"
    found = run("compare", *runs, "-o", place)
    assert found.exit_code == 0, found.output
    assert "2 pairs compared (2 by units)" in found.stdout
    assert "only here: 1 (three)" in found.stdout
    assert "pa-lrp" in found.stdout and "attnlrp" in found.stdout
    assert json.loads(place.read_text())["b"]["only"] == ["three"]


def test_the_page(run: Run, runs: tuple[Path, Path], tmp_path: Path) -> None:
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for place in pages:
        assert run("compare", *runs, "-o", place, "--worst", 1).exit_code == 0
    html = pages[0].read_text(encoding="utf-8")
    assert html == pages[1].read_text(encoding="utf-8")
    assert html.count("<svg") == 2
    assert html.count("<circle") == 4
    assert html.count('<article class="record"') == 2
    assert "only here: 1 (<bdi>three</bdi>)" in html


@pytest.mark.parametrize("check", ["unmatched>0", "overlap<=1", "same_target>0.5"])
def test_a_check_that_fails(run: Run, runs: tuple[Path, Path], check: str) -> None:
    found = run("compare", *runs, "--fail-on", check)
    assert found.exit_code == 5
    assert "pairs compared" in found.stdout  # the result is there all the same
    assert check.split("<")[0].split(">")[0] in found.stderr


@pytest.mark.parametrize("check", ["residual>1", "correlation", "correlation<many"])
def test_a_check_that_is_none(run: Run, runs: tuple[Path, Path], check: str) -> None:
    assert run("compare", *runs, "--fail-on", check).exit_code == 2


def test_nothing_to_compare(run: Run, runs: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("compare", runs[0], empty).exit_code == 3
