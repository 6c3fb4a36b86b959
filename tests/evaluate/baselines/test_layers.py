"""Baselines on attention layers, and occlusion, against second derivations by hand."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import pytest
from building import Array, ints, opened, proto, real, wide

from palrp_onnx import Model
from palrp_onnx.errors import ResourceError, UsageError
from palrp_onnx.evaluate.baselines import BASELINES, Baseline, compared_method
from palrp_onnx.evaluate.baselines.attention import Attention
from palrp_onnx.evaluate.baselines.layers import find_layers
from palrp_onnx.evaluate.baselines.partition_shap import partition_shap
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.target_parsing import parse_target

X = real(2, 5, 4, seed=3)
NAMES = ("q1", "v1", "o1", "f1", "q2", "v2", "o2", "f2")
WEIGHTS: Mapping[str, Array] = {
    **{f"w{name}": real(4, 4, seed=k) for k, name in enumerate(NAMES, 10)},
    "b1": real(4, seed=30),
    "b2": real(4, seed=31),
    "h": real(4, 3, seed=32),
    "zero": np.array(0),
}
W = {name: wide(array) for name, array in WEIGHTS.items()}
PRODUCTS = {
    "left": "m{k} = MatMul(s{k}, v{k})",
    "right": """
        vt{k} = Transpose<perm=[0, 2, 1]>(v{k})  st{k} = Transpose<perm=[0, 2, 1]>(s{k})
        mt{k} = MatMul(vt{k}, st{k})  m{k} = Transpose<perm=[0, 2, 1]>(mt{k})
    """,
    "einsum": 'm{k} = Einsum<equation="bij,bjf->bif">(s{k}, v{k})',
}


def model(product: str = "left", *, every: bool = False) -> Model:
    """Two layers: r = z + S (z V) O + b, then r + tanh(r F); the head reads the first token."""
    body, before = "", "x"
    for k in (1, 2):
        body += f"""
            q{k} = MatMul({before}, wq{k})  k{k} = Transpose<perm=[0, 2, 1]>({before})
            a{k} = MatMul(q{k}, k{k})  s{k} = Softmax(a{k})  v{k} = MatMul({before}, wv{k})
            {PRODUCTS[product].format(k=k)}
            o{k} = MatMul(m{k}, wo{k})  ob{k} = Add(o{k}, b{k})  r{k} = Add({before}, ob{k})
            f{k} = MatMul(r{k}, wf{k})  t{k} = Tanh(f{k})  z{k} = Add(r{k}, t{k})
        """
        before = f"z{k}"
    body += "y = MatMul(z2, h)" if every else "e = Gather<axis=1>(z2, zero)  y = MatMul(e, h)"
    return opened(proto(body, {"x": X}, WEIGHTS, free=(0, 1)))


def softmax(a: Array) -> Array:
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def layer(z: Array, k: int, zeroed: int | None = None) -> tuple[Array, Array, Array]:
    """Probabilities, values behind O, and the end of a layer, without the values of one token."""
    s = softmax(z @ W[f"wq{k}"] @ z.T)
    values = z @ W[f"wv{k}"]
    if zeroed is not None:
        values[zeroed] = 0
    moved = values @ W[f"wo{k}"]
    r = z + s @ moved + W[f"b{k}"]
    return s, moved, r + np.tanh(r @ W[f"wf{k}"])


def rolled(first: Array, second: Array) -> Array:
    """The row of the first token of both layers, each half of itself."""
    mixed = [(each / each.sum(axis=1, keepdims=True) + np.eye(5)) / 2 for each in (first, second)]
    return np.asarray((mixed[1] @ mixed[0])[0])


def found(name: str, product: str = "left") -> Array:
    baseline = Baseline(model(product), BASELINES[name], dtype="float64")
    return baseline.map({"x": X}, parse_target("1"))


@pytest.mark.parametrize("product", PRODUCTS)
def test_norms_of_what_attention_moves(product: str) -> None:
    for row, x in zip(found("attention-norm", product), wide(X), strict=True):
        norms, z = [], x
        for k in (1, 2):
            s, moved, z = layer(z, k)
            norms.append(s * np.linalg.norm(moved, axis=-1))
        np.testing.assert_allclose(row, rolled(*norms), rtol=1e-6)


@pytest.mark.parametrize("product", PRODUCTS)
def test_value_zeroing(product: str) -> None:
    for row, x in zip(found("value-zeroing", product), wide(X), strict=True):
        turns, z = [], x
        for k in (1, 2):
            _, _, end = layer(z, k)
            others = [layer(z, k, zeroed=j)[2] for j in range(5)]
            cosines = [
                (end * other).sum(axis=1)
                / (np.linalg.norm(end, axis=1) * np.linalg.norm(other, axis=1))
                for other in others
            ]
            turns.append(1 - np.stack(cosines, axis=1))
            z = end
        np.testing.assert_allclose(row, rolled(*turns), rtol=1e-6)


def test_relevance_of_attention_weighed_by_its_gradient() -> None:
    """One layer, z = x + S x: α1-rule at the head, normalised sum, half for S."""
    body = """
        q = MatMul(x, wq1)  k = Transpose<perm=[0, 2, 1]>(x)  a = MatMul(q, k)  s = Softmax(a)
        o = MatMul(s, x)  z = Add(x, o)  e = Gather<axis=1>(z, zero)  y = MatMul(e, h)
    """
    weights = {name: WEIGHTS[name] for name in ("wq1", "h", "zero")}
    made = opened(proto(body, {"x": X}, weights, free=(0, 1)))
    rows = Baseline(made, BASELINES["tibav"], dtype="float64").map({"x": X}, parse_target("1"))
    for row, x in zip(rows, wide(X), strict=True):
        s = softmax(x @ W["wq1"] @ x.T)
        o = s @ x
        read, column = (x + o)[0], W["h"][:, 1]
        parts = read * column
        positive = np.maximum(parts, 0)
        m = np.zeros(x.shape)
        m[0] = positive / positive.sum() * parts.sum() / read
        sums = (x * m).sum(), (o * m).sum()
        whole = sum(sums) / (abs(sums[0]) + abs(sums[1]))
        relevance = s * (m * np.sign(sums[1]) * whole @ x.T) / 2
        gradient = np.zeros(s.shape)
        gradient[0] = x @ column
        joint = np.eye(5) + np.maximum(gradient * relevance, 0)
        np.testing.assert_allclose(row, joint[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["attention-norm", "value-zeroing", "tibav", "occlusion"])
def test_maps_are_the_same_in_single_precision(name: str) -> None:
    rough = Baseline(model(), BASELINES[name]).map({"x": X}, parse_target("1"))
    exact = found(name)
    np.testing.assert_allclose(rough, exact, atol=1e-3 * np.abs(exact).max())


def test_the_last_layer_of_a_language_model_ends_before_its_logits() -> None:
    given = Baseline(model("left", every=True), BASELINES["rollout"]).prepare(
        {"x": X}, parse_target("token:0:1")
    )
    last = find_layers(given, Attention(given))[-1]
    assert (last.added.name, last.end.name) == ("o2", "z2")


# --- occlusion ------------------------------------------------------------------------------------
def logit(x: Array) -> float:
    z = x
    for k in (1, 2):
        z = layer(z, k)[2]
    return float(z[0] @ W["h"][:, 1])


def test_occlusion_of_units() -> None:
    for row, x in zip(found("occlusion"), wide(X), strict=True):
        without = [np.where(np.arange(5)[:, None] == k, 0, x) for k in range(5)]
        np.testing.assert_allclose(row, [logit(x) - logit(each) for each in without], rtol=1e-6)


def test_occlusion_of_tokens() -> None:
    table, ids = real(6, 3, seed=40), ints([0, 1, 2], [3, 4, 4])
    made = opened(
        proto(
            "e = Gather(t, ids)  g = Tanh(e)  y = ReduceSum<keepdims=0>(g, one)",
            {"ids": ids},
            {"t": table, "one": ints(1)},
            free=(0, 1),
        )
    )
    sample = Sample("x", "tensors", {"ids": ids}, InputFacts(kind="tensors"))
    rows = compared_method("occlusion", made, unknown=5, dtype="float64").explain(sample, "1")
    looked_up = np.tanh(wide(table)[:, 1])
    for (_, row), own in zip(rows, ids, strict=True):
        np.testing.assert_allclose(row, looked_up[own] - looked_up[5], rtol=1e-6)
    with pytest.raises(UsageError, match="needs a token to put in place"):
        compared_method("occlusion", made).explain(sample, "1")


def test_occlusion_of_patches() -> None:
    image, kernel = real(2, 3, 4, 6, seed=4), real(5, 3, 2, 2, seed=5)
    made = opened(
        proto(
            """p = Conv<strides=[2, 2]>(x, k)  f = Reshape(p, flat)
            t = Transpose<perm=[0, 2, 1]>(f)  g = Tanh(t)  y = ReduceMean<keepdims=0>(g, one)""",
            {"x": image},
            {"k": kernel, "flat": ints(0, 5, -1), "one": ints(1)},
        )
    )
    rows = Baseline(made, BASELINES["occlusion"], dtype="float64").map(
        {"x": image}, parse_target("1")
    )
    patches = np.einsum(
        "bcihjw,chw->bij", wide(image).reshape(2, 3, 2, 2, 3, 2), wide(kernel)[1]
    ).reshape(2, 6)
    np.testing.assert_allclose(rows, np.tanh(patches) / 6, rtol=1e-6)


# --- shap -----------------------------------------------------------------------------------------
def test_shapley_values_of_a_product_and_a_sum() -> None:
    """y = x₀ x₁ + x₂ + …: neighbours that multiply share their product; any map sums to f − f₀."""
    pytest.importorskip("shap")
    body = """
        a = Gather<axis=1>(x, zero)  b = Gather<axis=1>(x, first)  p = Mul(a, b)
        s = ReduceSum<keepdims=0>(x, one)  t = Add(p, s)  y = MatMul(t, h)
    """
    weights = {"zero": np.array(0), "first": np.array(1), "one": ints(1), "h": WEIGHTS["h"]}
    made = opened(proto(body, {"x": X}, weights, free=(0, 1)))
    rows = Baseline(made, BASELINES["shap"], dtype="float64").map({"x": X}, parse_target("1"))
    column = W["h"][:, 1]
    for row, x in zip(rows, wide(X), strict=True):
        expected = x @ column
        expected[:2] += (x[0] * x[1]) @ column / 2
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    few = partition_shap(
        Baseline(model(), BASELINES["shap"], dtype="float64").prepare({"x": X}, parse_target("1")),
        evaluations=5,
    )
    whole = [logit(x) - logit(np.zeros(x.shape)) for x in wide(X)]
    np.testing.assert_allclose(few.sum(axis=1), whole, rtol=1e-6)


def test_without_the_package_shap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ResourceError, match="not installed: shap"):
        found("shap")


@pytest.mark.parametrize("name", ["attention-norm", "value-zeroing", "tibav"])
def test_without_attention_they_are_refused(name: str) -> None:
    made = opened(proto("y = MatMul(x, h)", {"x": X}, {"h": WEIGHTS["h"]}))
    with pytest.raises(UsageError, match="no attention"):
        Baseline(made, BASELINES[name]).map({"x": X}, parse_target("1,2"))
