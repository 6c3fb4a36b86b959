"""Images enlarged between blocked convolutions, as a session of ONNX Runtime saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checking import compare, saved_by_a_session
from numpy.typing import NDArray
from onnx import helper

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
    saved = saved_by_a_session(nodes, IMAGE, WEIGHTS, tmp_path)
    if not any(n.op_type == "Upsample" for n in saved.graph.node):
        pytest.skip("the runtime does not block channels on this machine")
    lowered = compare(saved, {"x": IMAGE}, tmp_path)
    assert not any(n.domain for n in lowered.graph)
