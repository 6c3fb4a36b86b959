"""Of a packed output layer those rows alone are dequantised that the target reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from building import real
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler.graph import CompileSettings, compile_graph
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.prepare import plan_model
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.method_parsing import resolve_method

CLASSES, SIZE = 2048, 32
LARGE = 1 << 20


def saved(folder: Path, bits: int, zeros: bool, opset: int, width: int) -> Model:
    """A layer that is not linear, and packed weights of an output layer."""
    random = np.random.default_rng(5)
    blocks = -(-width // SIZE)
    shape = (CLASSES, blocks, SIZE * bits // 8)
    arrays = {
        "w": random.integers(0, 256, shape).astype(np.uint8),
        "s": random.uniform(0.001, 0.01, CLASSES * blocks).astype(np.float32),
    }
    if zeros:
        arrays["z"] = random.integers(0, 256, CLASSES * -(-blocks * bits // 8)).astype(np.uint8)
    facts = {"K": width, "N": CLASSES, "bits": bits, "block_size": SIZE}
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("MatMulNBits", ["h", *arrays], ["y"], domain="com.microsoft", **facts),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", CLASSES])],
        [numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return Model.open(folder / "model.onnx")


@pytest.mark.parametrize(("bits", "width"), [(4, 512), (8, 1024), (4, 1000), (4, 544)])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("opset", [13, 21])
def test_every_target_is_as_with_all_rows(
    bits: int, width: int, zeros: bool, opset: int, tmp_path: Path
) -> None:
    """A class, the predicted one, two compared, and a seed that is zero nowhere; two samples."""
    model = saved(tmp_path, bits, zeros, opset, width)
    feeds = {"x": real(2, width, seed=9)}
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    compiled, exact = (
        Explainer(model, dtype=dtype, head="single-label") for dtype in ("float32", "float64")
    )
    for target in ("2047", "0", "pred", "5-1999", "7-7", "logprob:3"):
        pairs = zip(compiled.explain(sample, target), exact.explain(sample, target), strict=True)
        for found, expected in pairs:
            scale = max(np.abs(expected.tensors["content"]).max(), 1e-9)
            gap = np.abs(found.tensors["content"] - expected.tensors["content"]).max()
            assert gap <= 3e-5 * scale, target


@pytest.mark.parametrize("opset", [13, 21])
def test_no_other_row_is_dequantised(opset: int, tmp_path: Path) -> None:
    model = saved(tmp_path, 4, False, opset, 512)
    planned = plan_model(model, None, resolve_method("pa-lrp"))
    graph = compile_graph(planned, CompileSettings())[0].graph
    assert "MatMulNBits" in {node.op_type for node in graph}
    for node in graph:
        for value in node.outputs:
            shape = value.shape
            known = shape.numpy() if shape is not None and shape.is_static() else ()
            assert np.prod(known) < LARGE
    assert all(node.op_type != "DequantizeLinear" for node in graph)
