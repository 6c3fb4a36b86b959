"""Rules of the lossless softmax, derived a second time in float64."""

from __future__ import annotations

import numpy as np
import pytest
from building import Array, Walk, floats, ints, opened, proto, real, run, wide
from hypothesis import given, settings
from hypothesis import strategies as st

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.method_parsing import method

SUMMED = "  y = ReduceSum<keepdims = 0>(o, axis)"
SCORES = """
q = MatMul(x, a)  k0 = MatMul(x, b)  k = Transpose<perm = [0, 2, 1]>(k0)  z = MatMul(q, k)
"""
BODIES = {
    "plain": SCORES + "s = Softmax<axis = -1>(z)  u = MatMul(x, v)  o = MatMul(s, u)",
    "letters": SCORES
    + 's = Softmax<axis = -1>(z)  u = MatMul(x, v)  o = Einsum<equation = "bij,bjd->bid">(s, u)',
    "transposed": """
        q = MatMul(x, a)  k0 = MatMul(x, b)  k = Transpose<perm = [0, 2, 1]>(k0)
        z = MatMul(q, k)  s = Softmax<axis = -1>(z)  u0 = MatMul(x, v)
        u = Transpose<perm = [0, 2, 1]>(u0)  st = Transpose<perm = [0, 2, 1]>(s)
        o0 = MatMul(u, st)  o = Transpose<perm = [0, 2, 1]>(o0)
    """,
}
X = real(2, 5, 4, seed=3)
WEIGHTS = {
    **{name: real(4, 4, seed=k) for k, name in enumerate("abv", start=7)},
    "axis": ints(1, 2),
    "mask": np.triu(np.full((5, 5), -np.inf, np.float32), 1),
}


def expected(x: Array, seed: Array, share: float | None, mask: Array | float = 0.0) -> Array:
    """Relevance of ``x`` [T, 4] when s = c + J z, c and J constants, and o = c V + (J z) V.

    ``None`` is the adaptive share: with k and l what the two terms are worth to each query,
    ½ |k + l| / (|k| + |l|).
    """
    a, b, v = (wide(WEIGHTS[name]) for name in "abv")
    q, k, u = x @ a, x @ b, x @ v
    z = q @ k.T
    powers = np.exp(z + mask - (z + mask).max(axis=1, keepdims=True))
    s = powers / powers.sum(axis=1, keepdims=True)
    jacobian = np.einsum("ij,jk->ijk", s, np.eye(len(x))) - np.einsum("ij,ik->ijk", s, s)
    linear = np.einsum("ijk,ik->ij", jacobian, z)
    m = np.full(u.shape, seed)
    lam = np.full((len(x), 1), share, float)
    if share is None:
        k_, l_ = ((part @ u * m).sum(axis=1, keepdims=True) for part in (s - linear, linear))
        lam = abs(k_ + l_) / (abs(k_) + abs(l_)) / 2
        assert lam.min() < 0.45 and lam.max() <= 0.5 + 1e-12
    from_values = u * ((s - lam * linear).T @ m)
    of_scores = np.einsum("id,jd,ijk->ik", lam * m, u, jacobian)
    relevance = z * of_scores
    from_q = q * (of_scores @ k) / 2
    from_k = k * (of_scores.T @ q) / 2
    np.testing.assert_allclose(from_q.sum() + from_k.sum(), relevance.sum(), rtol=1e-9)

    def through(weights: Array, whole: Array, shares: Array) -> Array:
        """An ε → 0 linear layer: x ∘ (R / y) Wᵀ."""
        return x * ((shares / whole) @ weights.T)

    return through(v, u, from_values) + through(a, q, from_q) + through(b, k, from_k)


def of_share(share: float | None) -> Method:
    """The method of this share of the scores; adaptive where there is none."""
    return method("pa-lrp-adaptive") if share is None else method("pa-lrp-kept").having(kept=share)


every_share = pytest.mark.parametrize("share", [0.0, 0.5, 1.0, None])


@every_share
@pytest.mark.parametrize("name", ["plain", "letters"])
def test_the_linear_part_alone_is_shared(name: str, share: float | None) -> None:
    found = run(BODIES[name] + SUMMED, X, WEIGHTS, method=of_share(share))
    for x, seed, content in zip(wide(X), found.seed, found.content, strict=True):
        np.testing.assert_allclose(content, expected(x, seed, share), rtol=1e-9, atol=1e-12)
    assert_nothing_lost(found)


@every_share
def test_what_is_masked_takes_no_part(share: float | None) -> None:
    body = BODIES["plain"].replace("s = Softmax<axis = -1>(z)", "n = Add(z, mask)  s = Softmax(n)")
    found = run(body + SUMMED, X, WEIGHTS, method=of_share(share))
    mask = wide(WEIGHTS["mask"])
    for x, seed, content in zip(wide(X), found.seed, found.content, strict=True):
        np.testing.assert_allclose(content, expected(x, seed, share, mask), rtol=1e-9, atol=1e-12)


def assert_nothing_lost(found: Walk) -> None:
    ledger = found.result.ledger
    np.testing.assert_allclose(ledger["softmax"], 0.0, atol=1e-12)
    np.testing.assert_allclose(ledger["content"], ledger["target"], rtol=1e-9)


def test_no_share_is_cp_lrp() -> None:
    ours = run(BODIES["plain"] + SUMMED, X, WEIGHTS, method="pa-lrp-kept:kept=0")
    theirs = run(BODIES["plain"] + SUMMED, X, WEIGHTS, method="cp-lrp")
    np.testing.assert_allclose(ours.content, theirs.content, rtol=1e-12)


METHODS = ("pa-lrp-kept", "pa-lrp-adaptive")


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 8.0), seed=st.integers(0, 1000))
def test_all_of_attention_is_conserved(method: str, scale: float, seed: int) -> None:
    """Whether attention is nearly uniform or nearly one-hot."""
    weights = {**WEIGHTS, "a": scale * real(4, 4, seed=seed)}
    found = run(BODIES["plain"] + SUMMED, X, weights, method=method)
    ledger = found.result.ledger
    entries = np.abs(found.content).sum(axis=(1, 2))
    np.testing.assert_array_less(np.abs(ledger["content"] - ledger["target"]), 1e-9 * entries)


def test_probabilities_read_by_something_else_lose_their_constant_as_usual() -> None:
    """A mean of attention is no product with values: nobody would take the constant part."""
    body = BODIES["plain"] + "  r = ReduceMean<keepdims = 1>(s, last)  o2 = Add(o, r)"
    found = run(
        body + "  y = ReduceSum<keepdims = 0>(o2, axis)",
        X,
        {**WEIGHTS, "last": ints(-1)},
        method="pa-lrp-kept",
    )
    assert found.residual < 1e-12
    assert (np.abs(found.result.ledger["softmax"]) > 1e-6).all()


def test_probabilities_in_another_order_are_left_to_the_usual_rule() -> None:
    found = run(BODIES["transposed"] + SUMMED, X, WEIGHTS, method="pa-lrp-kept")
    usual = run(BODIES["transposed"] + SUMMED, X, WEIGHTS, method="pa-lrp")
    np.testing.assert_allclose(found.content, usual.content, rtol=1e-12)
    assert found.residual < 1e-12


@pytest.mark.parametrize("name", ["plain", "letters"])
@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_both_engines_agree(name: str, one: bool, method: str) -> None:
    """``one``: relevance comes from one row, which is then all that is computed."""
    if one:
        end = "  r = Gather<axis = 1>(o, first)  y = ReduceSum<keepdims = 0>(r, last)"
    else:
        end = SUMMED
    weights = {**WEIGHTS, "first": np.array(2), "last": ints(-1), "two": floats(2.0)}
    body = BODIES[name] + end.replace("  y =", "  y0 =") + "  y = Unsqueeze(y0, last)"
    model = opened(proto(body, {"x": X}, weights))
    facts = InputFacts(kind="tensors", truncated=False)
    sample = Sample(id="x", kind="tensors", feeds={"x": X}, facts=facts)
    maps = [
        [e.record for e in Explainer(model, method=method, engine=engine).explain(sample)]
        for engine in ("numpy", "onnxruntime")
    ]
    for walked, compiled in zip(*maps, strict=True):
        np.testing.assert_allclose(
            compiled.relevance.total, walked.relevance.total, rtol=1e-4, atol=1e-4
        )
        assert abs(compiled.ledger["softmax"]) < 1e-4
        assert abs(compiled.ledger["residual_relative"]) < 1e-5
