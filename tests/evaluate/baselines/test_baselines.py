"""Baselines against second derivations: by hand, by finite differences, by completeness."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from building import Array, floats, ints, opened, proto, real, run, wide
from click.testing import CliRunner
from committed import MODELS

from palrp_onnx import Model
from palrp_onnx.cli import options
from palrp_onnx.cli.main import program
from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines import (
    BASELINES,
    SINGLE_SINK,
    Baseline,
    compared_method,
    integrated_gradients,
)
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.explainer import Explainer
from palrp_onnx.inputs import open_sample
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.relevance.target_parsing import parse_target

X, W, V = real(2, 5, 4, seed=3), real(4, 4), real(4, 4, seed=9)
HEAD = real(4, 3, seed=5)
WEIGHTS = {"w": W, "v": V, "h": HEAD, "zero": np.array(0), "one": ints(1), "last": np.array(-1)}
#: One layer: the map from x to what attention adds, with probabilities on the left, on the right
#: and in an Einsum.
PRODUCTS = {
    "left": "{o} = MatMul({s}, {x})",
    "right": """
        {x}t = Transpose<perm=[0, 2, 1]>({x})  {s}t = Transpose<perm=[0, 2, 1]>({s})
        {o}t = MatMul({x}t, {s}t)  {o} = Transpose<perm=[0, 2, 1]>({o}t)
    """,
    "einsum": '{o} = Einsum<equation="bij,bjf->bif">({s}, {x})',
}
#: What the head reads, and the rows of the tokens that are explained.
READS = {
    "first": ("r = Gather<axis=1>(z2, zero)", [1, 0, 0, 0, 0]),
    "last": ("r = Gather<axis=1>(z2, last)", [0, 0, 0, 0, 1]),
    "mean": ("r = ReduceMean<keepdims=0>(z2, one)", [0.2] * 5),
}


def two_layers(product: str = "left", read: str = "first") -> Baseline:
    """x + S₁ x, then the same again with S₂, then the head; a baseline without its answer."""
    body = ""
    for k, (x, w) in enumerate((("x", "w"), ("z1", "v")), start=1):
        body += f"""
            q{k} = MatMul({x}, {w})  k{k} = Transpose<perm=[0, 2, 1]>(q{k})
            a{k} = MatMul(q{k}, k{k})  s{k} = Softmax(a{k})
            {PRODUCTS[product].format(s=f"s{k}", x=x, o=f"o{k}")}  z{k} = Add({x}, o{k})
        """
    body += f"{READS[read][0]}  y = MatMul(r, h)"
    used = {k: a for k, a in WEIGHTS.items() if f", {k})" in body}
    return Baseline(opened(proto(body, {"x": X}, used, free=(0, 1))), answer_of("rollout"))


def answer_of(name: str) -> Any:
    return BASELINES[name]


def asked(model: Model, feeds: Mapping[str, Array], target: str) -> BaselineInput:
    baseline = Baseline(model, answer_of("ig"), dtype="float64")
    return baseline.prepare(feeds, parse_target(target))


def softmax(a: Array) -> Array:
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def by_hand(x: Array, read: Array, moved: Mapping[int, Array]) -> tuple[list[Array], float]:
    """Probabilities of both layers and the logit of class 1, the probabilities moved a little."""
    found = []
    for layer, w in enumerate((wide(W), wide(V))):
        q = x @ w
        s = softmax(q @ q.T) + moved.get(layer, 0.0)
        found.append(s)
        x = x + s @ x
    return found, float((read @ x @ wide(HEAD))[1])


def slope(x: Array, read: Array, layer: int) -> Array:
    """∂ logit / ∂ probabilities of a layer, by central differences."""
    tokens, step = len(x), 2.0**-12
    result = np.empty((tokens, tokens))
    for place in np.ndindex(tokens, tokens):
        move = np.zeros((tokens, tokens))
        move[place] = step
        ahead, behind = (by_hand(x, read, {layer: sign * move})[1] for sign in (1, -1))
        result[place] = (ahead - behind) / (2 * step)
    return result


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_rollout(product: str, read: str) -> None:
    found = two_layers(product, read).map({"x": X}, parse_target("1"))
    weights = np.array(READS[read][1])
    for row, x in zip(found, wide(X), strict=True):
        first, second = (0.5 * s + 0.5 * np.eye(5) for s in by_hand(x, weights, {})[0])
        np.testing.assert_allclose(row, weights @ second @ first, rtol=1e-5)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_chefer(product: str, read: str) -> None:
    model = two_layers(product, read).model
    found = Baseline(model, answer_of("chefer")).map({"x": X}, parse_target("1"))
    weights = np.array(READS[read][1])
    for row, x in zip(found, wide(X), strict=True):
        relevance = np.eye(5)
        for layer, s in enumerate(by_hand(x, weights, {})[0]):
            relevance += np.maximum(s * slope(x, weights, layer), 0.0) @ relevance
        np.testing.assert_allclose(row, weights @ relevance, rtol=1e-4, atol=1e-6)


def test_attention_that_leads_elsewhere_is_refused() -> None:
    model = opened(proto("y = MatMul(x, h)", {"x": X}, {"h": HEAD}))
    with pytest.raises(UsageError, match="no attention"):
        Baseline(model, answer_of("rollout")).map({"x": X}, parse_target("1,2"))
    windows = """
        p = Reshape(x, shape)  t = Transpose<perm=[0, 1, 3, 2]>(p)  a = MatMul(p, t)
        s = Softmax(a)  o = MatMul(s, p)  z = ReduceMean<keepdims=0>(o, one)
        q = ReduceMean<keepdims=0>(z, one)  y = MatMul(q, h)
    """
    weights = {"shape": ints(0, -1, 2, 4), "one": ints(1), "h": HEAD}
    model = opened(proto(windows, {"x": X[:, :4]}, weights))
    with pytest.raises(UsageError, match="4 units"):
        Baseline(model, answer_of("rollout")).map({"x": X[:, :4]}, parse_target("1"))


def test_integrated_gradients_of_a_square_are_exact() -> None:
    """The gradient of x ∘ xw is linear along the path, so that any number of steps will do."""
    body = "a = MatMul(x, w)  b = Mul(a, x)  c = ReduceMean<keepdims=0>(b, one)  y = MatMul(c, h)"
    model = opened(proto(body, {"x": X}, {"w": W, "one": ints(1), "h": HEAD}))
    found = integrated_gradients(asked(model, {"x": X}, "1"), steps=3)
    x = wide(X)
    expected = ((x @ wide(W)) * x / 5) @ wide(HEAD)[:, 1]
    summed = expected.sum(axis=1)
    np.testing.assert_allclose(found.sum(axis=1), summed, rtol=1e-9)
    gradient = (x @ wide(W)) * wide(HEAD)[:, 1] / 5 + (x * wide(HEAD)[:, 1] / 5) @ wide(W).T
    np.testing.assert_allclose(found, (0.5 * gradient * x).sum(axis=-1), rtol=1e-9)


@pytest.fixture(scope="module", params=["reviews-rope", "reviews-bert"])
def review(request: pytest.FixtureRequest) -> tuple[Model, Sample]:
    path = MODELS / request.param / "model.onnx"
    model = Model.open(path)
    text = MODELS / request.param / "sample.txt"
    return model, open_sample(text, model_path=path, graph_inputs=model.inputs, tokenizer=None)


@pytest.mark.parametrize("unknown", [None, 1])
def test_integrated_gradients_are_complete(
    review: tuple[Model, Sample], unknown: int | None
) -> None:
    """Σ map = f(x) − f(x₀), which is run with the other rows in place of the looked-up ones."""
    model, sample = review
    given = asked(model, sample.feeds, "1")
    engine = given.engine
    output = engine.planned.output
    (node,) = engine.planned.analysis.inputs.lookups
    name = node.outputs[0].name or ""
    forward = engine.forward_from([name])
    again = forward({**sample.feeds, name: given.values[name]})[output]
    np.testing.assert_allclose(again, given.values[output], rtol=1e-9)
    start = np.zeros_like(given.values[name])
    if unknown is not None:
        ids = np.full_like(sample.feeds[given.explained], unknown)
        start = engine.forward({**sample.feeds, given.explained: ids})[name]
    elif "rope" in str(model.path):
        pytest.skip("a norm comes first: all of the change is in a part of the first step")
    change = given.targets[0].value - forward({**sample.feeds, name: start})[output][0, 1]
    found = integrated_gradients(given, steps=32, unknown=unknown).sum()
    assert found == pytest.approx(change, rel=5e-3)
    rough = integrated_gradients(given, steps=1, unknown=unknown).sum()
    assert rough != pytest.approx(change, rel=5e-3)


def test_maps_are_the_same_in_single_precision(review: tuple[Model, Sample]) -> None:
    model, sample = review
    for name, baseline in BASELINES.items():
        if name in (
            "attention-norm",
            "value-zeroing",
            "occlusion",
            "shap",
        ):  # a pass for every token
            continue
        rough, exact = (
            Baseline(model, baseline, dtype=dtype).explain(sample)[0]
            for dtype in ("float32", "float64")
        )
        assert rough[0].index == exact[0].index
        np.testing.assert_allclose(
            rough[1], exact[1], atol=1e-3 * np.abs(exact[1]).max(), err_msg=name
        )


def test_maps_add_up(review: tuple[Model, Sample]) -> None:
    """Rows of rolled-out attention are shares; Chefer's keep the one of the explained position."""
    model, sample = review
    tokens = sample.feeds[model.inputs[0].name].shape[1]
    shares = Baseline(model, BASELINES["rollout"]).explain(sample)[0][1]
    assert shares.shape == (tokens,) and shares.min() >= 0
    assert shares.sum() == pytest.approx(1.0, abs=1e-5)
    assert Baseline(model, BASELINES["chefer"]).explain(sample)[0][1].sum() > 1.0


def test_compared_methods_by_name(review: tuple[Model, Sample]) -> None:
    model, _ = review
    single, both = compared_method(SINGLE_SINK, model), compared_method("pa-lrp", model)
    assert isinstance(single, Explainer) and single.positions == "single-sink"
    assert isinstance(both, Explainer) and both.positions == "relu"
    assert isinstance(compared_method("ig", model), Baseline)
    with pytest.raises(UsageError, match="Unknown method"):
        compared_method("none", model)
    assert set(options.BASELINES) == {*BASELINES, SINGLE_SINK}


def test_the_command_takes_them(tmp_path: Path) -> None:
    words = (MODELS / "reviews-rope" / "sample.txt").read_text().split()
    (tmp_path / "a.txt").write_text(" ".join(words[:12]))
    given = ["--method", "rollout", "--method", "ig", "--method", "chefer", "--method", SINGLE_SINK]
    model = str(MODELS / "reviews-rope" / "model.onnx")
    arguments = ["evaluate", "perturbation", model, "--input", str(tmp_path), *given, "--json"]
    result = CliRunner().invoke(program, [*arguments, "-q"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found) == ["rollout", "ig", "chefer", SINGLE_SINK, "random"]
    assert found["ig"]["morf"]["area"] > found["random"]["morf"]["area"]


def test_epsilon_rule_by_hand() -> None:
    """R_i = Σ_j x_i w_ij R_j / (z_j + ε sign z_j), at the product and at the bias after it."""
    epsilon, bias = 1e-6, real(4, seed=8)
    found = run("z = MatMul(x, w)  y = Add(z, b)", X, {"w": W, "b": bias}, method="eps-lrp")
    z = wide(X) @ wide(W)
    y = z + wide(bias)
    relevance = y * found.seed
    relevance = z * relevance / (y + epsilon * np.sign(y))
    expected = wide(X) * ((relevance / (z + epsilon * np.sign(z))) @ wide(W).T)
    np.testing.assert_allclose(found.content, expected, rtol=1e-9)
    np.testing.assert_allclose(
        found.result.ledger["other"],
        (y * found.seed - wide(bias) * y * found.seed / (y + epsilon * np.sign(y))).sum((1, 2))
        - expected.sum((1, 2)),
        rtol=1e-3,
    )
    assert found.residual < 1e-12


def test_epsilon_rule_takes_softmax_for_an_elementwise_function() -> None:
    found = run("y = Softmax(x)", X, method="eps-lrp")
    np.testing.assert_allclose(found.content, found.y * found.seed, rtol=1e-4)
    assert found.residual < 1e-12


def test_epsilon_rule_at_masked_scores() -> None:
    mask = floats(0.0, 0.0, -np.inf, 0.0)
    found = run("a = Add(x, k)  y = Softmax(a)", X, {"k": mask}, method="eps-lrp")
    assert np.isfinite(found.content).all() and not found.content[..., 2].any()
    assert found.residual < 1e-12
