"""Classical machine learning: lowered operations against the runtime, and relevance by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from building import Array, real, wide
from onnx import TensorProto, helper

from palrp_onnx import Explainer, Model, inspect
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.describe import Explanation
from palrp_onnx.errors import ModelError, UnsupportedError
from palrp_onnx.inputs import read_labels
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

pytestmark = pytest.mark.quick

F = 4
X = real(3, F, seed=5)
W, B = real(3, F, seed=1), real(3, seed=2)
THREE = {
    "coefficients": W.ravel().tolist(),
    "intercepts": B.tolist(),
    "classlabels_ints": [5, 7, 9],
}
ONE = {"coefficients": W[0].tolist(), "intercepts": [0.25], "classlabels_strings": ["no", "yes"]}
LINEAR = {"coefficients": W[0].tolist(), "intercepts": [0.25]}
SUPPORT = {
    "kernel_type": "LINEAR",
    "kernel_params": [0.0, 0.0, 0.0],
    "n_supports": 3,
    "support_vectors": W.ravel().tolist(),
    "coefficients": [0.5, -1.0, 0.75],
    "rho": [0.125],
}
#: Name → operation, outputs and attributes; the last output is explained.
CASES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "three classes": ("LinearClassifier", ["label", "y"], THREE),
    "logistic": ("LinearClassifier", ["label", "y"], {**THREE, "post_transform": "LOGISTIC"}),
    "softmax": ("LinearClassifier", ["label", "y"], {**THREE, "post_transform": "SOFTMAX"}),
    "one score": ("LinearClassifier", ["label", "y"], ONE),
    "one logistic": ("LinearClassifier", ["label", "y"], {**ONE, "post_transform": "LOGISTIC"}),
    "one softmax": ("LinearClassifier", ["label", "y"], {**ONE, "post_transform": "SOFTMAX"}),
    "regression": ("LinearRegressor", ["y"], LINEAR),
    "two targets": (
        "LinearRegressor",
        ["y"],
        {"coefficients": W[:2].ravel().tolist(), "targets": 2, "post_transform": "LOGISTIC"},
    ),
    "support vectors": ("SVMRegressor", ["y"], SUPPORT),
    "scaler": ("Scaler", ["y"], {"offset": B[:1].tolist() * F, "scale": W[0].tolist()}),
    "one scale": ("Scaler", ["y"], {"offset": [0.5], "scale": [2.0]}),
    "largest": ("Normalizer", ["y"], {"norm": "MAX"}),
    "sum": ("Normalizer", ["y"], {"norm": "L1"}),
    "length": ("Normalizer", ["y"], {"norm": "L2"}),
    "missing": ("Imputer", ["y"], {"imputed_value_floats": W[0].tolist()}),
    "columns": ("FeatureVectorizer", ["y"], {"inputdimensions": [F]}),
}


def classical(
    folder: Path, op_type: str, outputs: list[str], attributes: dict[str, Any], **more: Any
) -> Model:
    """A model of one operation, with ``ZipMap`` after it if ``labels`` are given."""
    nodes = [helper.make_node(op_type, ["x"], outputs, domain="ai.onnx.ml", **attributes)]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    if labels := more.get("labels"):
        zipped = helper.make_node("ZipMap", ["y"], ["scores"], domain="ai.onnx.ml", **labels)
        nodes.append(zipped)
        text = "classlabels_strings" in labels
        key = TensorProto.STRING if text else TensorProto.INT64
        each = helper.make_map_type_proto(key, helper.make_tensor_type_proto(1, []))
        kind = helper.make_sequence_type_proto(each)
        results[-1] = helper.make_value_info("scores", kind)
    feed = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", F])
    graph = helper.make_graph(nodes, "g", [feed], results)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return Model.open(path)


def explained(model: Model, target: str, **options: str) -> list[Explanation]:
    sample = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors", truncated=False))
    return Explainer(model.path, **options).explain(sample, target, read_labels(model.path))


@pytest.mark.parametrize("name", CASES)
def test_lowered_operations_compute_the_same_and_close_the_ledger(
    name: str, tmp_path: Path
) -> None:
    op_type, outputs, attributes = CASES[name]
    model = classical(tmp_path, op_type, outputs, attributes)
    assert not any(node.domain for node in model.graph)
    session = onnxruntime.InferenceSession(str(model.path))
    expected = np.asarray(session.run(["y"], {"x": X})[0])
    for options in ({}, {"engine": "numpy"}, {"dtype": "float64"}):
        target = "index:0" if expected.shape[1] > 1 else "pred"
        found = explained(model, target, output="y", **options)
        for each, row in zip(found, expected, strict=True):
            np.testing.assert_allclose(each.record.target.value, row[0], rtol=1e-4)
            assert abs(each.record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("name", ["three classes", "one score"])
def test_labels_are_those_of_the_runtime(name: str, tmp_path: Path) -> None:
    op_type, outputs, attributes = CASES[name]
    model = classical(tmp_path, op_type, outputs, attributes)
    expected = onnxruntime.InferenceSession(str(model.path)).run(["label"], {"x": X})[0]
    lowered = tmp_path / "lowered.onnx"
    ir.save(model.proto, lowered)
    found = onnxruntime.InferenceSession(str(lowered)).run(["label"], {"x": X})[0]
    assert list(found) == list(expected)


def test_text_among_the_outputs_is_no_obstacle(tmp_path: Path) -> None:
    model = classical(tmp_path, *CASES["one logistic"])
    assert inspect(model).explainable
    path = tmp_path / "explainer.onnx"
    path.write_bytes(compile_model(model.path, path))
    for whole, compiled in zip(
        explained(model, "1"), explained(Model.open(path), "1"), strict=True
    ):
        np.testing.assert_allclose(
            whole.record.relevance.content, compiled.record.relevance.content, rtol=1e-5
        )


def test_a_linear_classifier_is_a_sum_of_weighted_features(tmp_path: Path) -> None:
    model = classical(tmp_path, *CASES["three classes"])
    for each, x in zip(explained(model, "label:7", dtype="float64"), X, strict=True):
        np.testing.assert_allclose(each.record.relevance.content, wide(x) * W[1], rtol=1e-9)
        np.testing.assert_allclose(each.record.ledger["bias"], B[1], rtol=1e-9)
        assert each.record.target.label == "7"
        assert each.record.target.probability is None


def test_the_offset_of_a_scaler_is_a_bias(tmp_path: Path) -> None:
    model = classical(tmp_path, "Scaler", ["y"], {"offset": [*B.tolist(), 1.0], "scale": [2.0]})
    for each, x in zip(explained(model, "index:2", dtype="float64"), X, strict=True):
        expected: Array = np.zeros(F)
        expected[2] = 2.0 * x[2]
        np.testing.assert_allclose(each.record.relevance.content, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(each.record.ledger["bias"], -2.0 * B[2], rtol=1e-6)


@pytest.mark.parametrize(
    "labels", [{"classlabels_strings": ["a", "b", "c"]}, {"classlabels_int64s": [10, 20, 30]}]
)
def test_maps_are_read_as_the_scores_that_they_hold(labels: dict[str, Any], tmp_path: Path) -> None:
    attributes = {k: v for k, v in THREE.items() if k != "classlabels_ints"}
    names = {k.replace("int64s", "ints"): v for k, v in labels.items()}
    model = classical(
        tmp_path, "LinearClassifier", ["label", "y"], {**attributes, **names}, labels=labels
    )
    wanted = str(next(iter(labels.values()))[2])
    for each, x in zip(explained(model, f"label:{wanted}", dtype="float64"), X, strict=True):
        assert (each.record.target.output, each.record.target.label) == ("scores", wanted)
        np.testing.assert_allclose(each.record.relevance.content, wide(x) * W[2], rtol=1e-9)


REFUSED = {
    "TreeEnsembleRegressor": "trees are steps",
    "SVMRegressor": "compares the input with stored samples",
    "LinearRegressor": "scores after PROBIT",
}


@pytest.mark.parametrize("op_type", REFUSED)
def test_others_are_refused_with_the_reason(op_type: str, tmp_path: Path) -> None:
    tree = {
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_ids": [0, 0],
        "target_nodeids": [1, 2],
        "target_treeids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    attributes = {
        "TreeEnsembleRegressor": tree,
        "SVMRegressor": {**SUPPORT, "kernel_type": "RBF"},
        "LinearRegressor": {**LINEAR, "post_transform": "PROBIT"},
    }[op_type]
    model = classical(tmp_path, op_type, ["y"], attributes)
    with pytest.raises(UnsupportedError, match=REFUSED[op_type]):
        explained(model, "pred")


def test_an_input_that_is_a_map_is_refused(tmp_path: Path) -> None:
    each = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(1, []))
    node = helper.make_node(
        "DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"]
    )
    result = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph([node], "g", [helper.make_value_info("x", each)], [result])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    with pytest.raises(ModelError, match="An input is a map"):
        Model.open(path)
