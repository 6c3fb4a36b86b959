"""Evaluations and comparisons that are called from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from committed import MODELS
from loaded import TEXT, loaded

import palrp_onnx as px

TEXTS = (TEXT, "So dull and wooden, it is a pity.")
DIGIT = MODELS / "digits-vit" / "sample.png"


def test_of_texts() -> None:
    model = loaded("reviews-rope")
    curves = px.evaluate_perturbation(model, TEXTS, ["pa-lrp"], prefix=1, suffix=1)
    assert list(curves) == ["pa-lrp", "random"] and curves["pa-lrp"].samples == 2
    stable = px.evaluate_stability(model, TEXTS, [px.method("attnlrp")], unknown="the")
    assert stable["attnlrp"].samples == 2
    shuffled = px.evaluate_randomisation(model, TEXTS, ["attnlrp"], draws=1)
    assert len(shuffled["attnlrp"].steps) == 4
    shares = px.evaluate_conservation(model, TEXTS, target="POSITIVE", method="attnlrp")
    assert shares.samples == 2 and shares.residual < 1e-4


def test_of_images(tmp_path: Path) -> None:
    model = loaded("digits-vit")
    found = px.evaluate_pixels(model, [DIGIT], ["pa-lrp"], baseline="mean", classes=[3])
    assert found["pa-lrp"].target is not None
    with pytest.raises(px.PalrpError, match="true class is missing"):
        px.evaluate_pixels(model, [DIGIT], ["pa-lrp"], classes=[])
    mask = np.zeros((64, 64), np.int8)
    mask[20:40, 20:40] = 1
    judged = px.evaluate_segmentation(model, [(DIGIT, mask)], ["pa-lrp"])
    assert judged["pa-lrp"].samples == 1


def test_comparisons(tmp_path: Path) -> None:
    model = loaded("reviews-rope")
    one, other = (model.explain(TEXT, method=name) for name in ("pa-lrp", "attnlrp"))
    assert px.compare(one, one.record).correlation == pytest.approx(1.0)
    assert -1 <= (px.compare(one, other, top=3).correlation or 0) <= 1
    for name, each in (("a", one), ("b", other)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(each.to_dict()))
    runs = px.compare(tmp_path / "a.jsonl", str(tmp_path / "b.jsonl"))
    assert runs.compared == 1
    with pytest.raises(px.PalrpError, match="cannot be compared with a run"):
        px.compare(one, tmp_path / "b.jsonl")  # type: ignore[call-overload]
    with pytest.raises(px.PalrpError, match="texts differ"):
        px.compare(one, model.explain("Another text."))
