"""The rules of derivatives against central differences, and against autograd where it is."""

from __future__ import annotations

import re

import numpy as np
import pytest
from building import Array, Walk, floats, ints, opened, proto, real, run
from committed import MODELS
from rule_cases import CASES, Case, usual, walked

from palrp_onnx import Explainer, Model
from palrp_onnx.engines import NumpyEngine
from palrp_onnx.errors import UnsupportedError
from palrp_onnx.inputs import open_sample
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.rules import supported

METHOD = "gradient-x-input"
#: Operations without a derivative that are passed straight through, and those that are refused.
NO_DERIVATIVE = {"Round", "Cos", "Sin", "GRU", "LSTM", "RNN"}
DIFFERENTIABLE = [case for case in CASES if case.op not in NO_DERIVATIVE]

X = real(2, 5, 4, seed=3)
W, V = real(4, 4), real(4, 4, seed=9)
#: Functions of several operations, in which usual rules take factors for constants.
COMPOSED = {
    "square": "y = Mul(x, x)",
    "quotient": "a = MatMul(x, w)  b = Exp(a)  y = Div(x, b)",
    "constant over content": "b = Exp(x)  y = Div(one, b)",
    "gate": "a = MatMul(x, w)  g = Sigmoid(a)  c = Mul(a, g)  b = MatMul(x, v)  y = Mul(b, c)",
    "GELU with Erf": "a = MatMul(x, w)  e = Erf(a)  f = Add(e, one)  y = Mul(a, f)",
    "attention": """
        q = MatMul(x, w)  k = Transpose<perm=[0, 2, 1]>(q)  a = MatMul(q, k)  s = Softmax(a)
        y = MatMul(s, x)
    """,
    "Einsum of two": 'q = MatMul(x, w)  y = Einsum<equation="bic,bjc->bij">(q, x)',
    "RMSNorm": """
        q = Mul(x, x)  n = ReduceMean<keepdims=1>(q, last)  r = Sqrt(n)  y = Div(x, r)
    """,
    "LayerNorm": """
        n = ReduceMean<keepdims=1>(x, last)  c = Sub(x, n)  q = Pow(c, two)
        s = ReduceMean<keepdims=1>(q, last)  e = Add(s, one)  d = Sqrt(e)  i = Reciprocal(d)
        y = Mul(c, i)
    """,
    "Gemm of two": """
        a = MatMul(x, w)  p = Reshape(a, flat)  q = Reshape(x, flat)  c = MatMul(p, u)
        h = Gemm<alpha=0.5, beta=2.0, transB=1>(p, q, c)  y = Reshape(h, batch)
    """,
}
CONSTANTS = {
    "w": W,
    "v": V,
    "one": floats(1.0),
    "two": np.array(2.0, np.float32),
    "last": ints(-1),
    "flat": ints(3, 4),
    "batch": ints(1, 3, 3),
    "u": real(4, 3),
}


def slopes(found: Walk, step: float) -> Array:
    """Central difference of fourth order of Σ seed ∘ y, entry by entry.

    For ``Erf`` the onnx package has single precision in its double: it needs a larger step.
    """
    x = found.x if found.y.dtype == np.float32 else found.x.astype(np.float64)
    result = np.empty(x.shape)
    for place in np.ndindex(*x.shape):
        rise = 0.0
        for steps, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
            moved = x.copy()
            moved[place] += steps * step
            rise += weight * (found.output(moved).astype(np.float64) * found.seed).sum()
        result[place] = rise / (12.0 * step)
    return result


def differentiated(case: Case) -> Walk:
    return walked(case, method=METHOD)


def composed(name: str, method: str = METHOD) -> Walk:
    body = COMPOSED[name]
    x = X[:1, :3] if "batch" in body else X
    used = {k: a for k, a in CONSTANTS.items() if re.search(rf"\b{k}\b", body)}
    return run(body, x, used, method=method)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_multiplier_is_the_gradient(case: Case) -> None:
    found = differentiated(case)
    if case.law is None:  # the usual rule is the derivative, and is held against differences
        tolerance = 1e-7 if case.dtype == "float64" else 1e-4
        usually = usual(case).multiplier
        np.testing.assert_allclose(found.multiplier, usually, rtol=tolerance, atol=tolerance)
        return
    if case.dtype == "float32":
        np.testing.assert_allclose(found.multiplier, slopes(found, 2.0**-6), rtol=1e-3, atol=1e-3)
        return
    step = 2.0**-6 if case.op in ("Erf", "Gelu") else 2.0**-12
    np.testing.assert_allclose(found.multiplier, slopes(found, step), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_the_ledger_closes(case: Case) -> None:
    assert differentiated(case).residual < (1e-12 if case.dtype == "float64" else 1e-6)


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_functions(name: str) -> None:
    found = composed(name)
    np.testing.assert_allclose(found.multiplier, slopes(found, 2.0**-6), rtol=1e-5, atol=2e-5)
    assert found.residual < 1e-12
    assert not np.allclose(composed(name, "attnlrp").multiplier, found.multiplier, rtol=1e-2)


@pytest.mark.parametrize("op", ["Cos", "Sin"])
def test_what_has_no_derivative_here_is_refused(op: str) -> None:
    with pytest.raises(UnsupportedError, match="sine or cosine"):
        run(f"y = {op}(x)", X, method=METHOD)


def test_every_rule_of_the_set_is_tried() -> None:
    assert {op for _, op, _ in supported("gradient")} <= {case.op for case in CASES}


@pytest.mark.parametrize("name", COMPOSED)
def test_the_emitted_derivatives_are_the_same(name: str) -> None:
    body, feed = COMPOSED[name], composed(name).feeds["x"]
    used = {k: a for k, a in CONSTANTS.items() if re.search(rf"\b{k}\b", body)}
    model = opened(proto(body, {"x": feed}, used))
    sample = Sample("x", "tensors", {"x": feed}, InputFacts(kind="tensors"))
    numpy, compiled = (
        Explainer(model, method=METHOD, engine=e).explain(sample, "1,2")
        for e in ("numpy", "onnxruntime")
    )
    for ours, reference in zip(compiled, numpy, strict=True):
        expected = reference.tensors["content"]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours.tensors["content"], expected, atol=1e-5 * scale)
        for entry, amount in reference.record.ledger.items():
            np.testing.assert_allclose(ours.record.ledger[entry], amount, atol=1e-4)


@pytest.mark.parametrize("name", ["reviews-rope", "reviews-bert", "digits-vit"])
def test_whole_models_along_a_direction(name: str) -> None:
    """Σ ∇x ∘ d against the rise of the target along d, for rows of tokens or for an image."""
    folder = MODELS / name
    model = Model.open(folder / "model.onnx")
    source = folder / ("sample.png" if name == "digits-vit" else "sample.txt")
    feeds = open_sample(
        source, model_path=model.path, graph_inputs=model.inputs, tokenizer=None
    ).feeds
    engine = Explainer(model, method=METHOD, dtype="float64").engine(feeds)
    assert isinstance(engine, NumpyEngine)
    values = engine.forward(feeds)
    analysis = engine.planned.analysis
    rows = [node.outputs[0] for node in analysis.inputs.lookups]
    (varied,) = rows or [
        v for v in analysis.model.graph.inputs if v.name == engine.planned.explained
    ]
    varied_name = varied.name or ""
    forward = engine.forward_from([varied_name]) if rows else engine.forward
    seed = np.zeros_like(values[engine.planned.output])
    seed[:, 1] = 1.0
    slope = engine.multipliers(values, seed, [varied])[varied]
    direction = np.random.default_rng(5).normal(size=slope.shape)

    def logit(step: float) -> float:
        moved = values[varied_name] + step * direction
        return float(forward({**feeds, varied_name: moved})[engine.planned.output][0, 1])

    step = 2.0**-8 * float(np.abs(values[varied_name]).std())
    rise = 8 * (logit(step) - logit(-step)) - (logit(2 * step) - logit(-2 * step))
    assert (slope * direction).sum() == pytest.approx(rise / (12 * step), rel=1e-4)


def test_multipliers_of_watched_values() -> None:
    """Whole multipliers, where a single row is reached, once all consumers have sent theirs."""
    weights = {"w": W, "v": V, "first": np.array(0)}
    body = "a = MatMul(x, w)  b = Relu(a)  c = Add(a, b)  d = Gather<axis=1>(c, first)"
    found = run(f"{body}  y = MatMul(d, v)", X, weights)
    graph = found.planned.analysis.model.graph
    values = {v.name: v for node in graph for v in node.outputs}
    wanted = [values[name] for name in ("a", "b")]
    watched = found.engine.multipliers(found.values, found.seed, wanted)
    assert set(watched) == set(wanted)
    rows = np.zeros(X.shape)
    rows[:, 0] = found.seed @ V.astype(np.float64).T
    np.testing.assert_allclose(watched[wanted[1]], rows, rtol=1e-12)
    positive = X.astype(np.float64) @ W > 0
    np.testing.assert_allclose(watched[wanted[0]], rows * (1 + positive), rtol=1e-9)
