"""``--method NAME:PARAMETER=NUMBER,…``: everywhere the same, and in everything that is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from palrp_onnx.relevance.methods import BASELINES, METHODS

pytestmark = pytest.mark.quick

Run = Callable[..., Result]
GAMMA = "pa-lrp-gamma:gamma=0.1"
NUMBERS = {"gamma": 0.1, "gamma_conv": 100.0}


@pytest.fixture
def record(run: Run, model: Path, text: Path) -> Callable[..., dict[str, Any]]:
    def explained(*options: object, of: Path = model) -> dict[str, Any]:
        result = run("explain", of, "--input", text, "-q", *options)
        assert result.exit_code == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return explained


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_records_say_the_numbers(record: Callable[..., dict[str, Any]], engine: str) -> None:
    usual = record("--method", "pa-lrp-gamma", "--engine", engine)
    assert usual["run"]["params"] == {"positions": "relu"}
    changed = record("--method", "pa-lrp-gamma: gamma = 1e-1", "--engine", engine)
    assert changed["run"]["method"] == GAMMA
    assert changed["run"]["params"] == {"positions": "relu", "parameters": NUMBERS}
    assert changed["relevance"] != usual["relevance"]
    same = record("--method", "pa-lrp-gamma:gamma=0.05", "--engine", engine)
    assert {**same["run"], "ms": 0} == {**usual["run"], "ms": 0}
    assert same["relevance"] == usual["relevance"]


def test_compiled_files_say_them_too(
    run: Run, record: Callable[..., dict[str, Any]], model: Path, text: Path, tmp_path: Path
) -> None:
    explainer = tmp_path / "explainer.onnx"
    result = run("compile", model, "-o", explainer, "--method", GAMMA)
    assert result.exit_code == 0, result.stderr
    words = ("--tokenizer", model.parent / "tokenizer.json")
    expected = record("--method", GAMMA)
    for asked in ((), ("--method", "pa-lrp-gamma:gamma=.1")):
        found = record(*words, *asked, of=explainer)
        for part in ("method", "params"):
            assert found["run"][part] == expected["run"][part]
        total = expected["relevance"]["total"]
        assert found["relevance"]["total"] == pytest.approx(total, rel=1e-5)
    refused = run("explain", explainer, "--input", text, *words, "--method", "pa-lrp-gamma")
    assert refused.exit_code == 2
    assert "method compiled in" in refused.stderr


def test_batches(run: Run, model: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text('{"text": "a good film"}\n{"text": "a bad film"}\n')
    command = ("batch", model, "--input", records, "-o", tmp_path / "out", "-q", "--method")
    assert run(*command, GAMMA).exit_code == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "part-00000.jsonl").open()]
    assert [each["run"]["params"]["parameters"] for each in lines] == [NUMBERS] * 2
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["job"]["settings"]["method"] == GAMMA
    assert run(*command, "pa-lrp-gamma:gamma=.10", "--resume").exit_code == 0
    other = run(*command, "pa-lrp-gamma:gamma=.2", "--resume")
    assert other.exit_code == 2
    assert f"--method was '{GAMMA}', and is" in other.stderr


def test_evaluations_hold_numbers_against_each_other(run: Run, model: Path, text: Path) -> None:
    asked = ("pa-lrp-gamma", "pa-lrp-gamma:gamma=.1", GAMMA, "pa-lrp-gamma:gamma=10,gamma_conv=0")
    methods = [part for each in asked for part in ("--method", each)]
    command = ("evaluate", "stability", model, "--input", text, "--json", "-q", *methods)
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    assert list(json.loads(result.stdout)) == [
        "pa-lrp-gamma",
        GAMMA,
        "pa-lrp-gamma:gamma=10,gamma_conv=0",
    ]


@pytest.mark.parametrize("command", ["explain", "batch", "compile"])
def test_help_lists_methods(run: Run, command: str) -> None:
    shown = run(command, "--help").stdout
    for name, each in METHODS.items():
        assert f"\n    {name} " in shown and each.summary in shown


def test_help_lists_baselines(run: Run) -> None:
    for command in ("perturbation", "pixels", "segmentation", "randomisation", "stability"):
        shown = run("evaluate", command, "--help").stdout
        assert all(f"\n    {name} " in shown for name in (*METHODS, *BASELINES))
    assert "\n    rollout " not in run("evaluate", "conservation", "--help").stdout


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ("magic", "Unknown method 'magic'"),
        ("rollout", "Unknown method 'rollout'"),
        ("pa-lrp-gamma:gamma=x", "gamma=x is not a number"),
        ("pa-lrp:gamma=1", "Unknown parameter 'gamma'"),
    ],
)
def test_what_is_wrong_is_said_first(run: Run, method: str, problem: str) -> None:
    result = run("explain", "nowhere.onnx", "--input", "nowhere.txt", "--method", method)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error[usage]: {problem}\n")
    assert "  hint: " in result.stderr
