"""Self-gates and normalisers are found by structure, never by name; true gates share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from building import Array, Walk, floats, ints, real, run, wide

pytestmark = pytest.mark.quick

X = real(2, 3, 4, seed=3)
TABLE = {
    "half": floats(0.5),
    "one": floats(1),
    "two": floats(2),
    "three": floats(3),
    "root2": floats(math.sqrt(2)),
    "quick": floats(1.702),
    "cubic": floats(0.044715),
    "pi": floats(math.sqrt(2 / math.pi)),
    "eps": floats(1e-5),
    "tiny": floats(1e-12),
    "mhalf": floats(-0.5),
    "low": np.array(1e-12, np.float32),
    "g": real(4),
    "b": real(4, seed=8),
    "w": real(4, 4),
    "v": real(4, 4, seed=9),
    "pair": real(4, 8),
    "last": ints(-1),
    "tokens": ints(1),
    "n0": ints(0),
    "n4": ints(4),
    "n8": ints(8),
}


def explained(body: str, x: Array = X, opset: int = 18, **options: str) -> Walk:
    words = set(body.replace(",", " ").replace("(", " ").replace(")", " ").split())
    used = {name: array for name, array in TABLE.items() if name in words}
    return run(body, x, used, opset=opset, **options)


ERF = "d = Div(x, root2)  e = Erf(d)  f = Add(e, one)  "
TANH = "t = Mul(i, pi)  u = Tanh(t)  f = Add(u, one)  k = Mul(x, half)  y = Mul(k, f)"
#: Functions of one activation, written with several operations.
SELF_GATED = {
    "silu": "s0 = Sigmoid(x)  y = Mul(x, s0)",
    "silu, gate first": "s0 = Sigmoid(x)  y = Mul(s0, x)",
    "silu by division": "n = Neg(x)  e = Exp(n)  f = Add(e, one)  y = Div(x, f)",
    "silu of a scaled copy": "h = Mul(x, two)  s0 = Sigmoid(h)  y = Mul(h, s0)",
    "gelu, (x/2)(1 + erf)": ERF + "k = Mul(x, half)  y = Mul(k, f)",
    "gelu, x((1 + erf)/2)": ERF + "k = Mul(f, half)  y = Mul(x, k)",
    "gelu, (x(1 + erf))/2": ERF + "k = Mul(x, f)  y = Mul(k, half)",
    "gelu, (1 + erf)(x/2)": ERF + "k = Mul(half, x)  y = Mul(f, k)",
    "tanh-gelu, Pow": "p = Pow(x, three)  h = Mul(p, cubic)  i = Add(x, h)  " + TANH,
    "tanh-gelu, x·x·x": "o = Mul(x, x)  p = Mul(o, x)  h = Mul(cubic, p)  i = Add(h, x)  " + TANH,
    "tanh-gelu, x(1 + cx²)": "o = Mul(x, x)  p = Mul(o, cubic)  h = Add(p, one)  i = Mul(h, x)  "
    + TANH,
    "quick-gelu": "h = Mul(x, quick)  s0 = Sigmoid(h)  y = Mul(x, s0)",
    "mish": "p = Softplus(x)  t = Tanh(p)  y = Mul(x, t)",
    "mish, gate first": "p = Softplus(x)  t = Tanh(p)  y = Mul(t, x)",
    "mish by exp": "e = Exp(x)  f = Add(e, one)  l = Log(f)  t = Tanh(l)  y = Mul(x, t)",
    "hard-swish": "h = HardSigmoid(x)  y = Mul(x, h)",
    "gate simpler than what it gates": "s0 = Sigmoid(x)  t = Softsign(x)  u = Tanh(t)  "
    "y = Mul(s0, u)",
    "square": "y = Mul(x, x)",
    "cube": "h = Mul(x, x)  y = Mul(h, x)",
    "fourth power": "h = Mul(x, x)  y = Mul(h, h)",
    "relu squared": "r = Relu(x)  y = Mul(r, r)",
    "by a step": "z = Greater(x, half)  c = Cast<to=1>(z)  y = Mul(x, c)",
    "through a projection": "h = MatMul(x, w)  s0 = Sigmoid(h)  y = Mul(h, s0)",
}


@pytest.mark.parametrize("name", SELF_GATED)
def test_self_gates_follow_the_identity_rule(name: str) -> None:
    """R_x = R_y entry by entry; through a projection, y / h ∘ m mapped back."""
    found = explained(SELF_GATED[name])
    relevance = found.seed * found.y
    if name == "through a projection":
        w = wide(TABLE["w"])
        relevance = wide(X) * ((relevance / (wide(X) @ w)) @ w.T)
    np.testing.assert_allclose(found.content, relevance, rtol=1e-9, atol=1e-12)
    assert found.residual < 1e-12


@pytest.mark.parametrize(
    ("fused", "composed"),
    [
        ("y = Gelu(x)", "gelu, (x/2)(1 + erf)"),
        ('y = Gelu<approximate="tanh">(x)', "tanh-gelu, Pow"),
        ("y = Mish(x)", "mish"),
    ],
)
def test_primitive_operations_equal_the_fused_one(fused: str, composed: str) -> None:
    whole, primitive = explained(fused, opset=20), explained(SELF_GATED[composed])
    np.testing.assert_allclose(primitive.content, whole.content, rtol=1e-6, atol=1e-9)


MEAN_SQUARE = "q = Mul(x, x)  m = ReduceMean(q, last)  a = Add(m, eps)  r = Sqrt(a)  "
#: x γ / √(mean(x²) + ε), all the ways exporters write it.
RMS = {
    "x / sqrt": MEAN_SQUARE + "h = Div(x, r)  y = Mul(h, g)",
    "x · reciprocal": MEAN_SQUARE + "c = Reciprocal(r)  h = Mul(x, c)  y = Mul(g, h)",
    "reciprocal · x": MEAN_SQUARE + "c = Reciprocal(r)  h = Mul(c, x)  y = Mul(g, h)",
    "x · (1 / sqrt)": MEAN_SQUARE + "c = Div(one, r)  h = Mul(x, c)  y = Mul(h, g)",
    "Pow": "q = Pow(x, two)  m = ReduceMean(q, last)  a = Add(m, eps)  r = Sqrt(a)  "
    "h = Div(x, r)  y = Mul(h, g)",
    "rsqrt by Pow": "q = Mul(x, x)  m = ReduceMean(q, last)  a = Add(m, eps)  c = Pow(a, mhalf)  "
    "h = Mul(x, c)  y = Mul(h, g)",
    "γ first": MEAN_SQUARE + "c = Reciprocal(r)  k = Mul(c, g)  y = Mul(x, k)",
}


@pytest.mark.parametrize("name", RMS)
def test_rms_normalisers_are_constants(name: str) -> None:
    found = explained(RMS[name])
    root = np.sqrt((wide(X) ** 2).mean(axis=-1, keepdims=True) + 1e-5)
    expected = found.seed * wide(TABLE["g"]) / root
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-6)
    assert found.residual < 1e-12


CENTRED = "m = ReduceMean(x, last)  c = Sub(x, m)  "
#: LayerNorm in primitive operations.
LAYER = {
    "Pow": CENTRED + "q = Pow(c, two)  v0 = ReduceMean(q, last)  a = Add(v0, eps)  r = Sqrt(a)  "
    "h = Div(c, r)  k = Mul(h, g)  y = Add(k, b)",
    "Mul": CENTRED + "q = Mul(c, c)  v0 = ReduceMean(q, last)  a = Add(v0, eps)  r = Sqrt(a)  "
    "h = Div(c, r)  k = Mul(g, h)  y = Add(b, k)",
    "Reciprocal": CENTRED
    + "q = Mul(c, c)  v0 = ReduceMean(q, last)  a = Add(v0, eps)  r = Sqrt(a)  "
    "o = Reciprocal(r)  h = Mul(c, o)  k = Mul(h, g)  y = Add(k, b)",
    "two differences": "m = ReduceMean(x, last)  c = Sub(x, m)  d = Sub(x, m)  q = Mul(d, d)  "
    "v0 = ReduceMean(q, last)  a = Add(v0, eps)  r = Sqrt(a)  h = Div(c, r)  k = Mul(h, g)  "
    "y = Add(k, b)",
    "γ · rsqrt first": CENTRED
    + "q = Mul(c, c)  v0 = ReduceMean(q, last)  a = Add(v0, eps)  r = Sqrt(a)  "
    "o = Reciprocal(r)  p = Mul(o, g)  k = Mul(c, p)  y = Add(k, b)",
}


@pytest.mark.parametrize("name", LAYER)
def test_layer_norm_in_primitive_operations_equals_the_fused_one(name: str) -> None:
    primitive = explained(LAYER[name])
    fused = explained("y = LayerNormalization(x, g, b)")
    np.testing.assert_allclose(primitive.content, fused.content, rtol=1e-6, atol=1e-9)
    absorbed = primitive.result.ledger["bias"] + primitive.result.ledger["norm"]
    np.testing.assert_allclose(absorbed, fused.result.ledger["norm"], rtol=1e-6)
    assert primitive.residual < 1e-12


#: x / ‖x‖, as embedding heads write it.
UNIT = {
    "ReduceL2": "n = ReduceL2(x, last)  y = Div(x, n)",
    "clamped": "n = ReduceL2(x, last)  k = Max(n, tiny)  y = Div(x, k)",
    "clipped and expanded": "n = ReduceL2(x, last)  k = Clip(n, low)  z = Shape(x)  "
    "e = Expand(k, z)  y = Div(x, e)",
    "by hand": "q = Mul(x, x)  a = ReduceSum(q, last)  r = Sqrt(a)  o = Reciprocal(r)  "
    "y = Mul(x, o)",
}


@pytest.mark.parametrize("name", UNIT)
def test_unit_length_is_a_normaliser(name: str) -> None:
    found = explained(UNIT[name])
    length = np.sqrt((wide(X) ** 2).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(found.multiplier, found.seed / length, rtol=1e-6)


def by_halves(found: Walk, a: Array, b: Array, from_a: Array, from_b: Array) -> Array:
    """½ m ∘ b and ½ m ∘ a, mapped back by the matrices the factors came from."""
    return (0.5 * found.seed * b) @ from_a.T + (0.5 * found.seed * a) @ from_b.T


def test_two_projections_share() -> None:
    found = explained("a = MatMul(x, w)  d = MatMul(x, v)  y = Mul(a, d)")
    w, v = wide(TABLE["w"]), wide(TABLE["v"])
    expected = by_halves(found, wide(X) @ w, wide(X) @ v, w, v)
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "cut",
    [
        "a, d = Split<axis=-1, num_outputs=2>(h)  ",
        "a = Slice(h, n0, n4, last)  d = Slice(h, n4, n8, last)  ",
    ],
    ids=["Split", "Slice"],
)
@pytest.mark.parametrize("gate", ["", "Sigmoid", "silu"])
def test_parts_of_one_projection_share(cut: str, gate: str) -> None:
    """a ∘ d, GLU a ∘ σ(d), SwiGLU silu(d) ∘ a: each factor gets half, then its own rule."""
    last = {
        "": "y = Mul(a, d)",
        "Sigmoid": "k = Sigmoid(d)  y = Mul(a, k)",
        "silu": "k = Sigmoid(d)  l = Mul(d, k)  y = Mul(l, a)",
    }[gate]
    found = explained(f"h = MatMul(x, pair)  {cut}{last}")
    pair = wide(TABLE["pair"])
    h = wide(X) @ pair
    a, d = h[..., :4], h[..., 4:]
    sigma = 1 / (1 + np.exp(-d))
    factor = {"": d, "Sigmoid": sigma, "silu": d * sigma}[gate]
    slope = {"": np.ones_like(d), "Sigmoid": (sigma - 0.5) / d, "silu": sigma}[gate]
    expected = by_halves(found, a * slope, factor, pair[:, :4], pair[:, 4:])
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9, atol=1e-12)
    assert found.residual < 1e-12


def test_a_gate_that_also_sees_another_activation_shares() -> None:
    """a ∘ σ(a + d) is no function of a alone."""
    found = explained(
        "a = MatMul(x, w)  d = MatMul(x, v)  h = Add(a, d)  k = Sigmoid(h)  y = Mul(a, k)"
    )
    w, v = wide(TABLE["w"]), wide(TABLE["v"])
    a, h = wide(X) @ w, wide(X) @ (w + v)
    sigma = 1 / (1 + np.exp(-h))
    expected = by_halves(found, a * (sigma - 0.5) / h, sigma, w, w + v)
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9, atol=1e-12)


def test_cp_lrp_sends_nothing_to_the_gate() -> None:
    """Without gates the activated factor is a constant: all of it to the other."""
    body = "a = MatMul(x, w)  d = MatMul(x, v)  k = Sigmoid(d)  l = Mul(d, k)  y = Mul(l, a)"
    found = explained(body, method="cp-lrp")
    d = wide(X) @ wide(TABLE["v"])
    expected = (found.seed * d / (1 + np.exp(-d))) @ wide(TABLE["w"]).T
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9)
    assert found.residual < 1e-12


def test_squeeze_and_excite_is_a_gate_not_a_normaliser() -> None:
    """x ∘ σ(W mean(x)): the statistic was mixed by weights, so it is an activation of its own."""
    body = "p = ReduceMean(x, tokens)  h = MatMul(p, w)  k = Sigmoid(h)  y = Mul(x, k)"
    found = explained(body)
    x, w = wide(X), wide(TABLE["w"])
    h = x.mean(axis=1, keepdims=True) @ w
    sigma = 1 / (1 + np.exp(-h))
    through = (0.5 * found.seed * x).sum(axis=1, keepdims=True) * (sigma - 0.5) / h
    expected = 0.5 * found.seed * sigma + (through @ w.T) / 3
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9, atol=1e-12)
    assert found.residual < 1e-12


def test_scaling_by_a_plain_statistic_is_a_normaliser() -> None:
    found = explained("p = ReduceMean(x, last)  k = Sigmoid(p)  y = Mul(k, x)")
    scale = 1 / (1 + np.exp(-wide(X).mean(axis=-1, keepdims=True)))
    np.testing.assert_allclose(found.multiplier, found.seed * scale, rtol=1e-9)


def test_an_outer_product_with_itself_shares() -> None:
    """x_i x_j pairs different entries: no function of one activation."""
    body = "a = Unsqueeze(x, last)  d = Unsqueeze(x, two0)  y = Mul(a, d)"
    found = run(body, X, {"last": ints(-1), "two0": ints(2)})
    x = wide(X)
    expected = 0.5 * np.einsum("btij,btj->bti", found.seed, x)
    expected += 0.5 * np.einsum("btij,bti->btj", found.seed, x)
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9, atol=1e-12)


def test_a_shifted_copy_is_another_activation() -> None:
    """x ∘ x with the features turned by one: each entry is multiplied by another one."""
    body = "a = Slice(x, n1, n4, last)  d = Slice(x, n0, n1, last)  e = Concat<axis=-1>(a, d)  "
    weights = {"n0": ints(0), "n1": ints(1), "n4": ints(4), "last": ints(-1)}
    found = run(body + "y = Mul(x, e)", X, weights)
    x = wide(X)
    turned = np.roll(x, -1, axis=-1)
    expected = 0.5 * found.seed * turned + np.roll(0.5 * found.seed * x, 1, axis=-1)
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9, atol=1e-12)
