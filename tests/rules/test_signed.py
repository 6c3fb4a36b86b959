"""Rules that distinguish the signs of contributions, derived a second time in float64.

The second derivation knows no rule of matrices: it takes the affine map of a layer from its forward
pass, lists every contribution w x to every output, and shares each output's relevance among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from building import Array, Walk, again, floats, ints, opened, proto, real, run, walk, wide
from committed import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from palrp_onnx import Explainer
from palrp_onnx.errors import UnsupportedError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.linear_layers import attention_layers
from palrp_onnx.relevance.method import Method, Parameter
from palrp_onnx.relevance.method_parsing import method
from palrp_onnx.rules import find_rule, supported

SIGNED = np.load(GOLDEN / "signed_ops.npz")
#: Contributions [outputs, inputs], the bias [outputs] and y [outputs] to the share of each
#: contribution in what the output has.
Law = Callable[[Array, Array, Array], Array]
METHODS = ["pa-lrp-gamma", "pa-lrp-alpha", "cp-lrp-gamma"]

ROWS = real(2, 3, 4, seed=3)
FLAT = real(3, 4, seed=3)
IMAGE = real(2, 4, 5, 6, seed=3)
SERIES = real(2, 4, 7, seed=3)
WEIGHTS = {
    "w": real(4, 5, seed=7),
    "wt": real(5, 4, seed=8),
    "left": real(6, 3, seed=9),
    "b": real(5, seed=10),
    "column": real(6, 1, seed=11),
    "k": real(6, 2, 3, 2, seed=12),
    "kb": real(6, seed=13),
    "plane": real(6, 1, 1, seed=14),
    "t": real(4, 3, 3, seed=15),
    "tb": real(3, seed=16),
    "row": real(1, 4, seed=17),
}
MOVES = "group = 2, strides = [2, 1], pads = [1, 0, 1, 1]"
#: Body, content, axes without a fixed length; y is affine in x, sample by sample.
LAYERS = {
    "product": ("y = MatMul(x, w)", ROWS),
    "product and bias": ("z = MatMul(x, w)  y = Add(z, b)", ROWS),
    "bias and product": ("z = MatMul(x, w)  y = Add(b, z)", ROWS),
    "product from the left": ("y = MatMul(left, x)", ROWS),
    "gemm": ("y = Gemm(x, w)", FLAT),
    "gemm with its bias": ("y = Gemm<transB = 1, alpha = -0.5, beta = 2.0>(x, wt, b)", FLAT),
    "gemm and bias": ("z = Gemm<alpha = 2.0>(x, w)  y = Add(z, b)", FLAT),
    "convolution": (f"y = Conv<{MOVES}>(x, k)", IMAGE),
    "convolution with its bias": (f"y = Conv<{MOVES}>(x, k, kb)", IMAGE),
    "convolution and bias": (f"z = Conv<{MOVES}>(x, k)  y = Add(z, plane)", IMAGE),
    "transposed convolution": ("y = ConvTranspose<strides = [2]>(x, t, tb)", SERIES),
}


def used(body: str) -> dict[str, Array]:
    words = set(body.replace(")", " ").replace("(", " ").replace(",", " ").split())
    return {name: array for name, array in WEIGHTS.items() if name in words}


def layer(name: str, asked: Method | str) -> Walk:
    body, x = LAYERS[name]
    return run(body, x, used(body), method=asked)


def of_rules(*rules: str, gamma: float = 0.0) -> Method:
    """A method of these sets of rules."""
    parameters = {name: Parameter(gamma, 0.0, 1e3, "γ") for name in ("gamma", "gamma_conv")}
    return replace(method("attnlrp"), name="own", rules=rules, parameters=parameters)


def affine(found: Walk) -> tuple[Array, Array]:
    """W [outputs, inputs] and b [outputs] of one sample, from the forward pass."""
    zero = np.zeros(found.x.shape)
    bias = wide(found.output(zero))[0].ravel()
    columns = []
    for k in range(zero[0].size):
        basis = zero.copy()
        basis.reshape(len(zero), -1)[:, k] = 1
        columns.append(wide(found.output(basis))[0].ravel() - bias)
    return np.stack(columns, axis=1), bias


def shared(found: Walk, law: Law) -> Array:
    """Relevance of x."""
    weights, bias = affine(found)
    relevance = []
    for x, y, seed in zip(wide(found.x), wide(found.y), found.seed, strict=True):
        shares = law(weights * x.ravel(), bias, y.ravel())
        relevance.append(((seed * y).ravel() @ shares).reshape(x.shape))
    return np.stack(relevance)


def gamma_law(gamma: float) -> Law:
    def law(contributions: Array, bias: Array, y: Array) -> Array:
        """Contributions of the sign of y count 1 + γ times, and so does such a bias."""
        sign = np.sign(y)
        favoured = contributions * (1 + gamma * (np.sign(contributions) == sign[:, None]))
        total = favoured.sum(axis=1) + bias * (1 + gamma * (np.sign(bias) == sign))
        return np.asarray(favoured / total[:, None])

    return law


def alpha_law(contributions: Array, bias: Array, y: Array) -> Array:
    """Positive contributions share; the bias does not."""
    positive = np.maximum(contributions, 0)
    return np.asarray(positive / np.maximum(positive.sum(axis=1), 1e-300)[:, None])


@pytest.mark.parametrize("gamma", [0.05, 2.0, 100.0])
@pytest.mark.parametrize("name", LAYERS)
def test_gamma(name: str, gamma: float) -> None:
    found = layer(name, of_rules("gamma", gamma=gamma))
    np.testing.assert_allclose(found.content, shared(found, gamma_law(gamma)), rtol=1e-7, atol=1e-9)
    assert found.residual < 1e-12


@pytest.mark.parametrize("name", LAYERS)
def test_alpha(name: str) -> None:
    found = layer(name, of_rules("alpha"))
    np.testing.assert_allclose(found.content, shared(found, alpha_law), rtol=1e-7, atol=1e-9)
    assert found.residual < 1e-12
    np.testing.assert_allclose(found.result.ledger["bias"], 0.0, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_without_gamma_it_is_the_usual_rule(name: str) -> None:
    found, usual = layer(name, of_rules("gamma")), layer(name, "attnlrp")
    np.testing.assert_allclose(found.content, usual.content, rtol=1e-9, atol=1e-12)
    for entry, amount in usual.result.ledger.items():
        if not entry.startswith("residual"):
            np.testing.assert_allclose(found.result.ledger[entry], amount, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rules", [("gamma",), ("alpha",), ("absolute",)])
@pytest.mark.parametrize("name", LAYERS)
def test_the_emitted_rule_computes_the_same(name: str, rules: tuple[str, ...]) -> None:
    own = of_rules(*rules, gamma=0.5)
    body, x = LAYERS[name]
    model = opened(proto(body, {"x": x}, used(body)))
    sample = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors"))
    numpy, compiled = (
        Explainer(model, engine=engine, method=own) for engine in ("numpy", "onnxruntime")
    )
    place = ",".join(str(size // 2) for size in layer(name, own).y.shape[1:])
    expected, found = (e.explain(sample, place) for e in (numpy, compiled))
    for ours, reference in zip(found, expected, strict=True):
        for key, array in reference.tensors.items():
            scale = max(np.abs(array).max(), 1e-6)
            np.testing.assert_allclose(ours.tensors[key], array, atol=1e-5 * scale)
        for entry, amount in reference.record.ledger.items():
            assert ours.record.ledger[entry] == pytest.approx(amount, abs=1e-4)


def absolute_law(contributions: Array, bias: Array, y: Array) -> Array:
    """Positive contributions, by the magnitude of what the output has."""
    return np.asarray(np.maximum(contributions, 0) / np.abs(y)[:, None])


@pytest.mark.parametrize("name", LAYERS)
def test_absolute(name: str) -> None:
    """Scaled sample by sample to as much as there was."""
    found = layer(name, of_rules("absolute"))
    unscaled = shared(found, absolute_law)
    axes = tuple(range(1, unscaled.ndim))
    arrived = np.abs(found.seed * wide(found.y)).reshape(len(unscaled), -1).sum(axis=1)
    factor = arrived / np.abs(unscaled).sum(axis=axes)
    expected = unscaled * factor.reshape(-1, *[1] * len(axes))
    np.testing.assert_allclose(found.content, expected, rtol=1e-7, atol=1e-9)
    assert found.residual < 1e-12
    np.testing.assert_allclose(found.result.ledger["bias"], 0.0, atol=1e-9)


def test_every_rule_is_tried() -> None:
    layers = {("", op, 1) for op in ("Conv", "ConvTranspose", "Gemm", "MatMul")}
    refused = {("", op, 1) for op in ("GRU", "LSTM", "RNN")}
    assert set(supported("gamma")) == layers | refused
    for name in ("alpha", "absolute"):
        assert set(supported(name)) == {*layers, ("", "Add", 1)} | refused
    assert supported("stopped") == [("", "Softmax", 1)]
    entry, usual = find_rule("", "MatMul", 18, ("gamma",)), find_rule("", "MatMul", 18)
    assert entry is not None and usual is not None and entry.rule is not usual.rule


# --- against the reference implementations --------------------------------------------------------
@pytest.mark.parametrize("gamma", ["0.05", "0.25", "100"])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_gamma_as_elsewhere(kind: str, gamma: str) -> None:
    found = of_reference(kind, f"gamma{gamma}", of_rules("gamma", gamma=float(gamma)))
    close(found.content, SIGNED[f"{kind}_gamma{gamma}_x"], 1e-4)


def test_alpha_as_elsewhere() -> None:
    found = of_reference("alpha", "alpha1", of_rules("alpha"))
    close(found.content, SIGNED["alpha_alpha1_x"], 1e-5)


def of_reference(kind: str, setting: str, asked: Method) -> Walk:
    """A walk through a stored layer, from the relevance that was put on its output."""
    x, w, b = (SIGNED[f"{kind}_{part}"].astype(np.float32) for part in "xwb")
    body, weights = "z = MatMul(x, w)  y = Add(z, b)", {"w": w.T.copy(), "b": b}
    if kind == "conv":
        body, weights = "y = Conv<strides = [4, 4]>(x, w, b)", {"w": w, "b": b}
    found = walk(opened(proto(body, {"x": x}, weights)), {"x": x}, method=asked)
    return again(found.engine, found.feeds, SIGNED[f"{kind}_{setting}_R"] / wide(found.y))


def close(ours: Array, reference: Array, tolerance: float) -> None:
    assert np.abs(ours - reference).max() <= tolerance * np.abs(reference).max()


# --- sums and softmax -----------------------------------------------------------------------------
def test_two_activations_share_as_their_sums_are() -> None:
    both = np.concatenate([SIGNED["add_x0"], SIGNED["add_x1"]], axis=2).astype(np.float32)
    body = "a, b = Split<axis = 2, num_outputs = 2>(x)  y = Add(a, b)"
    found = walk(opened(proto(body, {"x": both})), {"x": both}, method=of_rules("alpha"))
    found = again(found.engine, found.feeds, SIGNED["add_R"] / wide(found.y))
    halves = np.split(wide(both), 2, axis=2)
    parts = [half * found.seed for half in halves]
    sums = [part.sum(axis=(1, 2), keepdims=True) for part in parts]
    sizes = np.abs(sums[0]) + np.abs(sums[1])
    shares = [p * np.abs(s) / sizes * sum(sums) / s for p, s in zip(parts, sums, strict=True)]
    np.testing.assert_allclose(found.content, np.concatenate(shares, axis=2), rtol=1e-9)
    close(found.content, np.concatenate([SIGNED["add_rel_x0"], SIGNED["add_rel_x1"]], 2), 1e-5)
    assert found.residual < 1e-12


@pytest.mark.parametrize("name", ["sum", "product"])
def test_two_activations_take_half_of_all_under_the_absolute_rule(name: str) -> None:
    """By hand: positive contributions by |y|, each operand scaled to half."""
    text = (
        "y = Add(a, b)" if name == "sum" else "bt = Transpose<perm=[0, 2, 1]>(b)  y = MatMul(a, bt)"
    )
    found = run(f"a = Abs(x)  b = Tanh(x)  {text}", ROWS, method=of_rules("absolute"))
    for x, y, seed, content in zip(wide(ROWS), found.y, found.seed, found.content, strict=True):
        a, b, r = np.abs(x), np.tanh(x), seed * y
        if name == "sum":
            parts = [np.maximum(each, 0) * r / np.abs(y) for each in (a, b)]
        else:
            listed = np.maximum(a[:, None] * b[None], 0) * (r / np.abs(y))[:, :, None]
            parts = [listed.sum(axis=1), listed.sum(axis=0)]
        expected = sum(each * np.abs(r).sum() / np.abs(each).sum() / 2 for each in parts)
        np.testing.assert_allclose(content, expected, rtol=1e-9, atol=1e-12)
    assert found.residual < 1e-12


@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_positive_relevance_stays_positive_and_whole_under_the_absolute_rule(seed: int) -> None:
    body = "a = MatMul(x, w)  b = Relu(a)  c = MatMul(b, v)  d = Add(a, c)  y = MatMul(d, v)"
    weights = {"w": real(4, 4, seed=seed), "v": real(4, 4, seed=seed + 1)}
    model = opened(proto(body, {"x": ROWS}, weights))
    found = walk(model, {"x": ROWS}, method=of_rules("absolute"))
    again_ = again(found.engine, found.feeds, np.sign(found.y))
    assert again_.content.min() >= 0.0
    ledger = again_.result.ledger
    np.testing.assert_allclose(ledger["content"] + ledger["other"], ledger["target"], rtol=1e-9)
    # Half of a sum is lost where an operand contributes nothing positive to it, as a whole.
    assert ledger["other"].min() >= -1e-9 * ledger["target"].max()


def test_samples_that_share_an_axis_cannot_be_told_apart() -> None:
    body = "f = Reshape(x, shape)  a = MatMul(f, w)  s = Add(f, a)  y = Reshape(s, back)"
    weights = {"shape": ints(-1, 4), "w": real(4, 4), "back": ints(-1, 3, 4)}
    with pytest.raises(UnsupportedError, match="share their axis"):
        run(body, ROWS, weights, method=of_rules("alpha"))


ATTENTION = """
    q = MatMul(x, wq)  k0 = MatMul(x, wk)  k = Transpose<perm = [0, 2, 1]>(k0)  z = MatMul(q, k)
    s = Softmax<axis = -1>(z)  v = MatMul(x, wv)  vb = Add(v, c)  o = MatMul(s, vb)
"""
SQUARE = {name: real(4, 4, seed=k) for k, name in enumerate(("wq", "wk", "wv", "wo", "w1"), 20)}
SQUARE["c"] = real(4, seed=30)


def test_layers_of_attention_are_found_by_structure() -> None:
    body = ATTENTION + "p = MatMul(o, wo)  h = Add(p, x)  y = MatMul(h, w1)"
    plan = run(body, ROWS, SQUARE, method="cp-lrp-gamma").planned.plan
    assert {node.outputs[0].name for node in attention_layers(plan.analysis)} == {"v", "p"}
    assert {n.outputs[0].name: b.name for n, b in plan.biases.items()} == {"v": "c"}
    rules = {step.node.outputs[0].name: step.entry.rule for step in plan.steps if step.entry}
    usual = find_rule("", "MatMul", 18)
    assert usual is not None
    assert rules["v"] is rules["p"] is usual.rule
    assert rules["y"] is not usual.rule


def test_a_bias_is_one_number_a_feature_and_read_by_nobody_else() -> None:
    weights = {"w": WEIGHTS["w"], "many": real(2, 3, 5), "b": WEIGHTS["b"]}
    for body in (
        "z = MatMul(x, w)  y = Add(z, many)",
        "z = MatMul(x, w)  a = Add(z, b)  y = Mul(a, z)",
        "z = MatMul(x, w)  y = Sub(b, z)",
    ):
        named = {k: a for k, a in weights.items() if f"{k})" in body or f"({k}" in body}
        assert not run(body, ROWS, named).planned.plan.biases, body


def test_what_reaches_probabilities_stays_there() -> None:
    names = ("wq", "wk", "wv", "c")
    body = ATTENTION + "y = Identity(o)"
    found = run(body, ROWS, {name: SQUARE[name] for name in names}, method="pa-lrp-gamma")
    x = wide(ROWS)
    q, k = (x @ wide(SQUARE[name]) for name in ("wq", "wk"))
    powers = np.exp(q @ k.swapaxes(1, 2))
    s = powers / powers.sum(axis=-1, keepdims=True)
    values = 0.5 * s.swapaxes(1, 2) @ found.seed
    np.testing.assert_allclose(found.content, x * (values @ wide(SQUARE["wv"]).T), rtol=1e-9)
    kept = 0.5 * (found.seed * wide(found.y)).sum(axis=(1, 2))
    np.testing.assert_allclose(found.result.ledger["softmax"], kept, rtol=1e-9)


# --- edges ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS)
def test_outputs_without_any_contribution(method: str) -> None:
    weights = {"w": WEIGHTS["w"].copy()}
    weights["w"][:, 2] = 0
    found = run("y = MatMul(x, w)", ROWS, weights, method=method)
    assert np.isfinite(found.content).all()
    assert found.residual < 1e-12


def test_relevance_without_positive_contributions_is_in_the_ledger() -> None:
    weights = {"w": -np.abs(WEIGHTS["w"])}
    found = run("y = MatMul(x, w)", np.abs(ROWS), weights, method="pa-lrp-alpha")
    assert not found.content.any()
    np.testing.assert_allclose(found.result.ledger["other"], found.result.ledger["target"])


def test_a_third_operand_of_gemm_that_is_content_has_its_own_share() -> None:
    body = "d = MatMul(x, v)  y = Gemm<beta = 0.5>(x, w, d)"
    weights = {"v": real(4, 5, seed=4), "w": WEIGHTS["w"]}
    found = run(body, FLAT, weights, method="pa-lrp-gamma")
    whole = "d = MatMul(x, v)  e = MatMul(x, w)  h = Mul(d, half)  y = Add(e, h)"
    parts = run(whole, FLAT, {**weights, "half": floats(0.5)}, method="pa-lrp-gamma")
    np.testing.assert_allclose(found.content, parts.content, rtol=1e-9)


def test_weights_of_one_axis_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="one axis"):
        run("y = MatMul(x, w)", ROWS, {"w": real(4)}, method="pa-lrp-gamma")


# --- properties -----------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(-3, 3), method=st.sampled_from(METHODS))
def test_it_is_linear_in_the_seed(seed: int, factor: float, method: str) -> None:
    found = layer("product and bias", method)
    first, second = np.random.default_rng(seed).normal(size=(2, *found.y.shape))
    parts = [again(found.engine, found.feeds, s).content for s in (first, second)]
    both = again(found.engine, found.feeds, first + factor * second).content
    np.testing.assert_allclose(both, parts[0] + factor * parts[1], rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), method=st.sampled_from(METHODS))
def test_without_a_bias_all_is_handed_on(seed: int, method: str) -> None:
    """But for what has nothing positive under the α1-rule."""
    found = run("y = MatMul(x, w)", real(2, 3, 4, seed=seed), used("( w )"), method=method)
    ledger = found.result.ledger
    scale = np.abs(found.content).sum(axis=(1, 2))
    lost = ledger["target"] - ledger["content"] - ledger["other"]
    assert (np.abs(lost) <= 1e-12 * scale).all()
    assert method == "pa-lrp-alpha" or not ledger["other"].any()
