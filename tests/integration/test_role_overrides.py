"""Roles that ``inspect --why`` prints, and overrides of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from building import ints, opened, proto, real, walk
from click.testing import CliRunner, Result

from palrp_onnx import Model, inspect
from palrp_onnx.cli.main import program
from palrp_onnx.errors import UsageError

Run = Callable[..., Result]
X, TABLE = real(2, 5, 4), real(5, 4, seed=5)
BODY = "e = Neg(p)  h = Add(x, e)  g = Mul(h, s)  y = MatMul(g, w)"
WEIGHTS = {"p": TABLE, "s": real(4, seed=6), "w": real(4, 4)}


def model() -> Model:
    return opened(proto(BODY, {"x": X}, WEIGHTS))


def test_why() -> None:
    report = inspect(model(), {"x": X}, why=["e", "w", "x", "h"])
    table, weight, source, hidden = report.why
    assert table.made_by.startswith("Neg") and not table.content
    assert [(use.operand, use.role) for use in table.uses] == [(1, "position")]
    assert "token axis" in table.uses[0].reason
    assert (weight.made_by, [use.role for use in weight.uses]) == ("a weight", ["parameter"])
    assert source.made_by == "an input" and source.content
    assert hidden.content and hidden.layer == 0
    with pytest.raises(UsageError, match="no value"):
        inspect(model(), {"x": X}, why=["nothing"])


def test_an_override_replaces_the_role_that_was_found() -> None:
    found = walk(model(), {"x": X})
    assert found.result.ledger["position"].all() and not found.result.ledger["bias"].any()
    overridden = walk(model(), {"x": X}, roles={"e": "parameter"})
    assert not overridden.result.ledger["position"].any()
    np.testing.assert_allclose(overridden.result.ledger["bias"], found.result.ledger["position"])
    np.testing.assert_allclose(overridden.content, found.content)


@pytest.mark.parametrize(
    ("name", "role", "problem"),
    [
        ("e", "place", "no role"),
        ("e", "content", "Only inputs"),
        ("s", "position", "same for every token"),
        ("w", "segment", "never combined"),
        ("other", "position", "never combined"),
    ],
)
def test_overrides_that_are_refused(name: str, role: str, problem: str) -> None:
    if name == "w":
        weights = {**WEIGHTS, "w": real(4, 4), "u": real(3)}
        little = opened(proto(BODY + "  z = Neg(u)", {"x": X}, weights))
        name = "u"
    else:
        little = model()
    with pytest.raises(UsageError, match=problem):
        walk(little, {"x": X}, roles={name: role})


def test_an_input_can_be_given_a_role() -> None:
    """Ids that count up look like positions only beside other ids; users may know better."""
    feeds = {"i": np.array([[3, 1, 4, 2]]), "k": np.array([[5, 2, 1, 3]])}
    weights = {"a": real(20, 4), "b": real(8, 4, seed=2), "axis": ints(1)}
    body = "e = Gather(a, i)  f = Gather(b, k)  h = Add(e, f)  y = ReduceSum<keepdims = 0>(h, axis)"
    little = opened(proto(body, feeds, weights, free=(0, 1)))
    assert walk(little, feeds).result.ledger["segment"].any()
    overridden = walk(little, feeds, roles={"k": "position"})
    assert overridden.result.ledger["position"].any()
    assert not overridden.result.ledger["segment"].any()


def test_from_the_command_line(run: Run, model_file: Path, tmp_path: Path) -> None:
    feeds = tmp_path / "x.npz"
    np.savez(feeds, x=X)
    chosen = ["--role", "e=parameter", "--target", "0,1"]
    result = run("explain", model_file, "--input", feeds, *chosen)
    records = json.loads(result.stdout)
    assert records[0]["run"]["params"]["roles"] == {"e": "parameter"}
    assert records[0]["ledger"]["position"] == 0
    report = run("inspect", model_file, "--why", "e", "--json", *chosen[:2])
    assert json.loads(report.stdout)["why"][0]["uses"][0]["reason"] == "said by the user"
    assert "said by the user" in " ".join(
        run("inspect", model_file, "--why", "e", *chosen[:2]).stdout.split()
    )
    assert run("explain", model_file, "--input", feeds, "--role", "e").exit_code == 2
    explainer = model_file.parent / "explainer.onnx"
    assert run("compile", model_file, "-o", explainer, *chosen[:2]).exit_code == 0
    again = run("explain", explainer, "--input", feeds, "--target", "0,1")
    assert json.loads(again.stdout)[0]["run"]["params"]["roles"] == {"e": "parameter"}


@pytest.fixture
def model_file() -> Path:
    return model().path


@pytest.fixture
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(program, [str(a) for a in arguments])
