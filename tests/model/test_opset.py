"""Raised graphs compute what the file computes, with the same types, in every real type."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from building import ints, real
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx import Explainer, Model, inspect
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.runtime.forward import ReferenceForward, RuntimeForward

Array = NDArray[Any]

TYPES = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.float64: 11}
ROWS, IMAGE = (2, 3, 4), (1, 2, 6, 5)
SCALED = np.array([1, 1, 2, 1.5], np.float32)


class Old(NamedTuple):
    """An operation as it was before a later opset: its operands and attributes."""

    op_type: str
    shape: tuple[int, ...]
    opsets: tuple[int, ...]
    operands: tuple[Array | None, ...] = ()
    attributes: dict[str, Any] = {}  # noqa: RUF012 - never changed
    outputs: int = 1


def old(
    op_type: str, shape: tuple[int, ...], opsets: str, *operands: Any, **attributes: Any
) -> Old:
    count = attributes.pop("outputs", 1)
    return Old(op_type, shape, tuple(map(int, opsets.split())), operands, attributes, count)


POOL = {"kernel_shape": [3, 2], "strides": [2, 2]}
CASES = [
    old("AveragePool", IMAGE, "7 10", auto_pad="SAME_LOWER", **POOL),
    old("AveragePool", IMAGE, "10 11", auto_pad="SAME_UPPER", ceil_mode=1, **POOL),
    old("AveragePool", IMAGE, "10", ceil_mode=1, pads=[1, 0, 1, 1], count_include_pad=1, **POOL),
    old("BatchNormalization", IMAGE, "7 9", *(real(2, seed=k, low=0.1) for k in range(4))),
    old("Clip", ROWS, "6 10", min=-0.5, max=0.7),
    old("Clip", ROWS, "10", min=-0.5),
    old("Clip", ROWS, "10", max=0.3),
    old("Dropout", ROWS, "7 10", ratio=0.3),
    old("Gemm", (3, 4), "7 9", real(4, 5), real(1), alpha=0.5, beta=2.0),
    old("Hardmax", ROWS, "7 11"),
    old("Hardmax", ROWS, "11", axis=-1),
    old("LogSoftmax", ROWS, "7 11", axis=0),
    old("Max", ROWS, "7 8", real(*ROWS, seed=3)),
    old("MaxPool", IMAGE, "7 8", pads=[1, 0, 1, 1], **POOL),
    old("MaxPool", IMAGE, "7 11", auto_pad="SAME_LOWER", **POOL),
    old("MaxPool", IMAGE, "10", ceil_mode=1, **POOL),
    old("Mean", ROWS, "7", real(*ROWS, seed=3)),
    old("Pad", IMAGE, "7 10", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.25),
    old("Pad", IMAGE, "10", pads=[0, 0, -1, 2, 0, 0, 0, -1]),
    old("Pad", IMAGE, "10", pads=[0, 0, 1, -2, 0, 0, 0, 1], mode="reflect"),
    old("ReduceSum", ROWS, "7 11", axes=[1], keepdims=0),
    old("Resize", IMAGE, "10", SCALED, mode="linear"),
    old("Resize", IMAGE, "10", np.array([1, 1, 0.5, 0.6], np.float32), mode="nearest"),
    old("Scatter", (3, 4), "9", ints([0, 1], [1, 2]), real(2, 2), axis=1),
    old("Slice", ROWS, "7 9", starts=[0, -3], ends=[1, 2**40], axes=[0, 2]),
    old("Softmax", ROWS, "7 11"),
    old("Split", ROWS, "7 11", axis=2, split=[1, 3], outputs=2),
    old("Squeeze", (1, 3, 1, 2), "7 11", axes=[0, 2]),
    old("Sum", ROWS, "7", real(*ROWS, seed=3)),
    old("TopK", ROWS, "7 9", k=2, axis=2, outputs=2),
    old("TopK", ROWS, "10", ints(2), outputs=2),
    old("Unsqueeze", ROWS, "7 11", axes=[0, 2]),
    old("Upsample", IMAGE, "7", mode="linear", scales=[1.0, 1.0, 2.0, 2.0]),
    old("Upsample", IMAGE, "9", SCALED, mode="nearest"),
]


def save(path: Path, case: Old, opset: int, dtype: Any) -> Path:
    names, stored = ["x"], []
    for k, array in enumerate(case.operands):
        names.append(f"w{k}")
        own = array.dtype == np.float32 and array is not SCALED and case.op_type != "Resize"
        stored.append(numpy_helper.from_array(array.astype(dtype) if own else array, f"w{k}"))
    outputs = [f"y{k}" for k in range(case.outputs)]
    graph = helper.make_graph(
        [helper.make_node(case.op_type, names, outputs, **case.attributes)],
        "g",
        [helper.make_tensor_value_info("x", TYPES[dtype], case.shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        stored,
    )
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=4), path)
    return path


def alone(path: Path, x: Array) -> list[Array] | None:
    """What ONNX Runtime computes from the file; ``None`` where it has no kernel."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return list(onnxruntime.InferenceSession(path, options).run(None, {"x": x}))
    except Exception:
        return None


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op_type}-{c.attributes}")
def test_the_raised_graph_computes_the_same(case: Old, dtype: Any, tmp_path: Path) -> None:
    x = real(*case.shape, seed=5).astype(dtype)
    for opset in case.opsets:
        path = save(tmp_path / f"{opset}.onnx", case, opset, dtype)
        if (expected := alone(path, x)) is None:
            continue
        for at_least in (13, 18):
            model = Model.open(path, at_least=at_least)
            names = [v.name or "" for v in model.graph.outputs]
            exact = RuntimeForward(model, names)({"x": x})
            wide = ReferenceForward(model, names)({"x": x})
            for name, array in zip(names, expected, strict=True):
                assert exact[name].dtype == array.dtype
                assert exact[name].shape == wide[name].shape == array.shape
                rough = 1e-2 if dtype == np.float16 else 1e-5
                np.testing.assert_allclose(exact[name], array, rtol=rough, atol=rough)
                np.testing.assert_allclose(wide[name], array, rtol=rough, atol=rough)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize(
    "nodes",
    [
        "c = Clip<min=-0.5, max=0.7>(a)",
        "b = Slice<starts=[0], ends=[2], axes=[1]>(a)  c = Pad<pads=[0, 0, 0, 1]>(b)",
        "c, mask = Dropout<ratio=0.3>(a)",
        "c = Softmax<axis=0>(a)",
    ],
)
def test_both_engines_explain_it(nodes: str, dtype: Any, tmp_path: Path) -> None:
    text = f"g () => () {{ a = MatMul(x, W)  {nodes}  y = MatMul(c, V) }}"
    graph = onnx.parser.parse_graph(text)
    for name, shape in (("x", (1, 4)), ("y", None)):
        info = helper.make_tensor_value_info(name, TYPES[dtype], shape)
        (graph.input if name == "x" else graph.output).append(info)
    for name, shape in (("W", (4, 3)), ("V", (3, 2))):
        graph.initializer.append(numpy_helper.from_array(real(*shape).astype(dtype), name))
    imports = [helper.make_opsetid("ai.onnx", 9)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=4), tmp_path / "m.onnx")
    x = real(1, 4, seed=5).astype(dtype)
    sample = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    maps = []
    assert inspect(Model.open(tmp_path / "m.onnx")).explainable
    for engine in ("onnxruntime", "numpy"):
        (found,) = Explainer(tmp_path / "m.onnx", engine=engine).explain(sample, "index:0")
        maps.append(found.tensors["content"])
        assert abs(found.record.residual) < (1e-2 if dtype == np.float16 else 1e-5)
    rough = 1e-2 if dtype == np.float16 else 1e-5
    np.testing.assert_allclose(maps[0], maps[1], rtol=rough, atol=rough)


@pytest.mark.parametrize("rank", [None, 0])
def test_single_and_double_precision_meet_in_one_ledger(tmp_path: Path, rank: int | None) -> None:
    graph = onnx.parser.parse_graph(
        """g (float[batch, 4] x, double t) => (float[batch, 3] y) <float[4, 3] W =
        {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
        { u = Cast<to=1>(t)  a = MatMul(x, W)  y = Mul(a, u) }"""
    )
    number = None if rank is None else []
    graph.input[1].CopyFrom(helper.make_tensor_value_info("t", onnx.TensorProto.DOUBLE, number))
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "m.onnx")
    feeds = {"x": real(1, 4), "t": np.array(2.0)}
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    for engine in ("onnxruntime", "numpy"):
        (found,) = Explainer(tmp_path / "m.onnx", engine=engine).explain(sample, "index:0")
        ledger = found.record.ledger
        assert ledger["content"] == pytest.approx(ledger["t"], rel=1e-5)
        assert [len(each.relevance.total) for each in found.record.maps] == [4, 1]
        assert abs(found.record.residual) < 1e-5
