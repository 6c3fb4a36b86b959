"""The same application on many machines: ``serve run palrp_onnx.serving.ray:app models=/models/m``.

Ray Serve starts replicas, sends requests to them, and replaces those that die; each replica is this
application with models of its own. How many there are, and what each needs, is in the config file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs
from starlette.types import ASGIApp

from palrp_onnx.errors import ResourceError, UsageError
from palrp_onnx.serving.app import application
from palrp_onnx.serving.options import ServingOptions, places

try:
    from ray import serve
except ImportError as error:
    raise ResourceError(
        "Ray Serve is not installed", hint='pip install "palrp-onnx[serve]" "ray[serve]"'
    ) from error

#: Options that a command line gives as one text, with commas.
_LISTS = ("models", "methods", "fail_on")


def app(arguments: Mapping[str, Any]) -> serve.Application:
    """The application with the arguments of a command line, or of a config file.

    Args:
        arguments: ``models``: paths, or ``NAME=PATH``, the same on every machine; and further
            fields of :class:`palrp_onnx.serving.ServingOptions`.

    Raises:
        UsageError: There is no model, or no such option.
        InputError: There is no such file.
    """
    options = options_of(arguments)

    def builder() -> ASGIApp:
        return application(options)

    deployment: Any = serve.deployment(serve.ingress(builder)(), name="palrp-onnx")
    bound: serve.Application = deployment.bind()
    return bound


def options_of(arguments: Mapping[str, Any]) -> ServingOptions:
    """The options that arguments name.

    Raises:
        UsageError: There is no model, no such option, or it has another type.
        InputError: There is no such file.
    """
    given = dict(arguments)
    for name in _LISTS:
        if isinstance(given.get(name), str):
            given[name] = given[name].split(",")
    found = places(given.pop("models", ()))
    if unknown := given.keys() - {each.name for each in structs.fields(ServingOptions)}:
        raise UsageError(f"There is no option {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert({**given, "models": found}, ServingOptions, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"An option has another type: {error}") from error
