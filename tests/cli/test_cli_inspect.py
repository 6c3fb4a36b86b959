"""``inspect`` shows what is in doubt, in JSON, and at the terminal where there is any."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import numpy_helper

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
