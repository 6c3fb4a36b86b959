"""A map that is zero everywhere is an error where the output depends on the input all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import floats, ints, opened, proto, real
from numpy.typing import NDArray

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.engines import CompiledEngine, NumpyEngine
from palrp_onnx.errors import ZeroMapError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Attribution, InputFacts

Array = NDArray[Any]
ENGINES = ("onnxruntime", "numpy")
X = real(2, 3, 4)
IDS = ints([5, 9, 7], [8, 4, 6])
#: Relevance has a path to x, of zeros; what the output depends on goes through whole numbers.
CUT_REAL = """h = Mul(x, none)  t = Mul(x, ten)  c = Cast<to=7>(t)  f = Cast<to=1>(c)
    p = ReduceMean(f, first)  g = Add(h, p)  y = MatMul(g, w)"""
CUT_IDS = """e = Gather(table, x)  h = Mul(e, none)  f = Cast<to=1>(x)  p = ReduceMean(f, first)
    u = Unsqueeze(p, last)  g = Add(h, u)  y = MatMul(g, w)"""
WEIGHTS: dict[str, Array] = {
    "none": np.zeros(4, np.float32),
    "ten": floats(10.0),
    "table": real(12, 4, seed=2),
    "w": real(4, 3, seed=3),
    "low": floats(-100.0, -100.0, -100.0, -100.0),
    "first": ints(1),
    "last": ints(-1),
}


def model(body: str, x: Array) -> onnx.ModelProto:
    return proto(body, {"x": x}, _used(body), free=(0, 1))


def _used(body: str) -> dict[str, Array]:
    return {k: a for k, a in WEIGHTS.items() if f"{k})" in body or f"{k}," in body}


def explain(source: Model | Path, x: Array, **options: Any) -> list[Attribution]:
    sample = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    return [e.record for e in Explainer(source, **options).explain(sample, "token:1:1")]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("body", "x"), [(CUT_REAL, X), (CUT_IDS, IDS)], ids=["real", "ids"])
def test_a_path_that_is_cut(body: str, x: Array, engine: str, tmp_path: Path) -> None:
    with pytest.raises(ZeroMapError, match="zero everywhere although") as caught:
        explain(opened(model(body, x)), x, engine=engine)
    assert caught.value.exit_code == 4 and caught.value.code == "zero_map" and caught.value.hint


def test_in_an_explainer_file(tmp_path: Path) -> None:
    path, explainer = tmp_path / "model.onnx", tmp_path / "explainer.onnx"
    onnx.save(model(CUT_IDS, IDS), path)
    explainer.write_bytes(compile_model(path, explainer))
    with pytest.raises(ZeroMapError):
        explain(explainer, IDS)


@pytest.mark.parametrize("engine", ENGINES)
def test_dead_units_are_no_error(engine: str) -> None:
    """Whatever the input, nothing gets through: the map is right, and the record says so."""
    body = "h = Add(x, low)  r = Relu(h)  y = MatMul(r, w)"
    for record in explain(opened(model(body, X)), X, engine=engine):
        assert [w.code for w in record.warnings] == ["zero_map"]
        assert not any(record.relevance.content)


@pytest.mark.parametrize("engine", ENGINES)
def test_units_that_are_dead_for_this_input(engine: str) -> None:
    """Other inputs get through, and their maps say so: for this one the map is right."""
    x = -np.abs(X)
    for record in explain(opened(model("r = Relu(x)  y = MatMul(r, w)", x)), x, engine=engine):
        assert [w.code for w in record.warnings] == ["zero_map"]


@pytest.mark.parametrize("engine", ENGINES)
def test_one_row_of_a_batch(engine: str) -> None:
    x = np.stack([-np.abs(X[0]), X[1], np.zeros_like(X[0])])
    found = explain(opened(model("r = Relu(x)  y = MatMul(r, w)", x)), x, engine=engine)
    assert [[w.code for w in record.warnings] for record in found] == [["zero_map"], [], []]


@pytest.mark.parametrize("engine", [CompiledEngine, NumpyEngine])
def test_ordinary_maps_cost_nothing(engine: type, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Any] = []
    explained = engine.explain  # type: ignore[attr-defined]

    def counted(self: Any, *args: Any) -> Any:
        runs.append(args)
        return explained(self, *args)

    monkeypatch.setattr(engine, "explain", counted)
    explain(opened(model("y = MatMul(x, w)", X)), X, engine=engine.name)  # type: ignore[attr-defined]
    assert len(runs) == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("off", [-np.inf, -1e9])
def test_classes_that_are_switched_off_hide_no_movement(engine: str, off: float) -> None:
    """The value moves by little compared with a class of −1e9, by much compared with the others."""
    body = CUT_REAL.replace("y = MatMul(g, w)", "s = MatMul(g, w)  y = Add(s, off)")
    switched = proto(body, {"x": X}, {**_used(body), "off": floats(0, 0, off)}, free=(0, 1))
    with pytest.raises(ZeroMapError):
        explain(opened(switched), X, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_words_with_the_number_zero(engine: str) -> None:
    ids = np.zeros((2, 3), np.int64)
    with pytest.raises(ZeroMapError):
        explain(opened(model(CUT_IDS, ids)), ids, engine=engine)


def test_a_probability_that_is_sure_names_the_score_before_it() -> None:
    body = "s = MatMul(x, w)  t = Mul(s, ten)  u = Mul(t, ten)  y = Softmax<axis = -1>(u)"
    with pytest.raises(ZeroMapError) as caught:
        explain(opened(model(body, 9 * X)), 9 * X, output="y")
    assert "--output u" in caught.value.hint
