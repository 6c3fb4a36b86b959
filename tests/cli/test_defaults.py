"""Defaults from ``palrp-onnx.toml`` and from variables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = tmp_path / "palrp-onnx.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def label(result: Result) -> str:
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["target"]["label"]
    assert isinstance(found, str)
    return found


def test_the_nearest_place_wins(
    run: Run,
    model: Path,
    text: Path,
    settings: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ("explain", model, "--input", text)
    (predicted,) = {label(run(*command))}
    other = {"NEGATIVE": "POSITIVE", "POSITIVE": "NEGATIVE"}[predicted]
    settings(f'target = "{other}"\n')
    assert label(run(*command)) == other
    settings(f'target = "{predicted}"\n[explain]\ntarget = "{other}"\n')
    assert label(run(*command)) == other
    settings(f'target = "{other}"\n[batch]\ntarget = "{other}"\n')
    monkeypatch.setenv("PALRP_ONNX_TARGET", predicted)
    assert label(run(*command)) == predicted
    monkeypatch.setenv("PALRP_ONNX_EXPLAIN__TARGET", other)
    assert label(run(*command)) == other
    assert label(run(*command, "--target", predicted)) == predicted


def test_verbose_says_what_is_from_where(
    run: Run,
    model: Path,
    text: Path,
    settings: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings('positions = "abs"\ndtype = "float64"\n')
    monkeypatch.setenv("PALRP_ONNX_FAIL_ON", "residual>1 truncated")
    result = run("explain", model, "--input", text, "--dtype", "float32", "-v")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[:2] == [
        "default from palrp-onnx.toml: --positions abs",
        "default from PALRP_ONNX_FAIL_ON: --fail-on residual>1 truncated",
    ]


def test_a_file_elsewhere(
    run: Run, model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "other.toml"
    place.write_text('fail-on = ["residual>=0", "truncated"]\nquiet = true\n', encoding="utf-8")
    command = ("explain", model, "--input", text)
    assert run(*command, "--config", place).exit_code == 5
    assert run(*command, "--config", place).stderr.count("\n") == 2
    monkeypatch.setenv("PALRP_ONNX_CONFIG", str(place))
    assert run(*command).exit_code == 5
    monkeypatch.setenv("PALRP_ONNX_CONFIG", str(tmp_path / "missing.toml"))
    assert "missing.toml cannot be read" in run(*command).stderr


def test_groups_have_tables(run: Run, settings: Callable[[str], Path]) -> None:
    settings("[evaluate.pixels]\nquiet = true\n")
    assert run("evaluate", "pixels", "--help").exit_code == 0
    assert "'MODEL'" in run("evaluate", "pixels").stderr
    settings("[evaluate.pixel]\nquiet = true\n")
    assert "[pixel] is no command. Did you mean 'pixels'?" in run("evaluate", "pixels").stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("targt = 1", "'targt' is no option. Did you mean 'target'"),
        ("[explian]", "[explian] is no command. Did you mean 'explain'?"),
        ("[explain]\nshard = 1", "'shard' is no option"),
        ("target = [1]", "--target cannot be [1]"),
        ("target = 1979-05-27", "--target cannot be datetime.date"),
        ("engine = 'fast'", "'fast' is not one of"),
        ("batch-size = 1\ntarget", "cannot be read"),
        ("\0", "cannot be read"),
    ],
)
def test_mistakes_in_the_file_are_named(
    run: Run, model: Path, settings: Callable[[str], Path], text: str, message: str
) -> None:
    settings(text)
    result = run("explain", model, "--text", "a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_variables_of_a_platform_are_left_alone(
    run: Run, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALRP_ONNX_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("PALRP_ONNX_PORT", "tcp://10.0.0.1:80")
    assert run("explain", model, "--input", text).exit_code == 0


def test_the_file_can_be_left_out(
    run: Run, model: Path, text: Path, settings: Callable[[str], Path]
) -> None:
    settings("no toml")
    assert run("explain", model, "--input", text).exit_code == 2
    assert run("explain", model, "--input", text, "--config", "/dev/null").exit_code == 0
