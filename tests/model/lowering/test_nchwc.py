"""Images enlarged between blocked convolutions, as a session of ONNX Runtime saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from checking import compare
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

GENERATOR = np.random.default_rng(5)
IMAGE = GENERATOR.normal(size=(2, 3, 6, 5)).astype(np.float32)
WEIGHTS: dict[str, NDArray[Any]] = {
    "first": GENERATOR.normal(size=(32, 3, 3, 3)).astype(np.float32) / 4,
    "second": GENERATOR.normal(size=(32, 32, 3, 3)).astype(np.float32) / 4,
    "scales": np.array([1, 1, 2, 3], np.float32),
}
MODES = [
    ("nearest", "asymmetric"),
    ("linear", "asymmetric"),
    ("linear", "half_pixel"),
    ("linear", "align_corners"),
]


@pytest.mark.parametrize(("mode", "places"), MODES)
def test_enlarged(mode: str, places: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node(
            "Resize",
            ["a", "", "scales"],
            ["large"],
            mode=mode,
            coordinate_transformation_mode=places,
            nearest_mode="floor",
        ),
        helper.make_node("Conv", ["large", "second"], ["y"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 6, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()],
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "saved.onnx")
    onnxruntime.InferenceSession(plain.SerializeToString(), options)
    saved = onnx.load(tmp_path / "saved.onnx")
    if not any(n.op_type == "Upsample" for n in saved.graph.node):
        pytest.skip("the runtime does not block channels on this machine")
    lowered = compare(saved, {"x": IMAGE}, tmp_path)
    assert not any(n.domain for n in lowered.graph)
