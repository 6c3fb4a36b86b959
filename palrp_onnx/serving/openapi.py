"""The interface as an OpenAPI document, and as a page that loads nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from palrp_onnx.record import Attribution
from palrp_onnx.serving.answers import JSON, PAGE, PICTURE
from palrp_onnx.serving.registry import Registry
from palrp_onnx.serving.tensors import InferRequest
from palrp_onnx.serving.v1 import Instance, V1Parameters, V1Request
from palrp_onnx.version import own_version

_REF = "#/components/schemas/{name}"
#: Path, method and meaning of every operation; those with a body name its schema.
_OPERATIONS: tuple[tuple[str, str, str, str | None], ...] = (
    ("/v2", "get", "The server", None),
    ("/v2/health/live", "get", "Whether the process answers", None),
    ("/v2/health/ready", "get", "Whether all models are open", None),
    ("/v2/repository/index", "get", "All models, with their versions", None),
    ("/v2/models/{name}", "get", "Inputs, outputs, methods and labels of a model", None),
    ("/v2/models/{name}/ready", "get", "Whether a model is open", None),
    ("/v2/models/{name}/infer", "post", "The model's own outputs", "InferRequest"),
    ("/v2/models/{name}/explain", "post", "Maps of relevance", "InferRequest"),
    ("/v1/models", "get", "Names of all models", None),
    ("/v1/models/{name}", "get", "Whether a model is open", None),
    ("/v1/models/{name}:predict", "post", "The model's own outputs", "V1Request"),
    ("/v1/models/{name}:explain", "post", "Records", "V1Request"),
    ("/metrics", "get", "Numbers for Prometheus", None),
)
_ERRORS = {
    "400": "The request cannot be used",
    "401": "A key is needed",
    "404": "There is no such model or version",
    "406": "The accepted forms are not offered",
    "408": "The body did not arrive in time",
    "413": "The request is larger than a limit",
    "422": "The model cannot be explained as asked",
    "429": "Too many rows wait; Retry-After says when to ask again",
    "500": "A check of --fail-on failed, or an unexpected error",
    "503": "Not ready, or memory ran out",
    "504": "No answer before the deadline",
}


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    _, schemas = msgspec.json.schema_components(
        [InferRequest, V1Request, V1Parameters, Instance, Attribution], ref_template=_REF
    )
    paths: dict[str, dict[str, Any]] = {}
    for path, method, summary, body in _OPERATIONS:
        paths.setdefault(path, {})[method] = _operation(path, summary, body)
    return {
        "openapi": "3.1.0",
        "info": {"title": "palrp-onnx", "version": own_version()},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, summary: str, body: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": summary,
        "operationId": path.strip("/").replace("/", "_").replace(":", "_").translate(_BARE) or "v2",
        "responses": {"200": {"description": "The answer", "content": _content(path)}},
    }
    if "{name}" in path:
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        found["parameters"] = [name]
        found["responses"]["404"] = {"description": _ERRORS["404"]}
    if body is not None:
        schema = {"$ref": _REF.format(name=body)}
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
        found["responses"] |= {status: {"description": text} for status, text in _ERRORS.items()}
    return found


_BARE = str.maketrans("", "", "{}")


def _content(path: str) -> dict[str, Any]:
    if path == "/metrics":
        return {"text/plain": {}}
    return {JSON: {}, PAGE: {}, PICTURE: {}} if path.endswith("explain") else {JSON: {}}


def page(registry: Registry) -> str:
    """The page: the models, and the operations with an example."""
    environment = Environment(
        loader=PackageLoader("palrp_onnx.serving"), autoescape=True, undefined=StrictUndefined
    )
    models = [
        {"name": lane.name, "version": lane.served.version, **lane.served.metadata()}
        for lane in registry
    ]
    return environment.get_template("page.html.j2").render(
        models=models, operations=_OPERATIONS, errors=_ERRORS, version=own_version()
    )
