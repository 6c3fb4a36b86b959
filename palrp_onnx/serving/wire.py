"""HTTP on the wire, with limits for what is no request: long heads, and bodies after the answer."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from palrp_onnx.serving.answers import refused
from palrp_onnx.serving.refusals import Refusal

#: Largest number of bytes of a head; what is read at once may have the beginning of a body, too.
_BYTES = 1 << 20
#: Seconds within which a head is complete, and what is left of a body after the answer.
_SECONDS = 10.0
#: Connections at once.
_CONNECTIONS = 1024
#: The application of further ones.
_FULL = refused(
    Refusal(
        429,
        "busy",
        f"There are {_CONNECTIONS} connections; ask again later",
        {"retry-after": "1", "connection": "close"},
    )
)


class BoundedHttp(HttpToolsProtocol):
    """The protocol of uvicorn, which hangs up on what does not end."""

    _head = 0
    _in_body = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, which is refused if there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            self.app = _FULL
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Count what is before the end of a head."""
        if not self._in_body:
            self._wait()
            self._head += len(data)
            if self._head > _BYTES:
                self._hang_up()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._head, self._in_body = 0, True
        self._stop()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is complete; what follows is another head."""
        self._in_body = False
        self._stop()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Nobody reads what is left of the body."""
        if self._in_body:
            self._wait()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nothing to wait for."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(_SECONDS, self._hang_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self) -> None:
        self._stop()
        if not self.transport.is_closing():
            self.transport.close()
