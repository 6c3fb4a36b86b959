"""Quantised products in a compiled graph are those of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from building import proto, real
from committed import MODELS
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler.graph import OPSET, CompileSettings, compile_graph
from palrp_onnx.inputs import open_sample
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model import native as served
from palrp_onnx.model.open import parse_model
from palrp_onnx.prepare import plan_model
from palrp_onnx.record import Attribution, InputFacts
from palrp_onnx.relevance.method_parsing import method

X = real(2, 4, seed=8)


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
    planned = plan_model(model.copy(), sample.feeds, method("pa-lrp"))
    graph, _ = compile_graph(planned, CompileSettings(portable=portable))
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


#: Names that explainers have of their own, and one that values of theirs have.
TAKEN = ("target", "target_against", "target_vector", "relevance_content", "relevance/1")


def quantised(folder: Path, how: str) -> Path:
    """Two quantised layers: measured scales, or operations between quantised tensors."""
    body = "h = MatMul(x, w)  g = Relu(h)  z = MatMul(g, v)  y = Add(z, b)"
    weights = {"w": real(4, 6), "v": real(6, 3, seed=2), "b": real(3, seed=3)}
    onnx.save(proto(body, {"x": X}, weights), folder / "real.onnx")
    source, path = folder / "real.onnx", folder / f"{how}.onnx"
    if how == "measured":
        quantize_dynamic(source, path, weight_type=QuantType.QInt8)
    else:
        quantize_static(source, path, Reader(), quant_format=QuantFormat.QOperator)
    return path


class Reader(CalibrationDataReader):
    """Data on which ranges are measured."""

    def __init__(self) -> None:
        self._left = [{"x": X}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for node in model.graph.node:
        for listed in (node.input, node.output):
            listed[:] = [names.get(name, name) for name in listed]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = names.get(value.name, value.name)
    return model


def totals(path: Path, name: str) -> np.ndarray:
    sample = Sample("x", "tensors", {name: X}, InputFacts(kind="tensors", truncated=False))
    found = Explainer(path).explain(sample, "1")
    assert max(abs(e.record.ledger["residual_relative"]) for e in found) < 1e-5
    return np.array([each.record.relevance.total for each in found])


@pytest.mark.parametrize("how", ["measured", "stored"])
def test_names_decide_nothing(how: str, tmp_path: Path) -> None:
    """Whatever values have the names that explainers use, the map is the same.

    All names are given at once, each to another value, until every value has had every name.
    """
    path = quantised(tmp_path, how)
    model, expected = onnx.load(path), totals(path, "x")
    graph = model.graph
    values = {v.name for v in (*graph.input, *graph.initializer)}
    values = sorted(values | {name for node in graph.node for name in node.output})
    for first in range(len(values)):
        names = {values[(first + k) % len(values)]: taken for k, taken in enumerate(TAKEN)}
        onnx.save(renamed(model, names), tmp_path / "renamed.onnx")
        found = totals(tmp_path / "renamed.onnx", names.get("x", "x"))
        np.testing.assert_array_equal(found, expected, err_msg=str(names))


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_rows_with_measured_scales_do_not_depend_on_others(engine: str, tmp_path: Path) -> None:
    path = quantised(tmp_path, "measured")
    rows = np.concatenate([X, 30 * X])  # their scale leaves nothing of the others
    explainer = Explainer(path, engine=engine)

    def explain(x: np.ndarray) -> list[Attribution]:
        sample = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
        return [each.record for each in explainer.explain(sample, "1")]

    together, session = explain(rows), onnxruntime.InferenceSession(path)
    for k, record in enumerate(together):
        (alone,) = explain(rows[k : k + 1])
        (output,) = session.run(["y"], {"x": rows[k : k + 1]})
        assert record.relevance == alone.relevance
        assert record.target.value == pytest.approx(output[0, 1], abs=1e-5)
        assert record.id == f"x-{k}"


def test_the_file_is_read_once_for_its_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = quantised(tmp_path, "measured")
    read = list[Path]()

    def counted(file: Path) -> ir.Model:
        read.append(file)
        return parse_model(file)

    monkeypatch.setattr(served, "parse_model", counted)
    totals(path, "x")
    assert read == [path]


def test_a_copied_result_is_that_of_the_file(tmp_path: Path) -> None:
    """The plain graph leaves copies out; the last one names the output."""
    weight = np.random.default_rng(0).integers(0, 256, (8, 1, 16), np.uint8)
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
        g (float[B, 32] x) => (float[B, 8] y) {
            p = com.microsoft.MatMulNBits <N = 8, K = 32, bits = 4, block_size = 32> (x, w, s)
            q = Identity (p)
            y = Identity (q)
        }"""
    )
    for name, array in (("w", weight), ("s", np.ones((8, 1), np.float32))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "model.onnx")
    opened = Model.open(tmp_path / "model.onnx", at_least=OPSET)
    put_back = served.with_own_products(opened, [])
    assert [node.op_type for node in put_back.graph] == ["MatMulNBits"]
    assert put_back.graph.outputs[0].name == "y"
