"""Branches, loops and sequences are written out: the same relevance as without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from building import ints, opened, proto, real
from numpy.typing import NDArray

from palrp_onnx import Explainer
from palrp_onnx.errors import ModelError, PalrpError, UnsupportedError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.branches import has_decisions
from palrp_onnx.model.open import Model
from palrp_onnx.record import Attribution, InputFacts

Array = NDArray[Any]

X = real(1, 4, 3)
WEIGHTS = {
    "a": real(3, seed=2, low=0.2, high=0.9),
    "W": real(3, 2, seed=3),
    "V": real(3, 3, seed=4),
    "h0": np.zeros((1, 3), np.float32),
    "bound": np.float32(1.5),
    "true": np.array(True),
    "minus": np.array(-1),
    "i0": np.array(0),
    "i1": np.array(1),
    "i2": np.array(2),
    "i3": np.array(3),
    "v1": ints(1),
    "v2": ints(2),
    "parts": ints(1, 3),
    "huge": np.array(2**40),
}


def explained(model: Model, feeds: dict[str, Array], **options: Any) -> tuple[Attribution, Array]:
    """The record of one sample, and the relevance of ``x``."""
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    (found,) = Explainer(model, **options).explain(sample, "index:0")
    assert abs(found.record.residual) < 1e-5
    return found.record, np.asarray(found.tensors["content"])


def same(written: str, straight: str, x: Array = X, *, changed: Sequence[str] = ()) -> None:
    """Two ways to write one computation have the same relevance, in both engines."""
    plain = opened(proto(straight, {"x": x}, WEIGHTS, free=(0, 1)))
    _, expected = explained(plain, {"x": x}, engine="numpy", dtype="float64")
    model = opened(proto(written, {"x": x}, WEIGHTS, free=(0, 1)))
    for options in ({}, {"engine": "numpy"}, {"engine": "numpy", "dtype": "float64"}):
        record, found = explained(model, {"x": x}, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert set(changed) <= set(record.fidelity.rewritten)  # type: ignore[union-attr]


# --- the recurrence h = a h + x V, four rounds ----------------------------------------------------
STEP = "ah = Mul (a, h)  p = MatMul (e, V)  g = Add (ah, p)"
ROWS = "".join(
    f"e{k} = Gather <axis = 1> (x, i{k})  p{k} = MatMul (e{k}, V)  ah{k} = Mul (a, h{k})"
    f"  h{k + 1} = Add (ah{k}, p{k})\n"
    for k in range(4)
)
LAST = ROWS + "y = MatMul (h4, W)"
LENGTH = "s = Shape <start = 1, end = 2> (x)  n = Squeeze (s)\n"
ENTRY = f"c2 = Identity (c)  e = Gather <axis = 1> (x, i)  {STEP}"


def loop(count: str, condition: str, start: str, body: str, result: str = "hn") -> str:
    return f"{result} = Loop <body = b (int64 i, bool c, float[1,3] h) => (bool c2, float[1,3] g) {{ {body} }}> ({count}, {condition}, {start})\n"


@pytest.mark.parametrize("count", ["four", "n"])
def test_a_loop_is_its_rounds(count: str) -> None:
    four = "four = Constant <value_int = 4> ()\n"
    head = four if count == "four" else LENGTH
    same(head + loop(count, "", "h0", ENTRY) + "y = MatMul (hn, W)", LAST, changed=["Loop"])


def test_a_loop_ends_by_its_condition() -> None:
    """While the first entry of the state is below a bound, which 3 rounds reach."""
    body = f"e = Gather <axis = 1> (x, i)  {STEP}  k = Add (i, i1)  c2 = Less (k, i3)"
    three = LAST.replace("y = MatMul (h4", "y = MatMul (h3")
    same(loop("", "true", "h0", body) + "y = MatMul (hn, W)", three, changed=["Loop"])
