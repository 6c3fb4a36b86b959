"""Facts of records that are written by hand."""

from __future__ import annotations

import numpy as np
from building import Array

from palrp_onnx.record import ModelFacts, Relevance, Run

MODEL = ModelFacts(sha256="0" * 64, opset=18, producer="p", nodes=3)
RUN = Run(
    version="0",
    method="pa-lrp",
    params={"positions": "relu"},
    engine="numpy",
    device="cpu",
    dtype="float32",
    providers=[],
    ms={"total": 1.0},
)


def reduced(relevance: Relevance) -> Array:
    """The sinks as one number a unit, of a method whose score is content and these."""
    return np.subtract(relevance.score, relevance.content)
