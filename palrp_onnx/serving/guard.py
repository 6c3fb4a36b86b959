"""Around every request: its id, its key, its line in the log, its numbers, a limit for sending."""

from __future__ import annotations

import asyncio
import hmac
import logging
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palrp_onnx.errors import InputError
from palrp_onnx.serving.answers import refused
from palrp_onnx.serving.logs import traceback_of
from palrp_onnx.serving.metrics import Metrics
from palrp_onnx.serving.refusals import Refusal

_log = logging.getLogger(__name__)
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
#: Status of the log for a client that went away; it gets no answer.
_GONE = 499
#: Where a request keeps what is said of it.
NOTES = "palrp_onnx.notes"
#: Paths that need no key, so that probes of an orchestrator see them.
_OPEN = ("/v2/health/live", "/v2/health/ready")


@dataclass
class Notes:
    """What the log and the metrics say of a request.

    Attributes:
        id: Its id.
        model: Name of the model, once it is known that there is one.
        verb: What was asked: ``infer``, ``explain``, …
        rows: Number of rows.
        code: Code of the error.
        message: Message of the error.
        error: The error, if it was not expected.
        status: Status of the answer.
    """

    id: str
    model: str = ""
    verb: str = ""
    rows: int = 0
    code: str | None = None
    message: str | None = None
    error: Exception | None = None
    status: int = _GONE


def notes_of(scope: Scope) -> Notes:
    """What is said of a request."""
    notes: Notes = scope[NOTES]
    return notes


class Guard:
    """ASGI middleware.

    Args:
        app: What answers.
        metrics: Where numbers go.
        keys: Keys, one of which a request has to have; none: it needs none.
        seconds: How long a client may take to receive a part of the answer.
        log_texts: Whether the log has messages of errors, and tracebacks have theirs.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        keys: Sequence[str] = (),
        seconds: float,
        log_texts: bool = False,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._keys = [each.encode() for each in keys]
        self._seconds = seconds
        self._log_texts = log_texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, start = Headers(scope=scope), time.perf_counter()
        given = headers.get("x-request-id", "")
        notes = Notes(given if _ID.fullmatch(given) else _id())
        scope[NOTES] = notes

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = notes.id
            async with asyncio.timeout(self._seconds):
                await send(message)

        try:
            if self._keys and scope["path"] not in _OPEN and not self._knows(headers):
                notes.code = "key"
                needed = Refusal(401, "key", "A key is needed", {"www-authenticate": "Bearer"})
                await refused(needed)(scope, receive, sent)
            else:
                await self._app(scope, receive, sent)
        except (TimeoutError, OSError):  # the client does not take its answer: the server hangs up
            notes.code = "slow"
        finally:
            self._finish(scope, notes, time.perf_counter() - start)

    def _knows(self, headers: Headers) -> bool:
        """Whether a request has a key; all keys are compared, in constant time."""
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        given = headers.get("x-api-key") or given
        found = [hmac.compare_digest(given.encode(), key) for key in self._keys]
        return any(found)

    def _finish(self, scope: Scope, notes: Notes, seconds: float) -> None:
        self._metrics.requests.labels(notes.model, notes.verb, str(notes.status)).inc()
        self._metrics.seconds.labels(notes.model, notes.verb).observe(seconds)
        said = {
            "request": notes.id,
            "method": scope["method"],
            "verb": notes.verb,
            "model": notes.model,
            "status": notes.status,
            "rows": notes.rows,
            "ms": round(seconds * 1e3, 3),
            "code": notes.code,
            "message_of_error": notes.message if self._log_texts else None,
        }
        _log.info("request", extra=said)
        if notes.error is not None:
            found = traceback_of(notes.error, texts=self._log_texts)
            _log.error("failure", extra={"request": notes.id, "traceback": found})


def _id() -> str:
    """An id that nothing has to keep secret; the system's random numbers would cost a switch."""
    return f"{random.getrandbits(128):032x}"


def read_keys(file: str | None) -> list[str]:
    """The keys of a file, one a line.

    Raises:
        InputError: It cannot be read, or holds none.
    """
    if file is None:
        return []
    try:
        keys = Path(file).read_text(encoding="utf-8").split()
    except (OSError, UnicodeError) as error:
        raise InputError("The file of keys cannot be read", place=file) from error
    if not keys:
        raise InputError("The file of keys holds none", place=file)
    return keys
