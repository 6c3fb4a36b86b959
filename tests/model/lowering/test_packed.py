"""Batches without padding: kernels of GPUs, so that attention is written out a second time here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import RuntimeForward

Array = NDArray[Any]
WIDTH, HEADS, LENGTHS = 6, 2, (4, 2, 5)
GENERATOR = np.random.default_rng(0)
WEIGHTS = GENERATOR.normal(size=(WIDTH, 3 * WIDTH)).astype(np.float32)
BIAS = GENERATOR.normal(size=3 * WIDTH).astype(np.float32)


def ms(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    domain = "com.microsoft"
    return helper.make_node(op_type, names, outputs.split(), domain=domain, **attributes)


def packed(attention: list[onnx.NodeProto], path: Path) -> Model:
    nodes = [
        ms("RemovePadding", "x lengths", "rows offsets ends longest"),
        *attention,
        ms("RestorePadding", "attended offsets", "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "packed",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "S", WIDTH]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "S", WIDTH])],
        [numpy_helper.from_array(a, n) for a, n in ((WEIGHTS, "w"), (BIAS, "b"))],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return Model.open(path)


def attended(x: Array, scale: float) -> Array:
    """Attention among the tokens of one sample [T, WIDTH]."""
    q, k, v = (
        part.reshape(len(x), HEADS, -1).transpose(1, 0, 2)
        for part in np.split(x @ WEIGHTS + BIAS, 3, axis=-1)
    )
    powers = np.exp(scale * q @ k.transpose(0, 2, 1))
    return (powers / powers.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(x), -1)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_every_sample_attends_to_its_own_tokens(
    separate: bool, scale: float, tmp_path: Path
) -> None:
    more = {"num_heads": HEADS, **({"scale": scale} if scale else {})}
    if separate:
        nodes = [
            helper.make_node("MatMul", ["rows", "w"], ["qkv"]),
            helper.make_node("Split", ["qkv"], ["q", "k", "v"], axis=-1),
            ms("PackedMultiHeadAttention", "q k v b offsets ends", "attended", **more),
        ]
    else:
        nodes = [ms("PackedAttention", "rows w b offsets ends", "attended", **more)]
    model = packed(nodes, tmp_path / "model.onnx")
    x = GENERATOR.normal(size=(len(LENGTHS), 5, WIDTH)).astype(np.float32)
    found = RuntimeForward(model, ["y"])({"x": x, "lengths": np.array(LENGTHS, np.int32)})["y"]
    expected = np.zeros_like(x)
    for row, sample, length in zip(expected, x, LENGTHS, strict=True):
        row[:length] = attended(sample[:length], scale or (WIDTH / HEADS) ** -0.5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tokens_packed_by_the_caller_are_refused(tmp_path: Path) -> None:
    node = ms("PackedAttention", "rows w b offsets ends", "y", num_heads=HEADS)
    graph = helper.make_graph(
        [node],
        "packed",
        [
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", WIDTH]),
            helper.make_tensor_value_info("offsets", TensorProto.INT32, ["B", "S"]),
            helper.make_tensor_value_info("ends", TensorProto.INT32, ["E"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [numpy_helper.from_array(a, n) for a, n in ((WEIGHTS, "w"), (BIAS, "b"))],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), tmp_path / "m.onnx")
    reasons = [n.meta.get("refused") for n in Model.open(tmp_path / "m.onnx").graph]
    assert reasons == ["of tokens that were packed outside of the graph"]
