"""Models as a service, each with its explanation beside its outputs; needs ``palrp-onnx[serve]``.

>>> from palrp_onnx.serving import ServingOptions, application, places
>>> options = ServingOptions(models=places(["models/reviews-rope"]))
>>> app = application(options)  # for uvicorn, or any other ASGI server
"""

from __future__ import annotations

from palrp_onnx.errors import ResourceError

try:
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
except ImportError as error:
    raise ResourceError(
        "What serves models is not installed", hint='pip install "palrp-onnx[serve]"'
    ) from error

from palrp_onnx.serving.app import application
from palrp_onnx.serving.options import Place, ServingOptions, places

__all__ = ["Place", "ServingOptions", "application", "places"]
