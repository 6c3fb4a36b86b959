"""The forecast of memory that an explanation takes."""

from __future__ import annotations

import committed

from palrp_onnx.analysis.sizes import usual_shapes
from palrp_onnx.compiler.forecast import Forecaster
from palrp_onnx.prepare import plan_model
from palrp_onnx.relevance.method_parsing import resolve_method


def test_it_grows_with_tokens_where_all_is_kept() -> None:
    planned = plan_model(committed.opened("reviews-rope"), None, resolve_method("pa-lrp"))
    forecast = Forecaster(planned)
    short, long = (
        forecast(usual_shapes(planned.analysis, tokens, samples=1)) for tokens in (64, 1024)
    )
    assert short.apart == long.apart > 0
    assert short.apart < short.bounded <= short.fast < long.fast
    assert long.bounded < long.fast
    more = Forecaster(planned, prepack=True)(usual_shapes(planned.analysis, 64, samples=1))
    assert more.fast > short.fast
