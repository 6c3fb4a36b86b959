"""Shares over a data set are those of the records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from committed import MODELS

from palrp_onnx import Explainer
from palrp_onnx.cli.main import program
from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.conservation import conservation
from palrp_onnx.inputs import open_sample

FOLDER = MODELS / "reviews-rope"
TEXTS = ("a dull film", "the acting is superb and the music even better", "not bad")


def test_shares_of_a_folder_of_texts(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number, text in enumerate(TEXTS):
        (texts / f"{number}.txt").write_text(text, encoding="utf-8")
    explainer = Explainer(FOLDER / "model.onnx")
    records = []
    for file in sorted(texts.iterdir()):
        sample = open_sample(
            file,
            model_path=FOLDER / "model.onnx",
            graph_inputs=explainer.model.inputs,
            tokenizer=None,
        )
        records.append(explainer.explain(sample)[0].record)
    shares = [r.ledger["position"] / (r.ledger["position"] + r.ledger["content"]) for r in records]
    arguments = ["evaluate", "conservation", str(FOLDER / "model.onnx"), "--input", str(texts)]
    result = CliRunner().invoke(program, [*arguments, "--json", "-q"])
    found = json.loads(result.stdout)
    assert found["samples"] == len(TEXTS)
    assert found["position_share"]["mean"] == pytest.approx(np.mean(shares))
    assert found["position_share"]["deviation"] == pytest.approx(np.std(shares))
    assert sum(found["ledger"].values()) == pytest.approx(1)
    assert found["residual"] == pytest.approx(
        max(abs(r.ledger["residual_relative"]) for r in records)
    )
    layers = [(each["kind"], each["layer"], each["part"]) for each in found["layers"]]
    assert layers == [("rope", layer, part) for layer in (0, 1) for part in ("cos", "sin")]
    table = CliRunner().invoke(program, [*arguments, "-o", str(tmp_path / "out.json")])
    assert table.exit_code == 0 and "position share" in table.stdout
    assert json.loads((tmp_path / "out.json").read_text())["samples"] == len(TEXTS)


def test_nothing_to_evaluate() -> None:
    with pytest.raises(InputError, match="nothing"):
        conservation([])
