"""Products and sums against the formulas of the papers, written out with loops and divisions."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from building import Array, floats, gradient, ints, real, run, wide

pytestmark = pytest.mark.quick

X = real(2, 3, 4, seed=3)
W = real(4, 4)
V = real(4, 4, seed=9)


def epsilon(x: Array, weights: Array, bias: Array, relevance: Array) -> Array:
    """R_i = Σ_j x_i w_ij / z_j R_j with z_j = Σ_i x_i w_ij + b_j."""
    sent = np.zeros_like(x)
    for k in np.ndindex(*x.shape[:-1]):
        for j in range(weights.shape[1]):
            z = sum(x[k][i] * weights[i, j] for i in range(len(x[k]))) + bias[j]
            for i in range(len(x[k])):
                sent[k][i] += x[k][i] * weights[i, j] / z * relevance[k][j]
    return sent


@pytest.mark.parametrize(
    "body", ["h = MatMul(x, w)  y = Add(h, b)", "h = MatMul(x, w)  y = Add(b, h)"]
)
def test_linear_layer_is_the_epsilon_rule(body: str) -> None:
    bias = real(4, seed=5)
    found = run(body, X, {"w": W, "b": bias})
    expected = epsilon(wide(X), wide(W), wide(bias), found.seed * found.y)
    np.testing.assert_allclose(found.content, expected, rtol=1e-9, atol=1e-12)
    absorbed = (wide(bias) * found.seed).sum(axis=(1, 2))
    np.testing.assert_allclose(found.result.ledger["bias"], absorbed, rtol=1e-12)


def test_gemm_is_the_epsilon_rule() -> None:
    """α scales the weights, β the bias."""
    bias = real(4, seed=5)
    x = X[:, 0]
    found = run("y = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b)", x, {"w": W, "b": bias})
    expected = epsilon(wide(x), 0.5 * wide(W).T, 2 * wide(bias), found.seed * found.y)
    np.testing.assert_allclose(found.content, expected, rtol=1e-9, atol=1e-12)
    absorbed = (2 * wide(bias) * found.seed).sum(axis=1)
    np.testing.assert_allclose(found.result.ledger["bias"], absorbed, rtol=1e-12)


def test_sum_is_the_epsilon_rule() -> None:
    """R_a = a / (a + b) R, for a = x and b = x W."""
    found = run("h = MatMul(x, w)  y = Add(x, h)", X, {"w": W})
    x, relevance = wide(X), found.seed * found.y
    direct = x / found.y * relevance
    branch = (x @ wide(W)) / found.y * relevance
    expected = direct + epsilon(x, wide(W), np.zeros(4), branch)
    np.testing.assert_allclose(found.content, expected, rtol=1e-9, atol=1e-12)


def test_convolution_is_the_epsilon_rule() -> None:
    """Every output entry is a dot product; its relevance is shared as the terms are."""
    x, w, b = real(2, 4, 6, 5), real(6, 2, 3, 2), real(6, seed=5)
    strides, pads, dilations, group = (2, 1), (1, 0, 2, 1), (1, 2), 2
    body = "y = Conv<strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2], group=2>(x, w, b)"
    found = run(body, x, {"w": w, "b": b})
    expected = np.zeros(x.shape)
    for n, o, i, j in np.ndindex(*found.y.shape):
        terms: dict[tuple[int, ...], float] = {}
        for c, r, s in product(range(2), range(3), range(2)):
            row, column = i * strides[0] + r - pads[0], j * strides[1] + s * dilations[1] - pads[1]
            if 0 <= row < 6 and 0 <= column < 5:
                place = (n, c + o // (6 // group) * 2, row, column)
                terms[place] = float(x[place]) * float(w[o, c, r, s])
        z = sum(terms.values()) + float(b[o])
        np.testing.assert_allclose(z, found.y[n, o, i, j], rtol=1e-12)
        for place, term in terms.items():
            expected[place] += term / z * found.seed[n, o, i, j] * z
    np.testing.assert_allclose(found.content, expected, rtol=1e-9, atol=1e-12)
    absorbed = np.einsum("o,noij->n", wide(b), found.seed)
    np.testing.assert_allclose(found.result.ledger["bias"], absorbed, rtol=1e-12)


def test_uniform_rule_of_a_matrix_product() -> None:
    """R_ij(A) = ½ Σ_p A_ij B_jp / O_ip R_ip (AttnLRP prop. 3.3), likewise B; A = xW, B = (xV)ᵀ."""
    body = "a = MatMul(x, w)  c = MatMul(x, v)  b = Transpose<perm=[0, 2, 1]>(c)  y = MatMul(a, b)"
    found = run(body, X, {"w": W, "v": V})
    x, w, v = wide(X), wide(W), wide(V)
    expected = np.zeros_like(x)
    for n in range(2):
        a, b = x[n] @ w, (x[n] @ v).T
        o = a @ b
        relevance = found.seed[n] * o
        left, right = np.zeros_like(a), np.zeros_like(b)
        for i, j, p in product(range(3), range(4), range(3)):
            share = 0.5 * a[i, j] * b[j, p] / o[i, p] * relevance[i, p]
            left[i, j] += share
            right[j, p] += share
        expected[n] = epsilon(x[n], w, np.zeros(4), left) + epsilon(x[n], v, np.zeros(4), right.T)
    np.testing.assert_allclose(found.content, expected, rtol=1e-9, atol=1e-12)
    assert found.residual < 1e-12


#: Products of two activations, or of three.
PRODUCTS = {
    "Einsum of three": (
        'a = MatMul(x, w)  b = Neg(x)  y = Einsum<equation="bif,bjf,bkf->bijk">(a, x, b)',
        X,
    ),
    "Mul": ("a = MatMul(x, w)  b = MatMul(x, v)  y = Mul(a, b)", X),
    "Einsum": (
        'a = MatMul(x, w)  b = MatMul(x, v)  y = Einsum<equation="bif,bjf->bij">(a, b)',
        X,
    ),
    "Einsum, weights between": (
        'a = MatMul(x, w)  y = Einsum<equation="bif,fg,bjg->bji">(a, v, x)',
        X,
    ),
    "Gemm": (
        "a = MatMul(x, w)  p = Reshape(a, s)  q = Reshape(x, s)  "
        "h = Gemm<alpha=0.5, transB=1>(p, q, zero)  y = Reshape(h, t)",
        X[:1],
    ),
    "Gemm, transposed": (
        "a = MatMul(x, w)  p = Reshape(a, s)  q = Reshape(x, s)  "
        "e = Transpose(p)  f = Transpose(q)  h = Gemm<transA=1>(e, f, zero)  y = Reshape(h, t)",
        X[:1],
    ),
    "MatMul, broadcast": (
        "a = MatMul(x, w)  b = Unsqueeze(a, one)  c = Reshape(x, u)  y = MatMul(b, c)",
        real(2, 6, 4),
    ),
    "two equal factors": ("a = MatMul(x, w)  y = Mul(a, x)", X),
}


OPERANDS = {
    "w": W,
    "v": V,
    "zero": np.zeros((1, 1), np.float32),
    "s": ints(3, 4),
    "t": ints(1, 3, 3),
    "u": ints(-1, 2, 4, 3),
    "one": ints(1),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_activations_share_equally(name: str) -> None:
    """y(λx) = λⁿ y(x): an n-th of the gradient, so Σ R_x = Σ R_y exactly."""
    body, x = PRODUCTS[name]
    used = {k: a for k, a in OPERANDS.items() if re.search(rf"\b{k}\b", body)}
    found = run(body, x, used, free=())
    factors = 3 if name == "Einsum of three" else 2
    expected = gradient(found) / factors
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-6, atol=1e-7)
    total = found.content.reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(total, (found.y * found.seed).reshape(len(x), -1).sum(axis=1))


def test_denominator_gets_nothing() -> None:
    body = "a = MatMul(x, w)  b = MatMul(x, v)  c = Mul(b, b)  d = Add(c, e)  y = Div(a, d)"
    found = run(body, X, {"w": W, "v": V, "e": floats(1)})
    below = (wide(X) @ wide(V)) ** 2 + 1
    expected = (found.seed / below) @ wide(W).T
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9)
    assert found.residual < 1e-12


def test_a_position_that_multiplies_gets_half() -> None:
    """Eq. 10: x ∘ p gives half to x and half to p; without positions all of it is x's."""
    table = real(3, 4, seed=5)
    with_positions = run("y = Mul(x, p)", X, {"p": table})
    without = run("y = Mul(x, p)", X, {"p": table}, method="attnlrp")
    relevance = with_positions.seed * with_positions.y
    np.testing.assert_allclose(with_positions.content, 0.5 * relevance)
    (sink,) = with_positions.result.sinks
    np.testing.assert_allclose(sink.relevance, 0.5 * relevance)
    np.testing.assert_allclose(without.content, relevance)
    assert not without.result.sinks
    assert max(with_positions.residual, without.residual) < 1e-12


def test_attention_written_out() -> None:
    """One head by the rules of AttnLRP: Deep Taylor softmax, uniform products, ε-rule."""
    body = """
        q = MatMul(x, w)  k = MatMul(x, v)  kt = Transpose<perm=[0, 2, 1]>(k)
        r = MatMul(q, kt)  z = Mul(r, c)  s = Softmax(z)  y = MatMul(s, x)
    """
    found = run(body, X, {"w": W, "v": V, "c": floats(0.5)})
    w, v = wide(W), wide(V)
    expected, constant = np.zeros(X.shape), np.zeros(2)
    for n in range(2):
        x = wide(X[n])
        q, k = x @ w, x @ v
        z = 0.5 * q @ k.T
        s = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
        relevance = found.seed[n] * (s @ x)
        r_s, r_x = np.zeros_like(s), np.zeros_like(x)
        for i, j, f in product(range(3), range(3), range(4)):
            share = 0.5 * s[i, j] * x[j, f] / (s @ x)[i, f] * relevance[i, f]
            r_s[i, j] += share
            r_x[j, f] += share
        r_z = np.zeros_like(z)
        for i, j in product(range(3), range(3)):
            r_z[i, j] = z[i, j] * (r_s[i, j] - s[i, j] * r_s[i].sum())  # AttnLRP eq. 13
        constant[n] = r_s.sum() - r_z.sum()
        r_q, r_k = np.zeros_like(q), np.zeros_like(k)
        for i, j, f in product(range(3), range(3), range(4)):
            share = 0.5 * q[i, f] * k[j, f] / (2 * z[i, j]) * r_z[i, j]
            r_q[i, f] += share
            r_k[j, f] += share
        zero = np.zeros(4)
        expected[n] = r_x + epsilon(x, w, zero, r_q) + epsilon(x, v, zero, r_k)
    np.testing.assert_allclose(found.content, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.result.ledger["softmax"], constant, rtol=1e-9)
    assert found.residual < 1e-12


@pytest.mark.parametrize("body", ["Div(t, x)", "Div(x, t)", "Mul(x, t)"])
def test_a_quotient_is_shared_as_a_product_is(body: str) -> None:
    """Position table and content, whichever divides: each takes half."""
    table = real(3, 4, seed=5)
    found = run(f"y = {body}", X, {"t": table})
    half = found.seed * found.y / 2
    np.testing.assert_allclose(found.content, half, rtol=1e-12)
    np.testing.assert_allclose(found.result.ledger["position"], half.sum(axis=(1, 2)), rtol=1e-12)
    assert [sink.kind for sink in found.result.sinks] == ["multiplicative"]


def test_positions_in_a_mean_are_positions() -> None:
    table = real(3, 4, seed=5)
    found = run("y = Mean(x, t, x)", X, {"t": table})
    np.testing.assert_allclose(found.content, wide(X) * found.seed * 2 / 3, rtol=1e-12)
    absorbed = (wide(table) * found.seed / 3).sum(axis=(1, 2))
    np.testing.assert_allclose(found.result.ledger["position"], absorbed, rtol=1e-12)
