from __future__ import annotations

from pathlib import Path

import pytest

from palrp_onnx import Model
from palrp_onnx.inputs.values import ValueReader

MODELS = Path(__file__).parents[2] / "models"


def test_roles_of_inputs_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.open(MODELS / "reviews-rope" / "model.onnx")
    reader = ValueReader(model.path, model.inputs)
    assert reader.read("A gripping film.").kind == "text"
    monkeypatch.setattr("palrp_onnx.analysis.inputs.input_roles", lambda graph: pytest.fail())
    assert reader.read("So dull.").kind == "text"
