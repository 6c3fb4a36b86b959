"""Attention that is NaN, before a guard that replaces NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from building import opened, proto, real

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Attribution, InputFacts

pytestmark = pytest.mark.quick

BODY = """
    kt = Transpose<perm=[0,2,1]>(x)
    s = MatMul(x, kt)
    t = Mul(s, scale)
    a = Softmax<axis=-1>(t)
    n = IsNaN(a)
    g = Where(n, zero, a)
    o = MatMul(g, x)
    r = Add(o, x)
    p = ReduceMean<keepdims=0>(r, one)
    y = MatMul(p, w)
"""


def record(scale: float, engine: str) -> Attribution:
    feeds = {"x": real(2, 5, 4)}
    weights: dict[str, Any] = {
        "scale": np.float32(scale),
        "zero": np.float32(0),
        "one": np.array([1]),
        "w": real(4, 3, seed=2),
    }
    model = opened(proto(BODY, feeds, weights, free=(0, 1)))
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    return Explainer(model, engine=engine).explain(sample, "0")[0].record


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_broken_attention_is_named(engine: str) -> None:
    broken = record(np.nan, engine)
    (warning,) = broken.warnings
    assert warning.code == "no-attention"
    assert "layer 0" in warning.message
    assert abs(broken.ledger["residual_relative"]) < 1e-6
    assert np.isfinite(broken.relevance.total).all()
    assert record(0.5, engine).warnings == []
