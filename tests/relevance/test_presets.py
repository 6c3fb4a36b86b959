"""Methods: who takes a share of a product."""

from __future__ import annotations

import numpy as np
import pytest
from building import Walk, real, run, wide

from palrp_onnx.errors import UsageError
from palrp_onnx.relevance.methods import PRESETS, preset

X = real(2, 5, 4, seed=3)
W = real(4, 4)
ATTENTION = """
    q = MatMul(x, w)  k = Transpose<perm=[0, 2, 1]>(q)  a = MatMul(q, k)  s = Softmax(a)
    y = MatMul(s, x)
"""
GATE = "a = MatMul(x, w)  g = Sigmoid(a)  b = MatMul(x, v)  y = Mul(g, b)"
SWIGLU = "a = MatMul(x, w)  g = Sigmoid(a)  c = Mul(a, g)  b = MatMul(x, v)  y = Mul(b, c)"
ROTATED = "h = Mul(x, p)  y = MatMul(h, w)"


def explained(body: str, method: str) -> Walk:
    weights = {"w": W, "v": real(4, 4, seed=9), "p": real(5, 4, seed=5)}
    used = {k: a for k, a in weights.items() if f" {k})" in body}
    return run(body, X, used, method=method)


def softmax_of(found: Walk) -> np.ndarray:
    q = wide(X) @ wide(W)
    e = np.exp(q @ q.swapaxes(1, 2))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def test_cp_lrp_takes_probabilities_for_constants() -> None:
    found = explained(ATTENTION, "cp-lrp")
    expected = softmax_of(found).swapaxes(1, 2) @ found.seed
    np.testing.assert_allclose(found.multiplier, expected, rtol=1e-9)
    assert not found.result.ledger["softmax"].any()


@pytest.mark.parametrize("method", ["pa-lrp", "attnlrp", "pe-only"])
def test_others_give_probabilities_half(method: str) -> None:
    found = explained(ATTENTION, method)
    assert found.result.ledger["softmax"].any()
    direct = 0.5 * softmax_of(found).swapaxes(1, 2) @ found.seed
    assert not np.allclose(found.multiplier, direct)
    assert found.residual < 1e-12


@pytest.mark.parametrize("body", [GATE, SWIGLU])
def test_gates(body: str) -> None:
    """cp-lrp: the ungated branch takes all, m ∘ g; the others share."""
    a = wide(X) @ wide(W)
    g = 1 / (1 + np.exp(-a)) * (a if body == SWIGLU else 1)
    branch = (g * explained(body, "cp-lrp").seed) @ wide(real(4, 4, seed=9)).T
    np.testing.assert_allclose(explained(body, "cp-lrp").multiplier, branch, rtol=1e-9)
    shared = explained(body, "attnlrp")
    np.testing.assert_allclose(shared.content, explained(body, "pa-lrp").content)
    assert not np.allclose(shared.multiplier, branch)


def test_positions_that_multiply() -> None:
    halved, whole = explained(ROTATED, "pa-lrp"), explained(ROTATED, "attnlrp")
    np.testing.assert_allclose(2 * halved.content, whole.content)
    assert halved.result.ledger["position"].any() and not whole.result.ledger["position"].any()
    np.testing.assert_allclose(explained(ROTATED, "pe-only").content, halved.content)
    np.testing.assert_allclose(explained(ROTATED, "cp-lrp").content, whole.content)


@pytest.mark.parametrize("method", PRESETS)
@pytest.mark.parametrize("body", [ATTENTION, GATE, SWIGLU, ROTATED])
def test_every_method_closes_the_ledger(method: str, body: str) -> None:
    assert explained(body, method).residual < 1e-12


def test_unknown_method() -> None:
    with pytest.raises(UsageError, match=r"'lrp'.*pa-lrp") as caught:
        preset("lrp")
    assert caught.value.exit_code == 2
