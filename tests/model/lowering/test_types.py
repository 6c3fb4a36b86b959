"""What is known of values between operations that only ONNX Runtime knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from checking import compare, model, ms, node

from palrp_onnx.model.lowering.table import REFUSED
from palrp_onnx.model.open import Model

X = np.random.default_rng(1).normal(size=(2, 3, 8)).astype(np.float32)
WEIGHTS = {
    "w": np.random.default_rng(2).normal(size=(8, 24)).astype(np.float32),
    "b": np.zeros(24, np.float32),
    "all": np.array([-1]),
}


def test_a_mask_in_a_computed_shape(tmp_path: Path) -> None:
    mask = np.array([[1, 1, 1], [1, 1, 0]], np.int32)
    nodes = [
        ms("Gelu", "x", "g"),
        node("Shape", "x", "s"),
        node("Slice", "s zero one", "rows"),
        node("Concat", "rows all", "shape", axis=0),
        node("Reshape", "mask shape", "m"),
        ms("Attention", "g w b m", "y", num_heads=2),
    ]
    weights = {**WEIGHTS, "zero": np.array([0]), "one": np.array([1])}
    feeds = {"x": X, "mask": mask}
    compare(model(nodes, feeds, weights), feeds, tmp_path)


def test_attention_in_an_opset_whose_slices_have_attributes(tmp_path: Path) -> None:
    nodes = [ms("Attention", "x w b", "y", num_heads=2)]
    compare(model(nodes, {"x": X}, WEIGHTS, 9), {"x": X}, tmp_path)


def test_the_reason_of_a_refusal_outlives_a_later_opset(tmp_path: Path) -> None:
    nodes = [ms("Trilu", "x", "t"), node("Relu", "t", "y")]
    onnx.save(model(nodes, {"x": X}, {}, 11), tmp_path / "model.onnx")
    raised = Model.open(tmp_path / "model.onnx").at_opset(13)
    (why,) = (n.meta[REFUSED] for n in raised.graph if n.op_type == "Trilu")
    assert why == "the standard has Trilu from opset 14 on"
