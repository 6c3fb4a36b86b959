"""Options of services of committed models."""

from __future__ import annotations

from typing import Any

from committed import MODELS

from palrp_onnx.serving import ServingOptions, places


def serving(*models: str, **named: Any) -> ServingOptions:
    """Options for committed models; files are read once."""
    found = places(str(MODELS / name) for name in models or ("reviews-rope",))
    return ServingOptions(models=found, **{"reload": 0, **named})
