"""Sparse arrays are read as dense ones, and refused where they are malformed or too large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx import Explainer, Model
from palrp_onnx.errors import ModelError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

X = np.array([[1.0, -2.0, 3.0, 0.5]], np.float32)
DENSE = np.zeros((4, 3), np.float32)
DENSE.ravel()[[0, 5, 9]] = 2.0, -1.0, 0.5
FLAT = [0, 5, 9]
PAIRS = [[0, 0], [1, 2], [3, 0]]


def sparse(name: str, indices: Any, dims: Any = (4, 3)) -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.array([2.0, -1.0, 0.5], np.float32), name)
    places = numpy_helper.from_array(np.array(indices, np.int64), f"{name}/indices")
    return helper.make_sparse_tensor(values, places, dims)


def save(path: Path, indices: Any, dims: Any = (4, 3), *, constant: bool = False) -> Path:
    nodes = [helper.make_node("MatMul", ["x", "W"], ["y"])]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["W"], sparse_value=sparse("", indices)))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        sparse_initializer=[] if constant else [sparse("W", indices, dims)],
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("indices", [FLAT, PAIRS])
def test_a_sparse_weight_is_the_same_weight(tmp_path: Path, indices: Any, constant: bool) -> None:
    path = save(tmp_path / "model.onnx", indices, constant=constant)
    sample = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors", truncated=False))
    for engine in ("onnxruntime", "numpy"):
        (found,) = Explainer(path, engine=engine).explain(sample, "index:0")
        np.testing.assert_allclose(found.tensors["content"].ravel(), X[0] * DENSE[:, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("indices", "dims"),
    [
        ([0, 5, 12], (4, 3)),
        ([0, -1, 9], (4, 3)),
        ([0, 5, 5], (4, 3)),
        ([0, 5], (4, 3)),
        ([[0, 0], [1, 3], [3, 0]], (4, 3)),
        ([[0, 0], [1, -1], [3, 0]], (4, 3)),
        (FLAT, (2**20, 2**20)),
        (FLAT, (2**40, 2**40)),
        (FLAT, (-4, -3)),
    ],
)
def test_others_are_refused(tmp_path: Path, indices: Any, dims: Any) -> None:
    with pytest.raises(ModelError, match=r"[Ss]parse tensor"):
        Model.open(save(tmp_path / "model.onnx", indices, dims))
