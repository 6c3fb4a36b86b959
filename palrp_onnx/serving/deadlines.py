"""Requests end in time: their bodies, their answers, and those that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from palrp_onnx.serving.refusals import ClientGone, Refusal

#: Digits of the longest number of bytes, and the longest time in microseconds.
_DIGITS, _LONGEST = 18, 1e12
Answer = Coroutine[Any, Any, Response]


async def body_of(request: Request, limit: int, end: float) -> bytes:
    """The body of a request.

    Args:
        request: The request.
        limit: Largest number of bytes.
        end: The deadline, in the time of the event loop.

    Raises:
        Refusal: It is too long, compressed, or not there before the deadline.
        ClientGone: The client went away.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "usage", "Bodies are not compressed")
    declared = request.headers.get("content-length", "0")
    too_long = Refusal(413, "limit", f"A request has at most {limit} bytes")
    if len(declared) > _DIGITS or not declared.isdecimal() or int(declared) > limit:
        raise too_long
    parts, size = [], 0
    try:
        async with asyncio.timeout_at(end):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise too_long
    except TimeoutError:
        raise Refusal(408, "deadline", "The body did not arrive in time") from None
    except ClientDisconnect:
        raise ClientGone from None
    return b"".join(parts)


async def until(request: Request, work: Answer, end: float) -> Response:
    """What becomes of work, which is cancelled at the deadline and when the client goes away.

    Raises:
        Refusal: The deadline has passed.
        ClientGone: The client went away.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        seconds = max(0.0, end - asyncio.get_running_loop().time())
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientGone
        raise _late()
    finally:
        task.cancel()
        gone.cancel()


async def within(microseconds: object, work: Answer) -> Response:
    """Work within the time that a request of V2 sets, if it sets one.

    Raises:
        Refusal: The time has passed, or is none.
    """
    if microseconds is None:
        return await work
    if not isinstance(microseconds, int | float) or not microseconds > 0:
        work.close()
        raise Refusal(400, "usage", "timeout is a number of microseconds")
    try:
        async with asyncio.timeout(min(microseconds, _LONGEST) / 1e6):
            return await work
    except TimeoutError:
        raise _late() from None


def _late() -> Refusal:
    return Refusal(504, "deadline", "There was no answer before the deadline")


async def _gone(request: Request) -> None:
    """Return when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
