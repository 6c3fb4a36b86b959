"""Weights of a single file stay in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx.model.open import parse_model

pytestmark = pytest.mark.quick

WEIGHT = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


@pytest.mark.parametrize("declared", [False, True])
def test_large_weights_stay_in_the_file(declared: bool, tmp_path: Path) -> None:
    """Some files declare of every tensor that its data is inside."""
    tensor = numpy_helper.from_array(WEIGHT, "w")
    if declared:
        tensor.data_location = TensorProto.DEFAULT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
        [tensor],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, ir_version=10), path)
    stored = parse_model(path).graph.initializers["w"].const_value
    assert isinstance(stored, ir.ExternalTensor)
    assert np.array_equal(stored.numpy(), WEIGHT)
