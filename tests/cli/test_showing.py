"""``--text``, ``--open`` and the map in the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from palrp_onnx.cli import showing

Run = Callable[..., Result]


def test_a_text_itself(run: Run, model: Path, text: Path) -> None:
    words = text.read_text(encoding="utf-8")
    said = json.loads(run("explain", model, "--text", words).stdout)
    read = json.loads(run("explain", model, "--input", text).stdout)
    assert (said["id"], said["relevance"]) == ("text", read["relevance"])
    assert run("explain", model, "--text", "").exit_code == 3


@pytest.mark.parametrize("further", [[], ["--text", "a", "--input", "-"], ["--chat", "c.json"]])
def test_one_input(run: Run, model: Path, further: list[str]) -> None:
    given = further if "--chat" not in further else [*further, "--text", "a"]
    result = run("explain", model, *given)
    assert result.exit_code == 2
    assert "--input FILE, --text TEXT, or --chat" in result.stderr


def test_what_was_written_is_opened(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(click, "launch", lambda place, **_: opened.append(place) or 0)
    command = ("explain", model, "--text", "a film", "--open")
    page, folder = tmp_path / "map.html", tmp_path / "out"
    assert run(*command, "-o", page).exit_code == 0
    assert run(*command, "-o", folder).exit_code == 0
    assert run(*command, "-o", folder, "--format", "png,html").exit_code == 0
    assert opened == [str(page), str(folder / "text.png"), str(folder / "text.html")]
    report = ("report", folder / "text.json", "-o", tmp_path / "run.html", "--open")
    assert run(*report).exit_code == 0
    runs = ("compare", folder, folder, "--open", "-o")
    assert run(*runs, tmp_path / "both.html").exit_code == 0
    assert opened[3:] == [str(tmp_path / "run.html"), str(tmp_path / "both.html")]
    for wrong in (command, (*command, "-o", "map.json"), runs[:-1], (*runs, "both.json")):
        result = run(*wrong)
        assert (result.exit_code, "none is written" in result.stderr) == (2, True)
    monkeypatch.setattr(click, "launch", lambda *_, **__: 3)
    result = run(*command, "-o", page)
    assert (result.exit_code, page.exists()) == (7, True)


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal of POSIX")
@pytest.mark.parametrize(
    ("term", "colours", "mapped"),
    [("xterm-256color", b"48;5;", True), ("xterm", b"48;5;", True), ("dumb", b"", False)],
)
def test_a_terminal_gets_a_map(model: Path, term: str, colours: bytes, mapped: bool) -> None:
    shown = _in_terminal(model, term)
    assert (b'"schema"' in shown) is not mapped
    assert colours in shown
    assert b'"schema"' in _in_terminal(model, term, "-o", "-")


def _in_terminal(model: Path, term: str, *further: str) -> bytes:
    code = "from palrp_onnx.cli.main import main; main()"
    command = [sys.executable, "-c", code, "explain", str(model), "--text", "a film", *further]
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLORTERM")}
    ours, theirs = os.openpty()
    with subprocess.Popen(
        command, stdout=theirs, stderr=subprocess.DEVNULL, env={**kept, "TERM": term}
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 1 << 16):
                shown += piece
        except OSError:  # Linux's way to say that the other end is closed
            pass
        assert process.wait(timeout=60) == 0
    os.close(ours)
    return shown


def test_no_colour_is_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert showing.colours_of_stdout() is None
