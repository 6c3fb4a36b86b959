"""``inspect`` shows what is in doubt, in JSON and at the terminal, and takes an example."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import shifted_ids
from building import ints, proto, real
from click.testing import Result
from onnx import numpy_helper

pytestmark = pytest.mark.quick

Run = Callable[..., Result]


@pytest.fixture
def gated(model: Path, tmp_path: Path) -> Path:
    """The little model with its table multiplied instead of added."""
    proto = onnx.load(model)
    (node,) = (n for n in proto.graph.node if list(n.output) == ["hidden"])
    node.op_type = "Mul"
    (table,) = (t for t in proto.graph.initializer if t.name == "places")
    rows = numpy_helper.to_array(table)
    table.CopyFrom(numpy_helper.from_array(np.abs(rows) + np.float32(0.1), "places"))
    path = tmp_path / "gated.onnx"
    onnx.save(proto, path)
    return path


def test_nothing_in_doubt(run: Run, model: Path) -> None:
    assert json.loads(run("inspect", model, "--json").stdout)["uncertain"] == []
    assert "In doubt" not in run("inspect", model).stdout


def test_in_doubt(run: Run, gated: Path) -> None:
    (found,) = json.loads(run("inspect", gated, "--json").stdout)["uncertain"]
    assert found.keys() == {"name", "role", "doubt", "say"}
    assert (found["name"], found["say"]) == ("position", "position=mask")
    result = run("inspect", gated)
    assert result.exit_code == 0 and result.stderr == ""
    shown = "".join(result.stdout.split())
    assert "Indoubt" in shown and "--roleposition=mask" in shown


def test_what_is_said_is_not_in_doubt(run: Run, gated: Path) -> None:
    said = run("inspect", gated, "--json", "--role", "position=mask")
    assert json.loads(said.stdout)["uncertain"] == []
    assert "In doubt" not in run("inspect", gated, "--role", "position=mask").stdout


@pytest.fixture
def shifted(tmp_path: Path) -> Path:
    return shifted_ids.write_model(tmp_path / "shifted.onnx")


def test_a_model_that_runs_on_nothing_made_up(run: Run, shifted: Path) -> None:
    result = run("inspect", shifted)
    assert (result.exit_code, result.stdout) == (4, "")
    assert "error[role]" in result.stderr and "Give one with --example FILE.npz." in result.stderr


@pytest.mark.parametrize("rows", [1, 2])
def test_an_example(run: Run, shifted: Path, tmp_path: Path, rows: int) -> None:
    example = shifted_ids.write_example(tmp_path / "example.npz", shifted_ids.IDS[:rows])
    result = run("inspect", shifted, "--example", example, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["explainable"]
    assert [site["kind"] for site in report["sites"]] == ["learned"]
    assert [each["role"] for each in report["inputs"]] == ["content"]
    (note,) = report["notes"]
    assert "arrays that were given" in note
    shown = run("inspect", shifted, "--example", example).stdout
    assert note in " ".join(shown.split())


def test_an_example_that_is_not_needed(run: Run, model: Path, batch: Path) -> None:
    given = run("inspect", model, "--example", batch, "--json")
    assert given.stdout == run("inspect", model, "--json").stdout
    assert json.loads(given.stdout)["notes"] == []


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        (None, "no such file"),
        ({"ids": np.array([[0, 1, 2]])}, "does not run on this input"),
        ({"ids": np.array([[1001.5]])}, "without loss"),
        ({"ids": np.array([1001])}, "ids"),
        ({"ids": np.array([[None]])}, "not numbers"),
        ({"words": np.array([[1001]])}, "missing: ids; unknown: words"),
    ],
)
def test_an_example_that_is_none(
    run: Run, shifted: Path, tmp_path: Path, arrays: dict[str, Any] | None, problem: str
) -> None:
    example = tmp_path / "example.npz"
    if arrays is not None:
        np.savez(example, **arrays)
    result = run("inspect", shifted, "--example", example)
    assert (result.exit_code, result.stdout) == (3, "")
    assert problem in result.stderr


def test_shapes_of_an_example(run: Run, tmp_path: Path) -> None:
    """The model takes images of one size, which is no usual one."""
    path, example = tmp_path / "images.onnx", tmp_path / "example.npz"
    x, weights = real(1, 3, 20, 12), {"flat": ints(-1, 3, 240), "w": real(240, 2), "i1": ints(1)}
    body = "f = Reshape(x, flat)  h = MatMul(f, w)  y = ReduceSum <keepdims=0> (h, i1)"
    path.write_bytes(proto(body, {"x": x}, weights, free=(0, 2, 3)).SerializeToString())
    np.savez(example, x=x)
    assert run("inspect", path).exit_code == 4
    result = run("inspect", path, "--example", example, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["explainable"] and report["notes"] == []


def test_names_for_why(run: Run, model: Path) -> None:
    assert "Values" not in run("inspect", model).stdout
    listed = run("inspect", model, "--values").stdout
    assert "Values" in listed
    assert "pooled" in listed
    found = json.loads(run("inspect", model, "--values", "--json").stdout)["values"]
    assert {"input_ids", "words", "hidden", "logits"} <= set(found)
    assert run("inspect", model, "--why", found[-1]).exit_code == 0


@pytest.mark.parametrize(("name", "meant"), [("pooledd", "'pooled'"), ("COLD", "")])
def test_a_wrong_name_gets_a_suggestion(run: Run, model: Path, name: str, meant: str) -> None:
    result = run("inspect", model, "--why", name)
    assert result.exit_code == 2
    assert ("Did you mean" in result.stderr, meant in result.stderr) == (bool(meant), True)
    assert "--values` lists all" in result.stderr
