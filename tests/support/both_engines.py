"""Both engines explain a model alike."""

from __future__ import annotations

import numpy as np

from palrp_onnx import Explainer, Model
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.method import Method
from palrp_onnx.types import Feeds


def check_engines(model: Model, feeds: Feeds, asked: Method | str) -> None:
    """Parameters, relevance and closed ledgers of both are the same."""
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors"))
    numpy, compiled = (
        Explainer(model, engine=engine, method=asked).explain(sample, "1")
        for engine in ("numpy", "onnxruntime")
    )
    for ours, reference in zip(compiled, numpy, strict=True):
        assert ours.record.run.params == reference.record.run.params
        for key, array in reference.tensors.items():
            scale = max(np.abs(np.asarray(array, np.float64)).max(), 1e-6)
            np.testing.assert_allclose(ours.tensors[key], array, atol=1e-4 * scale, rtol=0)
        assert abs(ours.record.ledger["residual_relative"]) < 1e-5
