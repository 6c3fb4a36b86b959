"""Masks of every shape and notation are no positions and yield no NaN, wherever the padding is.

One layer of attention over looked-up words, nothing of which depends on places but the mask.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from building import Array, opened, proto, real

from palrp_onnx import Explainer, inspect
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

T, F = 9, 4
PLACE = np.arange(T)
CAUSAL = PLACE[:, None] >= PLACE
#: Which keys a query sees, [T, T].
SEEN = {
    "causal": CAUSAL,
    "window": np.abs(PLACE[:, None] - PLACE) <= 2,
    "causal window": CAUSAL & (PLACE[:, None] - PLACE < 3),
    "blocks": PLACE[:, None] // 3 == PLACE // 3,
    "prefix": CAUSAL | (PLACE < 4),
}
LOW: dict[str, float] = {
    "infinite": -np.inf,
    "lowest": float(np.finfo(np.float32).min),
    "3e38": -3e38,
    "10000": -1e4,
}
#: From visible tokens (without padding) to scores; ``z`` is the operand of the softmax.
SPELLINGS = {
    "added": "m = Where(seen, zero, low)  z = Add(s, m)",
    "subtracted": "far = Neg(low)  m = Where(seen, zero, far)  z = Sub(s, m)",
    "chosen": "z = Where(seen, s, low)",
    "filled": "hidden = Not(seen)  z = Where(hidden, low, s)",
}
PADDING = {"none": slice(0), "right": slice(T - 3, T), "left": slice(0, 3)}
BODY = """x = Gather(words, ids)  q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
    kt = Transpose <perm=[0, 2, 1]> (k)  s = MatMul(q, kt)  SCORES
    p = Softmax <axis=-1> (z)  GUARD  c = MatMul(g, v)  o = MatMul(c, head)
    keep = Unsqueeze(real_mask, last)  kept = Mul(o, keep)  y = ReduceSum <keepdims=0> (kept, one)
"""
SEEN_TEXT = """real_mask = Cast <to=1> (mask)  fed = Cast <to=9> (mask)  keys = Unsqueeze(fed, one)
    both = And(keys, pattern)  seen = Or(both, always)  """
WEIGHTS = {
    "words": real(30, F, seed=1),
    "wq": real(F, F, seed=2),
    "wk": real(F, F, seed=3),
    "wv": real(F, F, seed=4),
    "head": real(F, 3, seed=5),
    "zero": np.array(0, np.float32),
    "one": np.array([1]),
    "last": np.array([-1]),
}


def feeds_of(padding: str) -> dict[str, Array]:
    mask = np.ones((2, T), np.int64)
    mask[1, PADDING[padding]] = 0
    ids = np.random.default_rng(0).integers(2, 30, size=(2, T))
    return {"ids": np.where(mask, ids, 1), "mask": mask}


@lru_cache(maxsize=1)  # of one model, for every padding
def explainers(
    pattern: str, guarded: bool, low: float, spelling: str
) -> tuple[Explainer, Explainer]:
    """In float64 and float32; a query sees itself at least, or its NaN is guarded."""
    guard = "n = IsNaN(p)  g = Where(n, zero, p)" if guarded else "g = Identity(p)"
    text = SEEN_TEXT + BODY.replace("SCORES", SPELLINGS[spelling]).replace("GUARD", guard)
    always = np.zeros((T, T), bool) if guarded else np.eye(T, dtype=bool)
    own = {"pattern": SEEN[pattern], "always": always, "low": np.array(low, np.float32)}
    weights = {**WEIGHTS, **own}
    used = {k: a for k, a in weights.items() if f" {k}" in text or f"({k}" in text}
    model = opened(proto(text, feeds_of("none"), used))
    return Explainer(model, dtype="float64"), Explainer(model)


def check(made: tuple[Explainer, Explainer], padding: str) -> None:
    feeds = feeds_of(padding)
    report = inspect(made[1].model, feeds)
    assert report.explainable and not report.sites and not report.uncertain
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    for explainer, rounding in zip(made, (1e-12, 1e-5), strict=True):
        for row, found in enumerate(explainer.explain(sample, "1")):
            ledger, relevance = found.record.ledger, found.record.relevance
            assert not found.record.sites and ledger["position"] == 0
            assert np.isfinite(list(ledger.values())).all()
            assert abs(ledger["residual_relative"]) < rounding
            assert np.isfinite(relevance.total).all() and np.any(relevance.total)
            assert not np.any(np.array(relevance.total)[feeds["mask"][row] == 0])


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("pattern", SEEN)
def test_masks(pattern: str, low: str, spelling: str, padding: str) -> None:
    """Every query sees itself at least, so that no softmax is over masked scores alone."""
    check(explainers(pattern, False, LOW[low], spelling), padding)


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_queries_that_see_nothing_and_are_guarded(spelling: str, padding: str) -> None:
    check(explainers("causal", True, -np.inf, spelling), padding)
