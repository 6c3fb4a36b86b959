"""Infinite masks: what is switched off carries nothing, and nothing turns into NaN."""

from __future__ import annotations

import numpy as np
import pytest
from building import Array, floats, real, run

pytestmark = pytest.mark.quick

X = real(2, 3, 4, seed=3)
SCORES = "k = Transpose<perm=[0, 2, 1]>(x)  a = MatMul(x, k)  "
CAUSAL = np.where(np.tri(3, dtype=bool), 0, -np.inf).astype(np.float32)


def finite(mask: Array) -> Array:
    return np.maximum(mask, np.float32(-1e4))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_minus_infinity_is_a_very_negative_number(dtype: str) -> None:
    body = SCORES + "b = Add(a, m)  s = Softmax(b)  y = MatMul(s, x)"
    found = run(body, X, {"m": CAUSAL}, dtype=dtype)
    near = run(body, X, {"m": finite(CAUSAL)}, dtype=dtype)
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(found.content, near.content, rtol=tolerance, atol=tolerance)
    assert all(np.isfinite(amount).all() for amount in found.result.ledger.values())
    assert found.residual < tolerance


def test_a_choice_masks_like_a_sum() -> None:
    chosen = SCORES + "b = Where(c, a, low)  s = Softmax(b)  y = MatMul(s, x)"
    added = SCORES + "b = Add(a, m)  s = Softmax(b)  y = MatMul(s, x)"
    weights = {"c": np.tri(3, dtype=bool), "low": floats(-np.inf)}
    found, other = run(chosen, X, weights), run(added, X, {"m": CAUSAL})
    np.testing.assert_allclose(found.content, other.content, rtol=1e-9)


def test_a_row_that_sees_nothing() -> None:
    """Its softmax is 0/0 in the file; exporters guard it, and the guard sends nothing back."""
    blind = CAUSAL.copy()
    blind[1] = -np.inf
    body = SCORES + "b = Add(a, m)  s = Softmax(b)  n = IsNaN(s)  g = Where(n, zero, s)  "
    found = run(body + "y = MatMul(g, x)", X, {"m": blind, "zero": floats(0)})
    assert not found.y[:, 1].any()
    assert np.isfinite(found.content).all()
    assert found.residual < 1e-12
    silent = found.seed.copy()
    silent[:, 1] = 0
    np.testing.assert_allclose(
        found.content, found.engine.propagate(found.values, silent).content, rtol=1e-12
    )


def test_padding_by_zeros_and_ones() -> None:
    """A 0/1 mask along the sequence scales; masked tokens get nothing."""
    mask = floats(1, 1, 0)[:, None]
    found = run("y = Mul(x, m)", X, {"m": mask})
    assert not found.content[:, 2].any()
    np.testing.assert_allclose(found.content, found.seed * found.y)
    assert found.residual < 1e-12
