"""The paper's lemmas, on networks small enough to follow by hand."""

from __future__ import annotations

import numpy as np
import pytest
from building import Array, Walk, ints, real, run, wide

pytestmark = pytest.mark.quick

X, TABLE = real(2, 5, 4, seed=3), real(5, 4, seed=5)
SUMMED = "  y = ReduceSum<keepdims = 0>(o, axis)"
#: Without biases every operation of these conserves relevance by itself.
INPUT_LEVEL = "h = Add(x, p)  u = MatMul(h, v)  r = Relu(u)  o = MatMul(r, w)" + SUMMED
LINEAR_ATTENTION = """
q0 = MatMul(x, a)  q = Mul(q0, p)  k0 = MatMul(x, b)  k1 = Mul(k0, p)
k = Transpose<perm = [0, 2, 1]>(k1)  s = MatMul(q, k)  u = MatMul(x, v)  o = MatMul(s, u)
"""
ALIBI = """
q = MatMul(x, a)  k0 = MatMul(x, b)  k = Transpose<perm = [0, 2, 1]>(k0)  s = MatMul(q, k)
z = Add(s, bias)  m = Add(z, mask)  t = Softmax<axis = -1>(m)
u0 = MatMul(x, v)  u = Add(u0, c)  o = MatMul(t, u)
"""
WEIGHTS = {
    **{name: real(4, 4, seed=k) for k, name in enumerate("abvw", start=7)},
    "p": TABLE,
    "axis": ints(1, 2),
}
STEPS = -np.abs(np.subtract.outer(np.arange(5), np.arange(5))).astype(np.float32) / 2


def sums(found: Walk) -> tuple[Array, Array, Array]:
    """(target, content, position)."""
    ledger = found.result.ledger
    return ledger["target"], ledger["content"], ledger["position"]


def test_3_1_without_positions_conservation_is_broken_by_exactly_their_share() -> None:
    target, content, position = sums(run(INPUT_LEVEL, X, WEIGHTS))
    np.testing.assert_allclose(content + position, target, rtol=1e-12)
    assert (np.abs(position) > 1e-3).all()
    ignored = run(INPUT_LEVEL, X, WEIGHTS, method="attnlrp")
    np.testing.assert_allclose(sums(ignored)[1], target - position, rtol=1e-12)


def test_3_2_content_and_the_sinks_of_every_layer_conserve() -> None:
    ours = run(LINEAR_ATTENTION + SUMMED, X, WEIGHTS)
    target, content, position = sums(ours)
    np.testing.assert_allclose(content + position, target, rtol=1e-12)
    caught = sum(sink.relevance.sum(axis=(1, 2)) for sink in ours.result.sinks)
    np.testing.assert_allclose(caught, position, rtol=1e-12)
    assert (np.abs(position) > 1e-3).all()
    base = run(LINEAR_ATTENTION + SUMMED, X, WEIGHTS, method="attnlrp")
    np.testing.assert_allclose(sums(base)[1], target, rtol=1e-12)


def alibi(values: Array, method: str) -> Walk:
    """Causal attention by position alone: queries and keys are zero; W_V is ``values``."""
    nothing = np.zeros((4, 4), np.float32)
    weights = {**WEIGHTS, "a": nothing, "b": nothing, "v": values, "c": np.ones(4, np.float32)}
    hidden = np.triu(np.full((5, 5), -np.inf, np.float32), 1)
    bias = {"bias": STEPS, "mask": hidden}
    return run(ALIBI + SUMMED, X, {**weights, **bias}, method=method)


@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp"])
def test_3_3_where_positions_alone_decide_existing_rules_explain_nothing(method: str) -> None:
    """Values are an affine map with weights of zero, as in the proof."""
    found = alibi(np.zeros((4, 4), np.float32), method)
    assert not found.content.any()
    assert (found.result.ledger["target"] != 0).all()


def test_3_3_the_relevance_of_scores_goes_to_positions_where_queries_and_keys_are_zero() -> None:
    values = real(4, 4, seed=9)
    ours, base = alibi(values, "pa-lrp"), alibi(values, "cp-lrp")
    # With weights alone in front of it, the value path is all that content gets: half of CP-LRP's.
    np.testing.assert_allclose(ours.content, base.content / 2, rtol=1e-9)
    query, key = (sink.relevance[..., 0] for sink in ours.result.sinks)
    allowed = np.where(np.tri(5, dtype=bool), wide(STEPS), -np.inf)
    scores = np.exp(allowed - allowed.max(axis=1, keepdims=True))
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    value = (wide(X) @ wide(values) + 1).sum(axis=2)[:, None, :] / 2
    seed = ours.seed[:, None, None]
    m = probabilities * (value - (probabilities * value).sum(axis=2, keepdims=True)) * seed
    relevance = wide(STEPS) * m
    np.testing.assert_allclose(query, relevance.sum(axis=2) / 2, rtol=1e-9)
    np.testing.assert_allclose(key, relevance.sum(axis=1) / 2, rtol=1e-9)
    assert (np.abs(query).sum(axis=1) > 1e-3).all()
