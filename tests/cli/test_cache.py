"""``palrp-onnx cache``, and ``--no-cache``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

pytestmark = pytest.mark.quick

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PALRP_ONNX_CACHE", "1")
    return tmp_path / "home" / "palrp-onnx"


def test_show_and_clear(model: Path, text: Path, home: Path, run: Run) -> None:
    assert "entries  0" in run("cache", "show").stdout
    first = run("explain", model, "--input", text, "-q")
    shown = run("cache", "show").stdout
    assert f"folder   {home}" in shown and "entries  2" in shown
    assert run("explain", model, "--input", text, "-q").exit_code == first.exit_code == 0
    assert "removed 2 entries" in run("cache", "clear").stderr
    assert list(home.iterdir()) == []
    assert "removed 0 entries" in run("cache", "clear").stderr


@pytest.mark.parametrize("command", ["explain", "batch"])
def test_no_cache_writes_nothing(
    command: str, model: Path, text: Path, home: Path, run: Run, tmp_path: Path
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    text = text.rename(texts / text.name)
    given = texts if command == "batch" else text
    done = run(command, model, "--input", given, "-o", tmp_path / "out", "-q", "--no-cache")
    assert done.exit_code == 0, done.stderr
    assert not home.exists()
    assert os.environ["PALRP_ONNX_CACHE"] == "1"


def test_the_variable_switches_it_off(
    model: Path, text: Path, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALRP_ONNX_CACHE", "0")
    assert run("explain", model, "--input", text, "-q").exit_code == 0
    assert not home.exists()


def test_a_folder_of_others_is_an_error_of_these_commands_alone(
    model: Path, text: Path, home: Path, run: Run
) -> None:
    home.mkdir(parents=True)
    home.chmod(0o777)
    assert run("explain", model, "--input", text, "-q").exit_code == 0
    assert list(home.iterdir()) == []
    for command in ("show", "clear"):
        done = run("cache", command)
        assert done.exit_code == 3 and "not of this user alone" in done.stderr
