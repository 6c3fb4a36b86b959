"""``evaluate perturbation`` over texts of a real classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from committed import MODELS

from palrp_onnx.cli.main import program
from palrp_onnx.evaluate.baselines import compared_method
from palrp_onnx.evaluate.maps import MapsTogether
from palrp_onnx.evaluate.perturbation import Protocol
from palrp_onnx.evaluate.texts import evaluate_perturbation
from palrp_onnx.inputs import open_sample
from palrp_onnx.model.open import Model

MODEL = MODELS / "reviews-rope"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    words = (MODEL / "sample.txt").read_text().split()
    for k in range(4):
        (folder / f"{k}.txt").write_text(" ".join(words[k * 7 : k * 7 + 25]))
    return folder


def run(*arguments: object) -> str:
    model = MODEL / "model.onnx"
    given = ["evaluate", "perturbation", model, *arguments]
    result = CliRunner().invoke(program, [str(each) for each in given])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_maps_beat_a_random_order(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "areas.json"
    table = run("--input", texts, "-o", out, "-q")
    found = json.loads(out.read_text())
    assert list(found) == ["pa-lrp", "attnlrp", "random"]
    assert all(name in table for name in found)
    ours, random = found["pa-lrp"], found["random"]
    assert ours["samples"] == 4
    assert ours["generation_auac"]["low"] > random["generation_auac"]["area"]
    assert ours["morf"]["area"] > random["morf"]["area"] > random["lerf"]["area"] - 1
    assert len(ours["morf"]["curve"]) == 11
    assert json.loads(run("--input", texts, "--json", "-q")) == found


def test_one_method_and_protected_ends(texts: Path) -> None:
    options = ("--method", "attnlrp", "--unknown", "[UNK]", "--prefix", 1, "--suffix", 1)
    found = json.loads(run("--input", texts, *options, "--json", "-q"))
    assert list(found) == ["attnlrp", "random"]


def test_an_unknown_token_that_is_none(texts: Path) -> None:
    arguments = ["evaluate", "perturbation", str(MODEL / "model.onnx"), "--input", str(texts)]
    result = CliRunner().invoke(program, [*arguments, "--unknown", "no such token"])
    assert result.exit_code == 3
    assert "no token" in result.stderr


@pytest.mark.parametrize("name", ["reviews-rope", "reviews-bert", "agreement-lm"])
def test_texts_together_are_texts_alone(name: str, tmp_path: Path) -> None:
    """Batches change no map, no target and no curve by more than rounding."""
    model = Model.open(MODELS / name / "model.onnx")
    words = (MODELS / "reviews-rope" / "sample.txt").read_text().split()
    if name == "agreement-lm":
        words = "the keys to the cabinet of the friend near the dogs with teacher the films".split()
    samples = []
    for k in range(5):
        path = tmp_path / f"{k}.txt"
        path.write_text(" ".join(words[k : k + 8 - k % 2]))
        samples.append(
            open_sample(path, model_path=model.path, graph_inputs=model.inputs, tokenizer=None)
        )
    methods = {each: compared_method(each, model) for each in ("pa-lrp", "attnlrp", "chefer", "ig")}
    together = evaluate_perturbation(methods, samples, Protocol(unknown=1))
    assert [len(group) for group in MapsTogether(methods, "pred").groups(samples)] != [1] * 5
    alone = [evaluate_perturbation(methods, [each], Protocol(unknown=1)) for each in samples]
    for method, areas in together.items():
        for field in ("generation_auac", "generation_mse", "pruning_auac", "pruning_mse", "morf"):
            curves = [np.array(getattr(each[method], field).curve) for each in alone]
            found = np.array(getattr(areas, field).curve)
            np.testing.assert_allclose(found, np.mean(curves, axis=0), rtol=1e-4, atol=1e-5)
