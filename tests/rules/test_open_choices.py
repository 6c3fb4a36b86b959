"""The free choices of PA-LRP, derived a second time in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from building import Array, Walk, floats, ints, opened, proto, real, run, wide
from hypothesis import given
from hypothesis import strategies as st

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.method_parsing import method
from palrp_onnx.relevance.sinks import reduce_sinks
from palrp_onnx.tensor.numpy import Eager

pytestmark = pytest.mark.quick

X = real(2, 5, 4, seed=3)
#: Layers, attention, a gated unit, positions that are added and that multiply.
BODY = """
    e = Add(x, table)  h = MatMul(e, w)  hb = Add(h, b)  g = Relu(hb)
    q0 = MatMul(g, wq)  q = Mul(q0, p)  k0 = MatMul(g, wk)  k = Transpose<perm = [0, 2, 1]>(k0)
    z = MatMul(q, k)  s = Softmax<axis = -1>(z)  v0 = MatMul(g, wv)  v = Add(v0, vb)
    o0 = MatMul(s, v)  o = MatMul(o0, wo)  r = Add(g, o)
    a = MatMul(r, wa)  a1 = Sigmoid(a)  c = Mul(a, a1)  d = MatMul(r, wb)  u = Mul(d, c)
    y0 = ReduceMean<keepdims = 0>(u, axis)  y = Mul(y0, three)
"""
WEIGHTS: Mapping[str, Array] = {
    **{n: real(4, 4, seed=k) for k, n in enumerate(("w", "wq", "wk", "wv", "wo", "wa", "wb"), 20)},
    "table": real(5, 4, seed=41),
    "p": np.sin(np.arange(20.0, dtype=np.float32).reshape(5, 4)) + 0.1,
    "b": real(4, seed=30),
    "vb": real(4, seed=31),
    "axis": ints(1),
    "three": floats(3.0),
}


def walked(body: str, asked: Method | str) -> Walk:
    words = set(body.replace(")", " ").replace("(", " ").replace(",", " ").split())
    return run(body, X, {k: a for k, a in WEIGHTS.items() if k in words}, method=asked)


def same(ours: Walk, theirs: Walk) -> None:
    np.testing.assert_allclose(ours.content, theirs.content, rtol=1e-9, atol=1e-12)
    for entry, amount in theirs.result.ledger.items():
        np.testing.assert_allclose(ours.result.ledger[entry], amount, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["pa-lrp", "attnlrp"])
def test_the_defaults_are_the_usual_rules(name: str) -> None:
    same(walked(BODY, f"{name}-open"), walked(BODY, name))


# --- shares ---------------------------------------------------------------------------------------
SHARES = st.floats(0, 1)


@given(share=SHARES)
@pytest.mark.parametrize("first", [True, False])
def test_probabilities_beside_values(first: bool, share: float) -> None:
    product = "MatMul(s, v)" if first else "MatMul(vt, st)"
    text = (
        "k = Transpose<perm = [0, 2, 1]>(x)  z = MatMul(x, k)  s = Softmax<axis = -1>(z) "
        " v = MatMul(x, wv) "
    )
    if not first:
        text += " vt = Transpose<perm = [0, 2, 1]>(v)  st = Transpose<perm = [0, 2, 1]>(s) "
    found = walked(f"{text} y = {product}", f"attnlrp-open:scores={share!r}")
    x = wide(X)
    z = x @ x.swapaxes(1, 2)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    s = e / e.sum(axis=-1, keepdims=True)
    v, seed = x @ wide(WEIGHTS["wv"]), found.seed if first else found.seed.swapaxes(1, 2)
    m = share * seed @ v.swapaxes(1, 2)
    m_z = s * (m - (s * m).sum(axis=-1, keepdims=True))
    of_scores = (m_z @ x + m_z.swapaxes(1, 2) @ x) / 2
    of_values = (1 - share) * s.swapaxes(1, 2) @ seed @ wide(WEIGHTS["wv"]).T
    np.testing.assert_allclose(found.multiplier, of_scores + of_values, rtol=1e-8, atol=1e-9)
    assert found.residual < 1e-12


@given(share=SHARES)
@pytest.mark.parametrize("factors", ["c, d", "d, c"])
def test_gates(factors: str, share: float) -> None:
    text = f"a = MatMul(x, wa)  c = Sigmoid(a)  d = MatMul(x, wb)  y = Mul({factors})"
    found = walked(text, f"attnlrp-open:gate={share!r}")
    x, wa, wb = wide(X), wide(WEIGHTS["wa"]), wide(WEIGHTS["wb"])
    a, d = x @ wa, x @ wb
    c = 1 / (1 + np.exp(-a))
    m_c, m_d = share * found.seed * d, (1 - share) * found.seed * c
    expected = (m_c * (c - 0.5) / a) @ wa.T + m_d @ wb.T
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-8, atol=1e-9)
    assert found.residual < 1e-12


@given(share=SHARES)
@pytest.mark.parametrize("factors", ["x, p", "p, x"])
def test_positions_that_multiply(factors: str, share: float) -> None:
    found = walked(f"y = Mul({factors})", f"pa-lrp-open:rotation={share!r}")
    whole = found.seed * wide(WEIGHTS["p"])
    np.testing.assert_allclose(found.multiplier, (1 - share) * whole, rtol=1e-9)
    positions = share * (wide(X) * whole).sum(axis=(1, 2))
    np.testing.assert_allclose(found.result.ledger["position"], positions, rtol=1e-9, atol=1e-12)


def test_positions_in_matrix_products_keep_half() -> None:
    """Relevance of such a position is found from the result, of which it has half."""
    keys = 'e = Einsum<equation = "btf,tsf->bts">(x, r)  s = Softmax(e)  '
    values = 'y = Einsum<equation = "bts,tsf->btf">(s, r)'
    ours, theirs = (
        run(keys + values, X, {"r": real(5, 5, 4, seed=6)}, method=each)
        for each in ("pa-lrp-open:scores=0.1,rotation=0.1", "pa-lrp")
    )
    assert theirs.result.ledger["position"].any()
    same(ours, theirs)


# --- γ and the bias -------------------------------------------------------------------------------
def test_gamma_is_that_of_the_image_methods() -> None:
    """γ = 0 next to attention is what they have there; one γ for all is nothing spared."""
    rules = replace(method("pa-lrp-gamma"), name="mine", rules=("gamma",))
    ours = walked(BODY, "pa-lrp-open:gamma=0.3,gamma_conv=100")
    same(ours, walked(BODY, rules.having(gamma=0.3)))
    everywhere = walked(BODY, "pa-lrp-open:gamma=0.3,gamma_attention=0.3")
    same(everywhere, walked(BODY, replace(rules, spared=False).having(gamma=0.3)))
    assert not np.allclose(ours.content, everywhere.content)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize("kept", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("text", ["z = MatMul(x, w)  y = Add(z, b)", "y = MatMul(x, w)"])
def test_what_a_bias_does_not_keep_goes_to_the_inputs(text: str, kept: float, gamma: float) -> None:
    """Listed contribution by contribution: (1 − kept) R_b goes to them as |w x|."""
    found = walked(text, f"attnlrp-open:gamma={gamma},bias={kept}")
    w = wide(WEIGHTS["w"])
    b = wide(WEIGHTS["b"]) if "Add" in text else np.zeros(4)
    expected, of_bias = np.zeros(X.shape), np.zeros(len(X))
    for place in np.ndindex(X.shape[:2]):
        x = wide(X[place])
        for j in range(4):
            parts = np.append(w[:, j] * x, b[j])
            y = parts.sum()
            weighed = parts * (1 + gamma * (np.sign(parts) == np.sign(y)))
            relevance = weighed / weighed.sum() * y * found.seed[(*place, j)]
            sizes = np.abs(parts[:-1]) / np.abs(parts[:-1]).sum()
            expected[place] += relevance[:-1] + (1 - kept) * relevance[-1] * sizes
            of_bias[place[0]] += kept * relevance[-1]
    np.testing.assert_allclose(found.content, expected, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.result.ledger["bias"], of_bias, rtol=1e-8, atol=1e-9)
    assert found.residual < 1e-12


# --- the score ------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["relu", "abs", "signed", "single-sink"])
@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_the_score(engine: str, how: str) -> None:
    body = "e = Add(x, table)  f = Tanh(e)" + BODY.replace("e = Add(x, table)", "").replace(
        "MatMul(e, w)", "MatMul(f, w)"
    )
    model = opened(proto(body, {"x": X}, WEIGHTS))
    sample = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors"))

    def explained(numbers: str, positions: str = how) -> list[Array]:
        asked = method(f"pa-lrp-open:{numbers}") if numbers else method("pa-lrp-open")
        explainer = Explainer(model, method=asked, positions=positions, engine=engine)
        found = explainer.explain(sample, "1")
        return [
            np.array([f.record.relevance.score for f in found]),
            np.array([f.record.relevance.content for f in found]),
        ]

    score, content = explained("")
    reduced = score - content
    close = {"rtol": 1e-4, "atol": 1e-5}
    weighed, _ = explained("position_weight=2.5")
    np.testing.assert_allclose(weighed, content + 2.5 * reduced, **close)
    sizes, _ = explained("magnitude=1")
    np.testing.assert_allclose(sizes, np.abs(score), **close)
    mixed, _ = explained("magnitude=0.25,position_weight=2")
    whole = content + 2 * reduced
    np.testing.assert_allclose(mixed, 0.75 * whole + 0.25 * np.abs(whole), **close)


@pytest.mark.parametrize("how", ["relu", "abs", "signed", "single-sink"])
def test_layers_are_weighed_before_they_are_reduced(how: str) -> None:
    found = walked(BODY, "pa-lrp-open")
    op = Eager(len(X), np.dtype(np.float64))
    sinks = found.result.sinks
    weighed = [replace(s, relevance=s.relevance * 0.5**s.layer) for s in sinks]
    ours, theirs = (
        [term for _, term in terms]
        for terms in (reduce_sinks(op, sinks, how, 0.5), reduce_sinks(op, weighed, how))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
