"""Sums over attention scores, taken from the products on either side of the softmax."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from building import Array, floats, real, run
from committed import FILES, opened, sample

from palrp_onnx import Explainer
from palrp_onnx.engines import numpy
from palrp_onnx.relevance.score_sums import find_score_sums
from palrp_onnx.relevance.target_parsing import parse_target
from palrp_onnx.relevance.walk import walk

pytestmark = pytest.mark.quick

X = real(2, 3, 4, seed=3)
CAUSAL = np.where(np.tri(3, dtype=bool), 0, -np.inf).astype(np.float32)
BLIND = np.where(np.eye(3, dtype=bool)[1][:, None], -np.inf, CAUSAL).astype(np.float32)
WEIGHTS: dict[str, Array] = {
    "W": real(4, 4, seed=5),
    "m": CAUSAL,
    "blind": BLIND,
    "low": floats(-np.inf),
    "zero": floats(0),
    "two": floats(2),
    "c": np.tri(3, dtype=bool),
    "bias": real(3, 3, seed=6),
}
QK = "q = MatMul(x, W)  k = Transpose<perm=[0, 2, 1]>(x)  a = MatMul(q, k)  "
PLAIN = QK + "s = Softmax(a)  y = MatMul(s, x)"
#: Name → (nodes, sums found above, sums found below).
GRAPHS = {
    "plain": (PLAIN, 1, 1),
    "masked": (QK + "b = Add(a, m)  s = Softmax(b)  y = MatMul(s, x)", 1, 1),
    "chosen": (QK + "b = Where(c, a, low)  s = Softmax(b)  y = MatMul(s, x)", 1, 1),
    "scaled": (QK + "d = Div(a, two)  b = Mul(d, two)  s = Softmax(b)  y = MatMul(s, x)", 1, 1),
    "cast": (QK + "s = Softmax(a)  t = Cast<to=1>(s)  u = Identity(t)  y = MatMul(u, x)", 1, 1),
    "guarded": (
        QK + "b = Add(a, blind)  s = Softmax(b)  n = IsNaN(s)  g = Where(n, zero, s)  "
        "y = MatMul(g, x)",
        1,
        1,
    ),
    "a bias of the scores": (QK + "b = Add(a, bias)  s = Softmax(b)  y = MatMul(s, x)", 1, 0),
    "scores read twice": (QK + "s = Softmax(a)  z = MatMul(s, x)  w = MatMul(a, x)  "
    "y = Add(z, w)", 1, 0),
    "probabilities read twice": (QK + "s = Softmax(a)  z = MatMul(s, x)  w = MatMul(s, q)  "
    "y = Add(z, w)", 0, 0),
    "over queries": (QK + "s = Softmax<axis=1>(a)  y = MatMul(s, x)", 0, 0),
    "second operand": (QK + "s = Softmax(a)  y = MatMul(k, s)", 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_sums_are_those_of_the_scores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, above, below = GRAPHS[name]
    used = {k: v for k, v in WEIGHTS.items() if f" {k}" in body or f"({k}" in body}
    scores = run(body, X, used, dtype="float64")
    found = find_score_sums(scores.planned.plan)
    assert (len(found.above), len(found.below)) == (above, below)
    monkeypatch.setattr(numpy, "walk", partial(walk, by_products=True))
    sums = run(body, X, used, dtype="float64")
    np.testing.assert_allclose(sums.content, scores.content, rtol=1e-12, atol=1e-13)
    for entry, amount in scores.result.ledger.items():
        np.testing.assert_allclose(sums.result.ledger[entry], amount, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["pa-lrp", "attnlrp", "cp-lrp", "pa-lrp-kept:kept=1"])
@pytest.mark.parametrize("name", FILES)
def test_of_every_model(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, target = sample(name), parse_target("token:-1:3" if name in ("gpt2", "llama") else "0")
    ways = []
    for by_products in (False, True):
        monkeypatch.setattr(numpy, "walk", partial(walk, by_products=by_products))
        explainer = Explainer(opened(name), dtype="float64", method=method)
        ways.append(explainer.engine(given.feeds).explain(given.feeds, target))
    scores, sums = ways
    largest = np.abs(scores.maps.content).max()
    assert np.abs(sums.maps.content - scores.maps.content).max() <= 1e-10 * largest
    whole = sum(np.abs(v) for k, v in scores.ledger.items() if "residual" not in k)
    for entry, amount in scores.ledger.items():
        if entry != "residual_relative":
            assert (np.abs(sums.ledger[entry] - amount) <= 1e-10 * whole).all()
