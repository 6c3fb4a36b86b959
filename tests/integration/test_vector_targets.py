"""Products of the output with a vector: values by construction, both engines, compiled files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from building import ints, proto, real
from committed import opened, sample

from palrp_onnx import Explainer
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.describe import Explanation
from palrp_onnx.errors import InputError, TargetError
from palrp_onnx.inputs import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.target import Target

ENGINES = ("numpy", "onnxruntime")
TOLERANCE = 2e-3
X, W, V = real(2, 5, 4), real(4, 3, seed=3), real(3, seed=5)
POOLED = "h = MatMul(x, w)  z = ReduceMean<keepdims = 0>(h, axis)"
NORMALISED = f"{POOLED}  l = ReduceL2<keepdims = 1>(z, axis)  y = Div(z, l)"
GIVEN = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors"))


def model(folder: Path, body: str) -> Path:
    path = folder / "model.onnx"
    weights = {"w": W, "axis": ints(1)}
    onnx.save(proto(body, {"x": X}, {k: v for k, v in weights.items() if k in body}), path)
    return path


def stored(folder: Path, vector: Any = V) -> Path:
    path = folder / "v.npy"
    np.save(path, vector)
    return path


def totals(found: list[Explanation]) -> Any:
    return np.array([each.record.relevance.content for each in found])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["dot", "cos"])
def test_a_normalised_mean_of_tokens(tmp_path: Path, engine: str, kind: str) -> None:
    """Every token has its term x W v / (T |z|), over |v| for a cosine: |y| is 1."""
    path, vector = model(tmp_path, NORMALISED), stored(tmp_path)
    found = Explainer(path, engine=engine).explain(GIVEN, f"{kind}:{vector}")
    terms = X.astype(np.float64) @ W @ V / 5
    lengths = np.linalg.norm(X.astype(np.float64).mean(axis=1) @ W, axis=1)
    expected = terms / lengths[:, None] / (np.linalg.norm(V) if kind == "cos" else 1)
    np.testing.assert_allclose(totals(found), expected, rtol=1e-5, atol=1e-7)
    for row, each in zip(expected, found, strict=True):
        target = each.record.target
        assert target.kind == ("cosine" if kind == "cos" else "dot")
        assert target.value == pytest.approx(row.sum(), rel=1e-5)
        assert (target.index, target.label, target.probability) == (None, None, None)
        assert (target.vector, len(target.vector_sha256 or "")) == ("v.npy", 64)
        assert abs(each.record.ledger["residual_relative"]) < 1e-5
        assert not each.record.warnings


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cosine_of_what_is_not_normalised(tmp_path: Path, engine: str) -> None:
    """Its length is a statistic: the seed is v / (|v| |y|)."""
    path, vector = model(tmp_path, POOLED.replace("z =", "y =")), stored(tmp_path)
    (found, _) = Explainer(path, engine=engine).explain(GIVEN, f"cos:{vector}")
    y = X[0].astype(np.float64).mean(axis=0) @ W
    expected = X[0].astype(np.float64) @ W @ V / 5 / np.linalg.norm(y) / np.linalg.norm(V)
    np.testing.assert_allclose(found.record.relevance.content, expected, rtol=1e-5)
    similarity = y @ V / np.linalg.norm(y) / np.linalg.norm(V)
    assert found.record.target.value == pytest.approx(similarity, rel=1e-6)
    raw = found.tensors["content"].sum()
    assert raw == pytest.approx(similarity, rel=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("place", "token"), [("", 4), (":0", 0), (":-2", 3)])
def test_a_product_at_a_token(tmp_path: Path, engine: str, place: str, token: int) -> None:
    path, vector = model(tmp_path, "y = MatMul(x, w)"), stored(tmp_path)
    (found, _) = Explainer(path, engine=engine).explain(GIVEN, f"dot:{vector}{place}")
    expected = np.zeros(5)
    expected[token] = X[0, token].astype(np.float64) @ W @ V
    np.testing.assert_allclose(found.record.relevance.content, expected, rtol=1e-5)
    assert (found.record.target.position, found.record.target.kind) == (token, "dot")


@pytest.mark.parametrize("positions", ["relu", "abs", "signed", "single-sink"])
@pytest.mark.parametrize(("name", "kind"), [("bert", "dot"), ("llama", "cos"), ("vit", "cos")])
def test_engines_agree(tmp_path: Path, name: str, kind: str, positions: str) -> None:
    given = sample(name)
    numpy = Explainer(opened(name), engine="numpy", positions=positions)
    outcome = numpy.engine(given.feeds).explain(given.feeds, Target("pred"))
    vector = stored(tmp_path, 30 * real(outcome.output.shape[-1], seed=9))
    reference = numpy.explain(given, f"{kind}:{vector}")
    compiled = Explainer(opened(name), positions=positions).explain(given, f"{kind}:{vector}")
    for ours, theirs in zip(compiled, reference, strict=True):
        assert ours.record.target.value == pytest.approx(theirs.record.target.value, rel=1e-4)
        for part in ("content", "position", "total"):
            mine, other = (np.array(getattr(e.record.relevance, part)) for e in (ours, theirs))
            assert np.abs(mine - other).max() <= TOLERANCE * np.abs(other).max()
        assert ours.tensors.keys() == theirs.tensors.keys()
        for key, array in theirs.tensors.items():
            assert np.abs(ours.tensors[key] - array).max() <= TOLERANCE * np.abs(array).max()
        assert abs(ours.record.ledger["residual_relative"]) < 1e-5


def test_one_hot_vectors_are_classes(tmp_path: Path) -> None:
    given, vector = sample("bert"), stored(tmp_path, np.array([0.0, 0.0, 1.0]))
    explainer = Explainer(opened("bert"))
    by_index, by_vector = (explainer.explain(given, each) for each in ("2", f"dot:{vector}"))
    for ours, theirs in zip(by_vector, by_index, strict=True):
        assert ours.record.target.value == pytest.approx(theirs.record.target.value)
        np.testing.assert_allclose(
            ours.record.relevance.total, theirs.record.relevance.total, rtol=1e-4, atol=1e-7
        )


def test_a_compiled_file(tmp_path: Path) -> None:
    """By the command's engine, and by its input alone; a row of zeros leaves ``target``."""
    path, vector = model(tmp_path, NORMALISED), stored(tmp_path)
    explainer = tmp_path / "explainer.onnx"
    explainer.write_bytes(compile_model(path, explainer))
    ours = Explainer(explainer).explain(GIVEN, f"cos:{vector}")
    reference = Explainer(path, engine="numpy").explain(GIVEN, f"cos:{vector}")
    np.testing.assert_allclose(totals(ours), totals(reference), rtol=1e-5)
    session = onnxruntime.InferenceSession(explainer)
    given = np.stack([V, np.zeros(3, np.float32)])
    (content,) = session.run(["relevance_content"], {"x": X, "target_vector": given})
    plain = totals(Explainer(path).explain(GIVEN))
    dots = totals(Explainer(path).explain(GIVEN, f"dot:{vector}"))
    np.testing.assert_allclose(content, [dots[0], plain[1]], rtol=1e-5)


def test_an_explainer_of_an_older_version(tmp_path: Path) -> None:
    path, vector = model(tmp_path, NORMALISED), stored(tmp_path)
    explainer = tmp_path / "explainer.onnx"
    proto = onnx.load_model_from_string(compile_model(path, explainer))
    for values in (proto.graph.input, proto.graph.initializer):
        kept = [each for each in values if each.name != "target_vector"]
        del values[:]
        values.extend(kept)
    zeros = onnx.numpy_helper.from_array(np.zeros((1, 1), np.float32), "target_vector")
    constant = onnx.helper.make_node("Constant", [], ["target_vector"], value=zeros)
    proto.graph.node.insert(0, constant)
    onnx.save(proto, explainer)
    assert Explainer(explainer).explain(GIVEN, "1")[0].record.target.index == [1]
    with pytest.raises(TargetError, match="takes no vector"):
        Explainer(explainer).explain(GIVEN, f"dot:{vector}")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_vector_of_another_length(tmp_path: Path, engine: str, size: int) -> None:
    path, vector = model(tmp_path, NORMALISED), stored(tmp_path, np.ones(size))
    with pytest.raises(TargetError, match=f"{size} numbers, but the last axis of the output 3"):
        Explainer(path, engine=engine).explain(GIVEN, f"dot:{vector}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (np.array([1.0, np.nan, 0.0]), "NaN"),
        (np.array([np.inf, 0.0, 0.0]), "infinity"),
        (np.zeros(3), "only zeros"),
        (np.array([1e200, 0.0, 0.0]), "squares"),
        (np.array([1e-200, 0.0, 0.0]), "squares"),
        (np.zeros((2, 3)), "not one vector"),
        (np.array(3.0), "not one vector"),
        (np.array([], np.float32), "only zeros"),
        (np.array(["a", "b", "c"]), "not numbers"),
    ],
)
def test_files_that_hold_no_vector(tmp_path: Path, content: Any, problem: str) -> None:
    path, vector = model(tmp_path, NORMALISED), stored(tmp_path, content)
    with pytest.raises(InputError, match=problem):
        Explainer(path).explain(GIVEN, f"dot:{vector}")


def test_files_that_are_not_read(tmp_path: Path) -> None:
    path = model(tmp_path, NORMALISED)
    pickled, huge = tmp_path / "pickled.npy", tmp_path / "huge.npy"
    np.save(pickled, np.array([{"a": 1}], object), allow_pickle=True)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    huge.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    for file in (pickled, huge, tmp_path / "nowhere.npy"):
        with pytest.raises(InputError):
            Explainer(path).explain(GIVEN, f"dot:{file}")


def test_a_row_of_numbers_is_a_vector(tmp_path: Path) -> None:
    path = model(tmp_path, NORMALISED)
    expected = totals(Explainer(path).explain(GIVEN, f"dot:{stored(tmp_path)}"))
    for vector in (V[None], V.astype(np.float64), np.asfortranarray(V[None])):
        found = totals(Explainer(path).explain(GIVEN, f"dot:{stored(tmp_path, vector)}"))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_half_precision(tmp_path: Path, scale: float) -> None:
    """The graph sees the vector normalised, so that long ones do not overflow."""
    x = X.astype(np.float16)
    path = tmp_path / "half.onnx"
    weights = {"w": W.astype(np.float16), "axis": ints(1)}
    half = proto(POOLED.replace("z =", "y ="), {"x": x}, weights)
    half.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(half, path)
    vector = stored(tmp_path, scale * V)
    given = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors"))
    for engine in ENGINES:
        found = totals(Explainer(path, engine=engine).explain(given, f"dot:{vector}"))
        expected = scale * (x.astype(np.float64) @ W.astype("f2").astype(np.float64) @ V) / 5
        np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3 * scale)
