"""Products in trial runs read transposed weights as they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import RuntimeForward, saved_graph

_OPERATIONS = {
    "y = MatMul (x, t)": True,
    "r = MatMul (x, t)  s = MatMul (r, t)  y = Tanh (s)": True,
    "r = MatMul (x, t)  y = Add (r, t)": False,  # another operation reads it
    "r = MatMul (t, t)  y = MatMul (x, r)": False,  # as a first operand
}


def _model(path: Path, body: str) -> Model:
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[4, 4] x) => (float[4, 4] y) {{ t = Transpose <perm = [1, 0]> (w) {body} }}"""
    )
    numbers = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(numbers, "w"))
    onnx.save(model, path)
    return Model.open(path)


@pytest.mark.parametrize(("body", "turned"), _OPERATIONS.items())
def test_products_read_weights_as_they_lie(body: str, turned: bool, tmp_path: Path) -> None:
    model = _model(tmp_path / "model.onnx", body)
    kinds = [n.op_type for n in onnx.load_from_string(saved_graph(model, ["y"]).data).graph.node]
    assert ("Transpose" not in kinds) is ("FusedMatMul" in kinds) is turned
    x = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    found = RuntimeForward(model, ["y"])({"x": x})["y"]
    whole = RuntimeForward(model, ["t", "y"])({"x": x})
    np.testing.assert_allclose(found, whole["y"], rtol=1e-5, atol=1e-6)


def test_a_weight_that_is_asked_for_stays(tmp_path: Path) -> None:
    model = _model(tmp_path / "model.onnx", "y = MatMul (x, t)")
    weight = next(v for v in model.graph.initializers.values() if v.name == "w").const_value
    assert weight is not None
    x = np.zeros((4, 4), np.float32)
    np.testing.assert_array_equal(RuntimeForward(model, ["t"])({"x": x})["t"], weight.numpy().T)
