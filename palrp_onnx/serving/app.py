"""The application: routes, and how a request is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from palrp_onnx.explanation import Explanation
from palrp_onnx.limits import Limit, check_records
from palrp_onnx.serving import v1, v2
from palrp_onnx.serving.answers import JSON, PAGE, drawn, form_of, json_answer, refused
from palrp_onnx.serving.deadlines import body_of, until, within
from palrp_onnx.serving.door import Door
from palrp_onnx.serving.guard import Guard, notes_of, read_keys
from palrp_onnx.serving.lane import Lane, Ticket
from palrp_onnx.serving.openapi import document, page
from palrp_onnx.serving.options import ServingOptions
from palrp_onnx.serving.refusals import ClientGone, Refusal, refusal_of
from palrp_onnx.serving.registry import Registry
from palrp_onnx.serving.served import Asked, Served
from palrp_onnx.serving.tensors import InferRequest, decode, encode
from palrp_onnx.types import Array
from palrp_onnx.version import own_version

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]
_LENGTH = "inference-header-content-length"
_EXTENSIONS = ["binary_tensor_data", "model_repository(index)", "explain"]


def application(options: ServingOptions, opened: Mapping[str, Served] | None = None) -> ASGIApp:
    """The application for any ASGI server.

    Args:
        options: What is served, and how.
        opened: Models that are open already, by their names; others are opened when the
            application starts.

    Raises:
        InputError: The file of keys cannot be read.
        ValueError: One of ``options.fail_on`` is no check.
    """
    registry = Registry(options, opened)
    service = Service(registry)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await registry.start()
        yield
        await registry.close()

    starlette = Starlette(
        routes=service.routes(),
        lifespan=lifespan,
        exception_handlers={HTTPException: _not_found},
    )
    return Guard(
        Door(_traced(starlette), registry),
        metrics=registry.metrics,
        keys=read_keys(options.api_keys),
        seconds=options.timeout,
        log_texts=options.log_texts,
    )


def _traced(app: ASGIApp) -> ASGIApp:
    """With spans of OpenTelemetry, where its middleware is installed."""
    try:
        found = find_spec("opentelemetry.instrumentation.asgi")
    except ModuleNotFoundError:
        found = None
    if found is None:
        return app
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    traced: ASGIApp = OpenTelemetryMiddleware(app)
    return traced


async def _not_found(_: Request, error: Exception) -> Response:
    """What no route answers."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return refused(Refusal(error.status_code, "usage", error.detail, headers))


@dataclass(frozen=True)
class Call:
    """A request to a model, with its body, and its place in the model's queue."""

    request: Request
    lane: Lane
    body: bytes
    ticket: Ticket

    def take(self, rows: int) -> None:
        """Have this number of rows.

        Raises:
            Refusal: There are none or too many, or too many wait already.
        """
        self.ticket.take(rows)
        notes_of(self.request.scope).rows = rows


class Service:
    """The endpoints.

    Args:
        registry: The models.

    Raises:
        ValueError: One of ``options.fail_on`` is no check.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._options = registry.options
        self._limits = [Limit.parse(text) for text in registry.options.fail_on]

    def routes(self) -> list[Route]:
        """All routes."""
        get: dict[str, Endpoint] = {
            "/": self._page,
            "/openapi.json": self._document,
            "/metrics": self._metrics,
            "/v1/models": self._names,
            "/v1/models/{name}": self._ready_v1,
            "/v2": self._server,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            "/v2/repository/index": self._index,
        }
        post: dict[str, Endpoint] = {
            "/v1/models/{name}:predict": partial(self._asked, "predict", self._predict_v1),
            "/v1/models/{name}:explain": partial(self._asked, "explain", self._explain_v1),
            "/v2/repository/index": self._index,
        }
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            get |= {model: self._metadata, f"{model}/ready": self._model_ready}
            post |= {
                f"{model}/infer": partial(self._asked, "infer", self._infer_v2),
                f"{model}/explain": partial(self._asked, "explain", self._explain_v2),
            }
        return [
            *(Route(path, _endpoint(each), methods=["POST"]) for path, each in post.items()),
            *(Route(path, _endpoint(each), methods=["GET"]) for path, each in get.items()),
        ]

    # --- what is there ----------------------------------------------------------------------------
    async def _page(self, _: Request) -> Response:
        return Response(page(self._registry), media_type=PAGE)

    async def _document(self, _: Request) -> Response:
        return json_answer(document())

    async def _metrics(self, _: Request) -> Response:
        metrics = self._registry.metrics
        return Response(metrics.page(), headers={"content-type": metrics.content_type})

    async def _server(self, _: Request) -> Response:
        found = {"name": "palrp-onnx", "version": own_version(), "extensions": _EXTENSIONS}
        return json_answer(found)

    async def _live(self, _: Request) -> Response:
        return json_answer({"live": True})

    async def _ready(self, _: Request) -> Response:
        ready = self._registry.ready
        return json_answer({"ready": ready}, 200 if ready else 503)

    async def _index(self, _: Request) -> Response:
        return json_answer(
            [
                {"name": each.name, "version": each.served.version, "state": "READY", "reason": ""}
                for each in self._registry
            ]
        )

    async def _names(self, _: Request) -> Response:
        return json_answer({"models": [each.name for each in self._registry]})

    async def _ready_v1(self, request: Request) -> Response:
        return json_answer({"name": self._lane(request).name, "ready": True})

    async def _model_ready(self, request: Request) -> Response:
        return json_answer({"name": self._lane(request).name, "ready": True})

    async def _metadata(self, request: Request) -> Response:
        lane = self._lane(request)
        return json_answer(v2.metadata(lane.name, lane.served))

    def _lane(self, request: Request) -> Lane:
        given = request.path_params
        lane = self._registry.lane(given["name"], given.get("version"))
        notes_of(request.scope).model = lane.name
        return lane

    # --- what is asked of a model -----------------------------------------------------------------
    async def _asked(
        self,
        verb: str,
        answer: Callable[[Call], Coroutine[Any, Any, Response]],
        request: Request,
    ) -> Response:
        """Answer before the deadline, or not at all if the client is gone; refuse without haste."""
        notes_of(request.scope).verb = verb
        lane = self._lane(request)
        try:
            return await self._answered(request, lane, answer)
        except Refusal as refusal:
            if refusal.status == 429:
                await asyncio.sleep(lane.pause())
            raise

    async def _answered(
        self, request: Request, lane: Lane, answer: Callable[[Call], Coroutine[Any, Any, Response]]
    ) -> Response:
        end = asyncio.get_running_loop().time() + self._options.timeout
        body = await body_of(request, self._options.max_body, end)

        async def admitted() -> Response:
            now = self._lane(request)  # the model may have been opened again meanwhile
            with now.admitted() as ticket:
                return await answer(Call(request, now, body, ticket))

        return await until(request, admitted(), end)

    async def _infer_v2(self, call: Call) -> Response:
        asked, rows = await _decoded_v2(call)

        async def answer() -> Response:
            return _tensors(call, asked, v2.joined_outputs(await self._own_outputs(call, rows)))

        return await within(asked.parameters.get("timeout"), answer())

    async def _explain_v2(self, call: Call) -> Response:
        form = form_of(call.request.headers.get("accept", ""))
        asked, rows = await _decoded_v2(call)
        method = asked.parameters.get("method")
        if not isinstance(method, str | None):
            raise Refusal(400, "usage", "A method is a text")

        async def answer() -> Response:
            found = await self._explained(call, rows, method)
            if form != JSON:
                return await _drawn(found, form)
            return _tensors(call, asked, v2.outputs_of(found, asked))

        return await within(asked.parameters.get("timeout"), answer())

    async def _predict_v1(self, call: Call) -> Response:
        _, rows = await _decoded_v1(call)
        return json_answer(v1.predictions(await self._own_outputs(call, rows)))

    async def _explain_v1(self, call: Call) -> Response:
        form = form_of(call.request.headers.get("accept", ""))
        asked, rows = await _decoded_v1(call)
        found = await self._explained(call, rows, asked.parameters.method)
        if form != JSON:
            return await _drawn(found, form)
        return json_answer(v1.explanations(found, asked.parameters))

    async def _explained(
        self, call: Call, rows: Sequence[Asked], method: str | None
    ) -> list[Explanation]:
        """The explanations of all rows and targets, checked.

        Raises:
            PalrpError: One failed, or fails a check.
        """
        lane = call.lane
        call.take(sum(each.rows for each in rows))
        works = []
        for each in rows:
            works += await lane.read(partial(lane.served.to_explain, each, method))
        call.take(len(works))
        results = await lane.results(works)
        found = [_found(each, Explanation).checked(self._limits) for each in results]
        records = [each.record for each in found]
        for record in records:
            self._registry.metrics.residual.labels(lane.name).observe(record.residual)
        check_records(self._limits, records)
        return found

    async def _own_outputs(self, call: Call, rows: Sequence[Asked]) -> list[dict[str, Array]]:
        """The model's own outputs for all rows."""
        lane = call.lane
        call.take(sum(each.rows for each in rows))
        works = [await lane.read(partial(lane.served.to_run, each)) for each in rows]
        return [_found(each, dict) for each in await lane.results(works)]


async def _decoded_v1(call: Call) -> tuple[v1.V1Request, list[Asked]]:
    """A request of V1, and its rows."""

    def read() -> tuple[v1.V1Request, list[Asked]]:
        found = v1.decode_v1(call.body)
        return found, v1.asked_v1(found, call.lane.served.loaded.model.inputs)

    return await call.lane.read(read)


async def _decoded_v2(call: Call) -> tuple[InferRequest, list[Asked]]:
    """A request of V2, and its rows."""

    def read() -> tuple[InferRequest, list[Asked]]:
        found, given = decode(call.body, call.request.headers.get(_LENGTH))
        return found, v2.asked_v2(found, given, call.lane.served.loaded.model.inputs)

    return await call.lane.read(read)


def _endpoint(answer: Endpoint) -> Endpoint:
    """With errors as answers; the log has what is unexpected."""

    async def endpoint(request: Request) -> Response:
        notes = notes_of(request.scope)
        try:
            return await answer(request)
        except ClientGone:
            notes.code = "gone"
            return _Nothing()
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.code == "internal":
                notes.error = error
            notes.code, notes.message = refusal.code, refusal.message
            return refused(refusal)

    return endpoint


class _Nothing(Response):
    """The answer to nobody."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing."""


def _found(result: object, kind: type[T]) -> T:
    """A result, or the error that became of it."""
    if isinstance(result, Exception):
        raise result
    assert isinstance(result, kind)
    return result


def _tensors(call: Call, request: InferRequest, outputs: Mapping[str, Array]) -> Response:
    head = {"model_name": call.lane.name, "model_version": call.lane.served.version}
    if request.id:
        head["id"] = request.id
    body, length = encode(head, outputs, request)
    if length is None:
        return Response(body, media_type=JSON)
    return Response(body, headers={_LENGTH: str(length)}, media_type="application/octet-stream")


async def _drawn(found: Sequence[Explanation], form: str) -> Response:
    return await asyncio.get_running_loop().run_in_executor(None, drawn, found, form)
