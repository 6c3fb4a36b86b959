"""Precision at k against a known cause; the commands that use it, and the tournament."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from committed import MODELS

from palrp_onnx.cli.main import program
from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.baselines import compared_method
from palrp_onnx.evaluate.planted import planted, precision
from palrp_onnx.inputs import open_sample
from palrp_onnx.model.open import Model

MODEL = MODELS / "reviews-rope" / "model.onnx"
TEXTS = ("a gripping film", "so dull and wooden", "dull dull gripping", "the film was good today")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    return folder


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(program, [str(each) for each in ("evaluate", *arguments)])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.mark.parametrize("cause", [[0], [1, 3], [0, 1, 2], [4]])
def test_ties_count_as_the_mean_over_their_orders(cause: list[int]) -> None:
    ranked = np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    orders = [
        order
        for order in itertools.permutations(range(5))
        if all(ranked[a] >= ranked[b] for a, b in itertools.pairwise(order))
    ]
    shares = [len(set(order[: len(cause)]) & set(cause)) / len(cause) for order in orders]
    assert precision(ranked, cause) == pytest.approx(np.mean(shares))


def test_special_tokens_are_no_candidates(texts: Path) -> None:
    """Where every word is the cause, every order of words finds it."""
    model = Model.open(MODEL)
    samples = [
        open_sample(path, model_path=MODEL, graph_inputs=model.inputs, tokenizer=None)
        for path in sorted(texts.iterdir())
    ]
    truth = {s.id: [k for k, own in enumerate(s.units.special) if not own] for s in samples}
    methods = {name: compared_method(name, model) for name in ("pa-lrp", "chefer")}
    found = planted(methods, samples, truth)
    assert list(found) == ["pa-lrp", "chefer", "random"]
    assert all(found[name].magnitude.value == found[name].signed.value == 1.0 for name in methods)
    for wrong in ({}, {s.id: [99] for s in samples}):
        with pytest.raises(InputError):
            planted(methods, samples, wrong)


def test_planted_from_the_command_line(texts: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"0": [2], "1": [2], "2": [1, 2], "3": [4]}))
    given = ("planted", MODEL, "--input", texts, "--truth", truth, "-q")
    table, found = run(*given), json.loads(run(*given, "--json"))
    assert list(found) == ["pa-lrp", "attnlrp", "random"]
    assert all(name in table for name in found)
    assert found["pa-lrp"]["samples"] == len(TEXTS)
    truth.write_text(json.dumps({"0": "two"}))
    assert "not a list of units" in run(*given, code=3)


def test_tournament_of_texts(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "choice.json"
    methods = ("--method", "pa-lrp", "--method", "attnlrp", "--method", "chefer")
    table = run("tournament", MODEL, "--input", texts, *methods, "-q", "-o", out)
    choice = json.loads(out.read_text())["choice"]
    assert set(choice["methods"]) == {"pa-lrp", "attnlrp", "chefer", "random"}
    assert f"Use {choice['best']}." in table
    assert choice["certainty"] != "clear"
    assert "4 inputs are few" in table


def test_tournament_of_images_names_what_does_not_apply(tmp_path: Path) -> None:
    folder = MODELS / "digits-vit"
    out, pictures = tmp_path / "choice.json", tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(folder / "sample.png", pictures / name)
    methods = ("--method", "pa-lrp", "--method", "pa-lrp-gamma", "--output", "logits")
    run("tournament", folder / "model.onnx", "--input", pictures, *methods, "-o", out)
    choice = json.loads(out.read_text())["choice"]
    assert choice["higher"] == {"positive": False, "negative": True}
    assert choice["samples"] == 2
