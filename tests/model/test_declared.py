"""Files as they are: initializers among the inputs, old IR versions, stale declared shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from building import ints, opened, proto, real
from numpy.typing import NDArray
from onnx import TensorProto, helper

from palrp_onnx import Explainer
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.open import Model
from palrp_onnx.record import Attribution, InputFacts

Array = NDArray[Any]
ENGINES = ("onnxruntime", "numpy")


def explain(model: Model | Path, feeds: Mapping[str, Array], **options: Any) -> list[Attribution]:
    sample = Sample("x", "tensors", dict(feeds), InputFacts(kind="tensors", truncated=False))
    target = options.pop("target", "1")
    return [e.record for e in Explainer(model, **options).explain(sample, target)]


def listed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its initializers among the inputs, as IR version 3 requires."""
    for tensor in model.graph.initializer:
        kind, dims = tensor.data_type, list(tensor.dims)
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, kind, dims))
    return model


def two_layers(opset: int, ir_version: int) -> onnx.ModelProto:
    weights = {"w": real(4, 4), "v": real(4, 3, seed=2), "b": real(3, seed=3)}
    body = "h = MatMul(x, w)  r = Relu(h)  o = MatMul(r, v)  y = Add(o, b)"
    model = proto(body, {"x": real(1, 4)}, weights, opset=opset)
    model.ir_version = ir_version
    return model


X = real(3, 4, seed=8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("among_inputs", [True, False])
@pytest.mark.parametrize(("opset", "ir_version"), [(7, 3), (9, 3), (12, 3), (17, 3), (17, 8)])
def test_initializers_are_constants(
    engine: str, among_inputs: bool, opset: int, ir_version: int
) -> None:
    stored = two_layers(opset, ir_version)
    model = opened(listed(stored) if among_inputs else stored)
    assert [each.name for each in model.inputs] == ["x"]
    reference = explain(opened(two_layers(17, 10)), {"x": X})
    for ours, expected in zip(explain(model, {"x": X}, engine=engine), reference, strict=True):
        assert ours.target.value == pytest.approx(expected.target.value, rel=1e-5)
        assert ours.relevance.content == pytest.approx(expected.relevance.content, rel=1e-4)
        assert abs(ours.ledger["residual_relative"]) < 1e-5


def test_an_explainer_file_of_such_a_model(tmp_path: Path) -> None:
    path, explainer = tmp_path / "model.onnx", tmp_path / "explainer.onnx"
    path.write_bytes(listed(two_layers(9, 3)).SerializeToString())
    explainer.write_bytes(compile_model(path, explainer))
    session = onnxruntime.InferenceSession(explainer, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["x"]
    (direct,) = explain(path, {"x": X[:1]})
    (ours,) = session.run(["relevance_total"], {"x": X[:1], "target": ints(1)})
    assert ours[0].tolist() == pytest.approx(direct.relevance.total, rel=1e-5)
    (record,) = explain(explainer, {"x": X[:1]})
    assert record.relevance.total == pytest.approx(direct.relevance.total, rel=1e-5)


def test_a_weight_with_the_name_of_an_input_of_explainers() -> None:
    model = opened(listed(proto("y = MatMul(x, target)", {"x": X}, {"target": real(4, 3)})))
    for engine in ENGINES:
        record = explain(model, {"x": X}, engine=engine)[0]
        assert abs(record.ledger["residual_relative"]) < 1e-5


# --- declared shapes that differ from those of the run -------------------------------------------
STALE = {
    "output": {"y": [1, 8, 3]},
    "intermediate": {"h": [1, 8, 4], "o": [1, 8, 3]},
    "both": {"h": [1, 8, 4], "r": [2, 2, 4], "y": [1, 8, 3]},
    "features": {"h": [1, 8, 9]},
    "axes of intermediates": {"h": [8, 4]},
    "axes of the output": {"y": [1, 3]},
}


def stale(declared: Mapping[str, list[int]]) -> onnx.ModelProto:
    """[B, T, 4] → [B, T, 3], with the sizes of another run."""
    weights = {"w": real(4, 4), "v": real(4, 3, seed=2)}
    body = "h = MatMul(x, w)  s = Shape(h)  r = Reshape(h, s)  t = Relu(r)  y = MatMul(t, v)"
    model = proto(body, {"x": real(1, 8, 4)}, weights, free=(0, 1))
    for name, dims in declared.items():
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        if name == "y":
            model.graph.output[0].CopyFrom(info)
        else:
            model.graph.value_info.append(info)
    return model


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("declared", STALE.values(), ids=STALE)
def test_stale_shapes_do_not_matter(engine: str, declared: Mapping[str, list[int]]) -> None:
    explainer = Explainer(opened(stale(declared)), engine=engine)
    plain = Explainer(opened(stale({})), engine=engine)
    for samples, tokens in ((2, 5), (1, 8), (3, 11), (1, 1)):
        feeds = {"x": real(samples, tokens, 4, seed=tokens)}
        for target in ("pred", "token:-1:2", "token:0:1"):
            for ours, expected in zip(
                records(explainer, feeds, target), records(plain, feeds, target), strict=True
            ):
                assert ours.target == expected.target
                assert ours.relevance == expected.relevance
                assert abs(ours.ledger["residual_relative"]) < 1e-5


def records(explainer: Explainer, feeds: dict[str, Array], target: str) -> Iterator[Attribution]:
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    return (e.record for e in explainer.explain(sample, target))


def test_a_stale_shape_in_an_explainer_file(tmp_path: Path) -> None:
    path, explainer = tmp_path / "model.onnx", tmp_path / "explainer.onnx"
    path.write_bytes(stale(STALE["both"]).SerializeToString())
    explainer.write_bytes(compile_model(path, explainer))
    session = onnxruntime.InferenceSession(explainer, providers=["CPUExecutionProvider"])
    x = real(3, 6, 4)
    (ledger, y) = session.run(["relevance_ledger", "y"], {"x": x})
    assert ledger.sum(axis=1) == pytest.approx(y[:, -1].max(axis=1), rel=1e-5)


def test_a_stale_shape_with_fused_operations() -> None:
    weights = {"w": real(4, 4), "b": real(4, seed=4), "v": real(4, 3, seed=2)}
    body = "h = MatMul(x, w)  g = com.microsoft.BiasGelu(h, b)  y = MatMul(g, v)"
    model = proto(body, {"x": real(1, 8, 4)}, weights, free=(0, 1))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    for name, dims in {"h": [1, 8, 4], "g": [1, 8, 4]}.items():
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        model.graph.value_info.append(info)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 3]))
    for engine in ENGINES:
        for record in explain(opened(model), {"x": real(2, 5, 4)}, engine=engine, target="pred"):
            assert abs(record.ledger["residual_relative"]) < 1e-5
            assert np.abs(record.relevance.content).sum() > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_shapes_are_followed_after_fused_operations(engine: str) -> None:
    """The number of heads is known only once the fused norm before them is primitive."""
    weights = {
        "w": real(4, 4),
        "g": real(4, seed=4),
        "b": real(4, seed=5),
        "v": real(4, 3, seed=2),
        "last": ints(-1),
    }
    body = """h = MatMul(x, w)  s = com.microsoft.SkipLayerNormalization(h, x, g, b)
        t = Transpose<perm=[0, 2, 1]>(s)  q = Unsqueeze(t, last)  a = Attention(q, q, q)
        c = Squeeze(a, last)  d = Transpose<perm=[0, 2, 1]>(c)  y = MatMul(d, v)"""
    model = proto(body, {"x": real(1, 8, 4)}, weights, opset=23, free=(0, 1))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    for name, dims in {"s": [1, 8, 4], "t": [1, 4, 8], "q": [1, 4, 8, 1]}.items():
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        model.graph.value_info.append(info)
    for record in explain(opened(model), {"x": real(2, 5, 4)}, engine=engine, target="pred"):
        assert abs(record.ledger["residual_relative"]) < 1e-5
        assert np.abs(record.relevance.content).sum() > 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tokens", [5, 9])
def test_heads_that_only_the_file_declares(engine: str, tokens: int) -> None:
    """A fused operation may need a declared length; fidelity shows whether it is true."""
    body = """n = Shape <start=0, end=2> (x)  s = Concat <axis=0> (n, cut)  r = Reshape(x, s)
        q = Transpose <perm=[0, 2, 1, 3]> (r)  a = Attention(q, q, q)
        t = Transpose <perm=[0, 2, 1, 3]> (a)  j = Reshape(t, join)  y = MatMul(j, w)"""
    x = real(2, tokens, 8, seed=4)
    weights = {"cut": ints(-1, 4), "join": ints(0, 0, 8), "w": real(8, 3)}
    model = proto(body, {"x": x}, weights, opset=23, free=(0, 1))
    float_ = TensorProto.FLOAT
    model.graph.value_info.append(helper.make_tensor_value_info("q", float_, ["b", 2, 7, 4]))
    for record in explain(opened(model), {"x": x}, engine=engine, target="0,1"):
        assert abs(record.ledger["residual_relative"]) < 1e-5
        assert record.fidelity.difference <= record.fidelity.allowed


@pytest.mark.parametrize("engine", ENGINES)
def test_an_axis_of_minus_one_is_free(engine: str) -> None:
    model = two_layers(17, 8)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    for rows in (1, 3):
        for record in explain(opened(model), {"x": X[:rows]}, engine=engine):
            assert abs(record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_the_long_name_of_the_standard(engine: str) -> None:
    model = two_layers(17, 8)
    (expected,) = explain(opened(model), {"x": X[:1]}, engine=engine)
    model.opset_import[0].domain = "ai.onnx"
    for node in model.graph.node:
        node.domain = "ai.onnx"
    (found,) = explain(opened(model), {"x": X[:1]}, engine=engine)
    assert found.relevance == expected.relevance and found.model.opset == 17


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_without_operations_of_the_standard(engine: str) -> None:
    model = proto("y = Relu(x)", {"x": real(2, 4)}, {})
    model.graph.node[0].op_type, model.graph.node[0].domain = "QuickGelu", "com.microsoft"
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    for record in explain(opened(model), {"x": real(2, 4)}, engine=engine):
        assert abs(record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("opset", [11, 13, 15])
def test_what_the_optimiser_writes_into_older_opsets(opset: int, engine: str) -> None:
    """LayerNormalization is of opset 17; later operations need its type."""
    x = real(2, 5, 8)
    weights = {"g": real(8, seed=2), "b": real(8, seed=3), "w": real(8, 24), "c": real(24, seed=4)}
    model = proto(
        "n = LayerNormalization <axis=-1> (x, g, b)  y = Relu(n)", {"x": x}, weights, opset=opset
    )
    del model.graph.node[1]
    model.graph.node.append(
        helper.make_node("Attention", ["n", "w", "c"], ["y"], domain="com.microsoft", num_heads=2)
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    for record in explain(opened(model), {"x": x}, engine=engine, target="0,1"):
        assert abs(record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cast_of_quantised_numbers_to_their_own_type(engine: str) -> None:
    """As PyTorch's static quantisation writes it between quantising and dequantising."""
    body = """q = QuantizeLinear(x, s, z)  c = Cast <to=2> (q)  d = DequantizeLinear(c, s, z)
        y = MatMul(d, w)"""
    weights = {
        "s": np.array(0.02, np.float32),
        "z": np.array(63, np.uint8),
        "w": real(4, 3, seed=5),
    }
    (record,) = explain(opened(proto(body, {"x": X[:1]}, weights)), {"x": X[:1]}, engine=engine)
    expected = X[0].astype(np.float64) * weights["w"][:, 1]
    inside = np.abs(X[0] / 0.02 + 63 - 127.5) < 127
    np.testing.assert_allclose(
        np.array(record.relevance.content)[inside], expected[inside], atol=1e-4
    )
    assert abs(record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_slices_with_short_integers(engine: str) -> None:
    body = "h = Slice(x, s, e, a, t)  y = MatMul(h, w)"
    short = {
        name: np.array([n], np.int32) for name, n in {"s": -1, "e": -7, "a": 1, "t": -2}.items()
    }
    model = opened(proto(body, {"x": X[:1]}, {**short, "w": real(2, 3, seed=5)}))
    (record,) = explain(model, {"x": X[:1]}, engine=engine)
    column = real(2, 3, seed=5)[:, 1]
    expected = [0.0, X[0, 1] * column[1], 0.0, X[0, 3] * column[0]]
    np.testing.assert_allclose(record.relevance.content, expected, rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_value_that_is_listed_twice_as_an_output(engine: str) -> None:
    model = two_layers(17, 8)
    model.graph.output.append(model.graph.output[0])
    (record,) = explain(opened(model), {"x": X[:1]}, engine=engine)
    assert abs(record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_a_condition_may_be_an_input(engine: str) -> None:
    def branch(name: str, op_type: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op_type, ["h"], [name])], name, [], [made])

    model = proto("h = MatMul(x, w)  y = Relu(h)", {"x": X[:1]}, {"w": real(4, 3, seed=5)})
    del model.graph.node[1]
    branches = {"then_branch": branch("a", "Relu"), "else_branch": branch("b", "Neg")}
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], **branches))
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    opened_model = opened(model)
    for taken in (True, False):
        feeds = {"x": X[:1], "c": np.array(taken)}
        (record,) = explain(opened_model, feeds, engine=engine)
        h = X[:1] @ real(4, 3, seed=5)
        assert record.target.value == pytest.approx(
            float((np.maximum(h, 0) if taken else -h)[0, 1])
        )
        assert abs(record.ledger["residual_relative"]) < 1e-5
