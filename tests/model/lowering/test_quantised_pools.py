"""Pools of whole numbers with a zero point, between quantised convolutions: the ledger closes.

The windows overlap, hang over the edge or leave gaps; padding is lower than every number.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Attribution, Fidelity, InputFacts

Array = NDArray[Any]
POOLS: dict[str, dict[str, Any]] = {
    "tiled": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "padded": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "padded at the end": {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "beyond the edge": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "with gaps": {"kernel_shape": [2, 2], "dilations": [2, 2], "pads": [1, 1, 1, 1]},
}
GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((2, 3, 12, 12)).astype(np.float32)
WEIGHTS = {
    "w1": (GENERATOR.standard_normal((4, 3, 3, 3)) * 0.3).astype(np.float32),
    "b1": (GENERATOR.standard_normal(4) * 0.3).astype(np.float32),
    "w2": (GENERATOR.standard_normal((5, 4, 3, 3)) * 0.3).astype(np.float32),
    "b2": (GENERATOR.standard_normal(5) * 0.3).astype(np.float32),
}


def network(nodes: list[onnx.NodeProto], weights: dict[str, Array], opset: int) -> onnx.ModelProto:
    """From images ``x`` to ``y`` [B, 5], the mean of ``c`` over its plane."""
    mean = [
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    graph = helper.make_graph(
        [*nodes, *mean],
        "pools",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def check(path: Path, engine: str) -> None:
    sample = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors", truncated=False))
    for explanation in Explainer(path, engine=engine).explain(sample):
        record: Attribution = explanation.record
        assert isinstance(record.fidelity, Fidelity)
        assert record.fidelity.difference is not None and record.fidelity.allowed is not None
        assert record.fidelity.difference <= record.fidelity.allowed
        assert abs(record.ledger["residual_relative"]) < 1e-5
        assert np.abs(record.relevance.content).sum() > 0


# --- zero points by hand --------------------------------------------------------------------------
def by_hand(pool: dict[str, Any], kind: Any, zero: int) -> onnx.ModelProto:
    """QuantizeLinear, QLinearConv, MaxPool of whole numbers, QLinearConv, DequantizeLinear."""
    weights: dict[str, Array] = {
        "xs": np.float32(0.02),
        "ws": np.float32(0.01),
        "hs": np.float32(0.03),
        "cs": np.float32(0.05),
        "z": kind(zero),
        "n": np.int8(0),
    }
    for name in ("w1", "w2"):
        weights[name] = np.clip(np.rint(WEIGHTS[name] / 0.01), -127, 127).astype(np.int8)
    weights["b1"] = np.rint(WEIGHTS["b1"] / (0.02 * 0.01)).astype(np.int32)
    weights["b2"] = np.rint(WEIGHTS["b2"] / (0.03 * 0.01)).astype(np.int32)
    first = ["q", "xs", "z", "w1", "ws", "n", "hs", "z", "b1"]
    second = ["p", "hs", "z", "w2", "ws", "n", "cs", "z", "b2"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "z"], ["q"]),
        helper.make_node("QLinearConv", first, ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["h"], ["p"], **pool),
        helper.make_node("QLinearConv", second, ["k"]),
        helper.make_node("DequantizeLinear", ["k", "cs", "z"], ["c"]),
    ]
    return network(nodes, weights, 17)


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize(("kind", "zero"), [(np.uint8, 0), (np.uint8, 37), (np.int8, -41)])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_pools_of_whole_numbers(
    pool: dict[str, Any], kind: Any, zero: int, engine: str, tmp_path: Path
) -> None:
    onnx.save(by_hand(pool, kind, zero), tmp_path / "model.onnx")
    check(tmp_path / "model.onnx", engine)


# --- as ONNX Runtime's quantiser writes them ------------------------------------------------------


def quantised(folder: Path, pool: dict[str, Any], form: str, kind: str) -> Path:
    from onnxruntime import quantization

    class Examples(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[dict[str, Array]] = iter([{"x": X[:1]}, {"x": X[1:]}])

        def get_next(self) -> dict[str, Array] | None:
            return next(self._left, None)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], **pool),
        helper.make_node("Conv", ["p", "w2", "b2"], ["c"]),
    ]
    plain, path = folder / "plain.onnx", folder / "model.onnx"
    onnx.save(network(nodes, WEIGHTS, 17), plain)
    quantization.quantize_static(
        plain,
        path,
        Examples(),
        quant_format=quantization.QuantFormat[form],
        activation_type=quantization.QuantType[kind],
        weight_type=quantization.QuantType.QInt8,
    )
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("kind", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_statically_quantised_files(
    pool: dict[str, Any], form: str, kind: str, engine: str, tmp_path: Path
) -> None:
    check(quantised(tmp_path, pool, form, kind), engine)
