"""``palrp-onnx compile``: a file that explains itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import shifted_ids
from click.testing import CliRunner, Result
from committed import MODELS

from palrp_onnx import Explainer
from palrp_onnx.cli.main import program
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

MODEL = MODELS / "reviews-rope/model.onnx"
IDS = np.random.default_rng(0).integers(5, 8000, size=(2, 14))
Run = Callable[..., Result]
FEEDS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
SIGNED = ("--positions", "signed")


def test_compiled_file_explains_itself(tmp_path: Path) -> None:
    place = tmp_path / "explainer.onnx"
    result = CliRunner().invoke(program, ["compile", str(MODEL), "-o", str(place)])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    session = onnxruntime.InferenceSession(str(place))
    total, logits = session.run(["relevance_total", "logits"], FEEDS)
    sample = Sample("x", "tensors", FEEDS, InputFacts(kind="tensors", truncated=False))
    for row, explanation in enumerate(Explainer(MODEL, engine="numpy").explain(sample)):
        expected = np.array(explanation.record.relevance.total)
        assert np.abs(total[row] - expected).max() < 2e-3 * np.abs(expected).max()
        assert abs(logits[row].max() - explanation.record.target.value) < 1e-5
    facts = {p.key: p.value for p in onnx.load(place).metadata_props}
    assert facts["palrp_onnx.method"] == "pa-lrp"


@pytest.mark.parametrize("features", [True, False])
def test_an_explainer_can_be_explained(run: Run, tmp_path: Path, features: bool) -> None:
    folder = shutil.copytree(MODEL.parent, tmp_path / "model")
    place, text = folder / "explainer.onnx", str(folder / "sample.txt")
    extra = ["--features"] if features else []
    chosen = ["--method", "attnlrp", "--positions", "abs"]
    assert run("compile", folder / "model.onnx", "-o", place, *chosen, *extra).exit_code == 0
    arrays = ["--tensors", tmp_path / "raw.npz"] if features else []
    ours = run("explain", place, "--input", text, "--target", "0-1", *arrays)
    reference = run("explain", MODEL, "--input", text, "--target", "0-1", *chosen)
    assert ours.exit_code == reference.exit_code == 0, ours.stderr + reference.stderr
    first, second = (json.loads(result.stdout) for result in (ours, reference))
    for name in ("relevance", "sites", "ledger"):
        np.testing.assert_allclose(
            *(numbers(record[name]) for record in (first, second)), atol=1e-6
        )
    for record in (first, second):
        del record["relevance"], record["sites"], record["ledger"], record["run"]["ms"]
        record["target"].pop("value"), record["target"].pop("probability")
    assert first == second
    assert not features or "content" in np.load(tmp_path / "raw.npz")


def numbers(tree: Any) -> list[float]:
    """Every number of a JSON value, in order."""
    if isinstance(tree, dict):
        return [n for key in sorted(tree) for n in numbers(tree[key])]
    if isinstance(tree, list):
        return [n for each in tree for n in numbers(each)]
    return [tree] if isinstance(tree, float) else []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--method", "cp-lrp"], "method compiled in"),
        (["--engine", "numpy"], "engine compiled in"),
        (["--dtype", "float64"], "engine compiled in"),
        (["--output", "other", "--positions", "abs"], "positions and output compiled in"),
        (["--tensors", "raw.npz"], "--features"),
    ],
)
def test_what_is_compiled_in_cannot_be_changed(
    run: Run, explainer: Path, text: Path, options: list[str], problem: str
) -> None:
    result = run("explain", explainer, "--input", text, *options)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_an_explainer_without_its_ledger(run: Run, model: Path, text: Path) -> None:
    place = model.parent / "lean.onnx"
    assert run("compile", model, "-o", place, "--no-ledger").exit_code == 0
    result = run("explain", place, "--input", text)
    assert result.exit_code == 2
    assert "without its ledger" in result.stderr


def test_an_explainer_is_not_compiled_again(run: Run, explainer: Path) -> None:
    result = run("compile", explainer, "-o", explainer.parent / "twice.onnx")
    assert result.exit_code == 2
    assert "already" in result.stderr


@pytest.fixture
def explainer(run: Run, model: Path) -> Path:
    place = model.parent / "explainer.onnx"
    assert run("compile", model, "-o", place).exit_code == 0
    return place


def test_damaged_metadata(run: Run, explainer: Path, text: Path) -> None:
    proto = onnx.load(explainer)
    damaged = next(p for p in proto.metadata_props if p.key == "palrp_onnx.sites")
    damaged.value = "[[1, 2"
    damaged_file = explainer.parent / "damaged.onnx"
    onnx.save(proto, damaged_file)
    result = run("explain", damaged_file, "--input", text)
    assert result.exit_code == 4
    assert "metadata" in result.stderr


def test_external_data_is_shared(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(onnx.load(MODEL), source, save_as_external_data=True, location="weights.bin")
    beside, elsewhere = tmp_path / "explainer.onnx", tmp_path / "other" / "explainer.onnx"
    elsewhere.parent.mkdir()
    run = CliRunner().invoke
    assert run(program, ["compile", str(source), "-o", str(beside), "-q"]).exit_code == 0
    assert beside.stat().st_size < 2**20
    (total,) = onnxruntime.InferenceSession(str(beside)).run(["relevance_total"], FEEDS)
    assert np.isfinite(total).all()
    refused = run(program, ["compile", str(source), "-o", str(elsewhere)])
    assert refused.exit_code == 2
    assert "beside the model" in refused.stderr
    assert not elsewhere.exists()


def test_a_model_that_cannot_be_explained(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"nothing")
    place = tmp_path / "explainer.onnx"
    result = CliRunner().invoke(program, ["compile", str(bad), "-o", str(place)])
    assert result.exit_code == 4
    assert not place.exists()


def test_a_triton_repository(run: Run, model: Path, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    found = run("compile", model, "--triton", place)
    assert found.exit_code == 0, found.output
    name = model.parent.name
    assert (place / name / "config.pbtxt").read_text().startswith(f'name: "{name}"')
    assert (place / name / "1" / "model.onnx").is_file()


def test_nowhere_to_write(run: Run, model: Path) -> None:
    assert run("compile", model).exit_code == 2


def test_a_model_is_never_replaced(run: Run, model: Path) -> None:
    before = model.read_bytes()
    result = run("compile", model, "-o", model)
    assert result.exit_code == 2
    assert model.read_bytes() == before


@pytest.mark.parametrize("rows", [1, 2])
def test_a_model_that_runs_on_nothing_made_up(run: Run, tmp_path: Path, rows: int) -> None:
    """Compiled with an example, it explains inputs of other numbers and lengths."""
    model = shifted_ids.write_model(tmp_path / "model.onnx")
    example = shifted_ids.write_example(tmp_path / "example.npz", shifted_ids.IDS[:rows])
    place = tmp_path / "explainer.onnx"
    refused = run("compile", model, "-o", place)
    assert refused.exit_code == 4 and not place.exists()
    assert "Give one with --example FILE.npz." in refused.stderr
    assert run("compile", model, "-o", place, "--example", example).exit_code == 0

    ids = np.array([[1009, 1003, 1000, 1008, 1001, 1006, 1005], [1002] * 7])
    data = shifted_ids.write_example(tmp_path / "input.npz", ids)
    chosen = ["--input", data, "--target", "1"]
    ours = json.loads(run("explain", place, *chosen).stdout)
    theirs = json.loads(run("explain", model, *chosen).stdout)
    for first, second in zip(ours, theirs, strict=True):
        for name in ("relevance", "sites", "ledger"):
            np.testing.assert_allclose(numbers(first[name]), numbers(second[name]), atol=1e-6)
        assert first["warnings"] == second["warnings"]
    assert run("compile", model, "-o", place, "--example", example, *SIGNED).exit_code == 0
    for record, row in zip(json.loads(run("explain", place, *chosen).stdout), ids, strict=True):
        shifted_ids.check(record, row)
    session = onnxruntime.InferenceSession(str(place))
    (content,) = session.run(["relevance_content"], {"ids": ids, "target": np.array([1, 1])})
    np.testing.assert_allclose(content[0], ours[0]["relevance"]["content"], atol=1e-5)


@pytest.mark.parametrize("name", ["missing.npz", "model.onnx"])
def test_an_example_that_cannot_be_read(run: Run, model: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / "explainer.onnx"
    result = run("compile", model, "-o", place, "--example", model.parent / name)
    assert result.exit_code == 3, result.stderr
    assert name in result.stderr and not place.exists()
