"""What rounding changes is in the ledger."""

from __future__ import annotations

import numpy as np
import pytest
from building import opened, proto, real

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

pytestmark = pytest.mark.quick

X = real(2, 3, 4, low=-4.0, high=4.0)
WEIGHT = real(12, 2, seed=2)


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_the_change_is_in_the_ledger(engine: str) -> None:
    body = "r = Round(x)  f = Flatten(r)  y = MatMul(f, w)"
    explainer = Explainer(opened(proto(body, {"x": X}, {"w": WEIGHT})), engine=engine)
    sample = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors", truncated=False))
    for row, explanation in enumerate(explainer.explain(sample, "1")):
        ledger = explanation.record.ledger
        change = (np.rint(X[row]) - X[row]).ravel() @ WEIGHT[:, 1]
        assert ledger["rounding"] == pytest.approx(change, rel=1e-4)
        assert ledger["content"] == pytest.approx(X[row].ravel() @ WEIGHT[:, 1], rel=1e-4)
        assert abs(ledger["residual_relative"]) < 1e-6


def test_a_graph_that_does_not_round_has_no_such_entry() -> None:
    explainer = Explainer(
        opened(proto("f = Flatten(x)  y = MatMul(f, w)", {"x": X}, {"w": WEIGHT}))
    )
    sample = Sample("x", "tensors", {"x": X}, InputFacts(kind="tensors", truncated=False))
    assert "rounding" not in explainer.explain(sample, "1")[0].record.ledger
