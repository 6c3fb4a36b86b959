"""Products of few bits run in a compiled graph as the file runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler import OPSET, Settings, compile_graph
from palrp_onnx.inputs import open_sample
from palrp_onnx.planning import plan_model
from palrp_onnx.relevance.presets import preset

MODELS = Path(__file__).parents[2] / "models"


def whole_numbers(source: Path, path: Path) -> str:
    quantize_dynamic(source, path, weight_type=QuantType.QInt8)
    return "MatMulInteger"


def four_bits(source: Path, path: Path) -> str:
    import onnx

    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=False)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path))
    return "MatMulNBits"


@pytest.mark.parametrize("make", [whole_numbers, four_bits])
@pytest.mark.parametrize("portable", [False, True])
def test_the_forward_pass_is_that_of_the_file(make, portable: bool, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = MODELS / "reviews-bert"
    op_type = make(source / "model.onnx", tmp_path / "model.onnx")
    model = Model.open(tmp_path / "model.onnx", at_least=OPSET)
    sample = open_sample(
        source / "sample.txt",
        model_path=source / "model.onnx",
        graph_inputs=model.inputs,
        tokenizer=None,
    )
    products = sum(count for name, count in model.lowered.items() if name.endswith(op_type))
    planned = plan_model(model.copy(), sample.feeds, preset("pa-lrp"))
    graph, _ = compile_graph(planned, Settings(portable=portable))
    found = [node.op_type for node in graph.graph]
    standard = op_type == "MatMulInteger"
    assert products > 5
    assert found.count(op_type) == (products if standard or not portable else 0)
    if not portable:
        weighed = {v for node in graph.graph if node.op_type == op_type for v in node.outputs}
        assert weighed
        explained = Explainer(model).explain(sample)[0].record
        walked = Explainer(model, engine="numpy").explain(sample)[0].record
        assert explained.fidelity.difference < 1e-6
        np.testing.assert_allclose(
            explained.relevance.total, walked.relevance.total, atol=2e-3 * abs(walked.target.value)
        )
