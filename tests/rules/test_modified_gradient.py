"""GIM against the derivative of a surrogate, whose frozen parts are the values at the input."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from both_engines import check_engines
from building import Array, Walk, floats, ints, opened, proto, real, run, walk, wide

from palrp_onnx import Explainer
from palrp_onnx.errors import PalrpError, UnsupportedError, UsageError
from palrp_onnx.relevance.method_parsing import method

pytestmark = pytest.mark.quick

#: RMSNorm, attention with a mask and positions that multiply, SwiGLU and GELU, in many operations.
BODY = """
    n0 = Mul(x, x)  n1 = ReduceMean<keepdims = 1>(n0, last)  n2 = Sqrt(n1)  h = Div(x, n2)
    q0 = MatMul(h, wq)  q = Mul(q0, p)  k0 = MatMul(h, wk)  k = Transpose<perm = [0, 2, 1]>(k0)
    z0 = MatMul(q, k)  z = Add(z0, mask)  s = Softmax<axis = -1>(z)  v = MatMul(h, wv)
    o = MatMul(s, v)  r = Add(x, o)
    a = MatMul(r, wa)  g = Sigmoid(a)  c = Mul(a, g)  b = MatMul(r, wb)  u = Mul(c, b)
    e = MatMul(u, we)  e0 = Div(e, root)  e1 = Erf(e0)  e2 = Add(e1, one)  e3 = Mul(e, e2)
    y = Mul(e3, half)
"""
WEIGHTS: Mapping[str, Array] = {
    **{name: real(4, 4, seed=k) for k, name in enumerate(("wq", "wk", "wv", "wa", "wb", "we"), 20)},
    "p": np.sin(np.arange(20.0, dtype=np.float32).reshape(5, 4)) + 0.1,
    "mask": np.triu(np.full((5, 5), -np.inf, np.float32), 1),
    "last": ints(-1),
    "root": floats(math.sqrt(2.0)),
    "one": floats(1.0),
    "half": floats(0.5),
}
X = real(2, 5, 4, seed=3)


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def surrogate(start: Array, temperature: float, halved: bool) -> tuple[Array, object]:
    """y at ``start``, and a function of (x, p) with GIM's derivative there.

    Norms are constants; a product a b is ½ (a b₀ + a₀ b); the softmax is linear, with the Jacobian
    of a softmax of temperature τ. Positions p take half of q p if ``halved``, else none.
    """
    w = {name: wide(array) for name, array in WEIGHTS.items()}
    norm = np.sqrt((start * start).mean(axis=-1, keepdims=True))

    def mean(a: Array, b: Array, a0: Array, b0: Array, product: object) -> Array:
        return (product(a, b0) + product(a0, b)) / 2  # type: ignore[operator]

    def through(x: Array, p: Array, at: dict[str, Array] | None) -> dict[str, Array]:
        f: dict[str, Array] = {}
        zero = f if at is None else at
        h = x / norm
        f["q0"], f["k"], f["v"] = (h @ w[name] for name in ("wq", "wk", "wv"))
        if halved:
            f["q"] = mean(f["q0"], p, zero["q0"], w["p"], np.multiply)
        else:
            f["q"] = f["q0"] * w["p"]
        f["z"] = mean(f["q"], f["k"].T, zero["q"], zero["k"].T, np.matmul)
        if at is None:
            f["s"] = softmax(f["z"] + w["mask"])
        else:
            t = softmax((at["z"] + w["mask"]) / temperature)
            moved = f["z"] - at["z"]
            f["s"] = at["s"] + t * (moved - (t * moved).sum(axis=-1, keepdims=True))
        f["o"] = mean(f["s"], f["v"], zero["s"], zero["v"], np.matmul)
        r = x + f["o"]
        a, f["b"] = r @ w["wa"], r @ w["wb"]
        f["c"] = a / (1 + np.exp(-a))
        f["u"] = mean(f["c"], f["b"], zero["c"], zero["b"], np.multiply)
        e = f["u"] @ w["we"]
        f["y"] = e * (1 + np.vectorize(math.erf)(e / math.sqrt(2))) / 2
        return f

    at = through(start, w["p"], None)
    return at["y"], lambda x, p: through(x, p, at)["y"]


def slopes(function: object, at: Array, seed: Array) -> Array:
    """Central differences of fourth order of Σ seed ∘ y."""
    result, step = np.empty(at.shape), 2.0**-9
    for place in np.ndindex(*at.shape):
        rise = 0.0
        for steps, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
            moved = at.copy()
            moved[place] += steps * step
            rise += weight * (function(moved) * seed).sum()  # type: ignore[operator]
        result[place] = rise / (12.0 * step)
    return result


def walked(asked: str) -> Walk:
    return run(BODY, X, WEIGHTS, method=asked)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("name", ["gim", "pa-gim"])
def test_multipliers_are_the_modified_gradient(name: str, temperature: float) -> None:
    found = walked(f"{name}:temperature={temperature}")
    position = wide(WEIGHTS["p"])
    for k, (x, seed) in enumerate(zip(wide(X), found.seed, strict=True)):
        y, function = surrogate(x, temperature, halved=name == "pa-gim")
        # The Erf of the runtime has single precision in its double.
        np.testing.assert_allclose(found.y[k], y, atol=1e-6)
        expected = slopes(lambda moved, f=function: f(moved, position), x, seed)
        np.testing.assert_allclose(found.multiplier[k], expected, rtol=1e-4, atol=1e-5)
        sink = slopes(lambda moved, f=function, at=x: f(at, moved), position, seed)
        ledger = found.result.ledger["position"][k]
        np.testing.assert_allclose(ledger, (position * sink).sum(), rtol=1e-4, atol=1e-5)
    assert found.residual < 1e-10
    assert (np.abs(found.result.ledger["position"]) > 1e-3).all() == (name == "pa-gim")


def test_a_softmax_of_the_output_keeps_its_derivative() -> None:
    body = "a = MatMul(x, w)  y = Softmax<axis = -1>(a)"
    found = run(body, X[:, 0], {"w": WEIGHTS["wq"]}, method="gim:temperature=4")
    y = found.y
    expected = y * (found.seed - (y * found.seed).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(found.multiplier, expected @ wide(WEIGHTS["wq"]).T, rtol=1e-9)


def test_rows_without_any_key_stay_finite() -> None:
    mask = np.array(WEIGHTS["mask"])
    mask[2] = -np.inf
    body = """
        k = Transpose<perm = [0, 2, 1]>(x)  z0 = MatMul(x, k)  z = Add(z0, mask)
        s0 = Softmax<axis = -1>(z)  t = IsNaN(s0)  s = Where(t, zero, s0)  y = MatMul(s, x)
    """
    found = run(body, X, {"mask": mask, "zero": floats(0.0)}, method="gim")
    assert np.isfinite(found.content).all()
    assert found.residual < 1e-12


# --- the baseline token ---------------------------------------------------------------------------
TABLE = real(6, 4, seed=40)
IDS = {"ids": ints([0, 1, 2, 3, 5], [4, 4, 3, 1, 0])}
LOOKED_UP = "x = Gather(table, ids)" + BODY


@pytest.mark.parametrize("name", ["gim", "pa-gim"])
def test_content_is_measured_from_the_baseline_token(name: str) -> None:
    model = opened(proto(LOOKED_UP, IDS, {**WEIGHTS, "table": TABLE}))
    zero = walk(model, IDS, method=name, output="y")
    found = walk(model, IDS, method=f"{name}:baseline=2", output="y")
    x = wide(TABLE)[IDS["ids"]]
    expected = zero.result.content * (x - wide(TABLE)[2]) / x
    np.testing.assert_allclose(found.result.content, expected, rtol=1e-9, atol=1e-12)
    assert not found.result.content[0, 2].any()
    assert found.residual < 1e-10
    taken = zero.result.ledger["content"] - found.result.ledger["content"]
    rest = found.result.ledger["other"] - zero.result.ledger["other"]
    np.testing.assert_allclose(taken, rest, rtol=1e-9)


@pytest.mark.parametrize("asked", ["gim:baseline=2", "pa-gim:baseline=0,temperature=3"])
def test_both_engines_agree(asked: str) -> None:
    body = LOOKED_UP.replace("y = Mul(e3, half)", "f = Mul(e3, half)") + (
        "  y = ReduceMean<keepdims = 0>(f, axis)"
    )
    model = opened(proto(body, IDS, {**WEIGHTS, "table": TABLE, "axis": ints(1)}))
    check_engines(model, IDS, asked)


@pytest.mark.parametrize(
    ("body", "feeds", "baseline", "kind", "problem"),
    [
        (LOOKED_UP, IDS, "6", UsageError, "baseline = 6 is no token of the model"),
        (LOOKED_UP, IDS, "1.5", UsageError, "baseline = 1.5 is no token"),
        (LOOKED_UP, IDS, "-0.5", UsageError, "baseline = -0.5 is no token"),
        (BODY, {"x": X}, "2", UnsupportedError, "no ids of tokens"),
    ],
)
def test_what_is_no_baseline(
    body: str, feeds: Mapping[str, Array], baseline: str, kind: type[PalrpError], problem: str
) -> None:
    weights = {**WEIGHTS, "table": TABLE} if feeds is IDS else WEIGHTS
    model = opened(proto(body, feeds, weights))
    with pytest.raises(kind, match=problem):
        Explainer(model, method=method(f"gim:baseline={baseline}"), engine="numpy").engine(feeds)
