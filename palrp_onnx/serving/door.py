"""What a full queue has no room for is turned away at the door, before anything of it is read."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from palrp_onnx.serving.answers import refused
from palrp_onnx.serving.guard import Notes, notes_of
from palrp_onnx.serving.lane import Lane
from palrp_onnx.serving.refusals import Refusal
from palrp_onnx.serving.registry import Registry

#: Paths of what is asked of a model.
_ASKED = re.compile(
    r".*/v1/models/(?P<v1>[^/:]+):(?P<v1_verb>predict|explain)"
    r"|.*/v2/models/(?P<v2>[^/]+)(/versions/[^/]+)?/(?P<v2_verb>infer|explain)"
)


class Door:
    """ASGI middleware. A refusal costs little here, so that answers have the time.

    Args:
        app: What answers.
        registry: The models.
    """

    def __init__(self, app: ASGIApp, registry: Registry) -> None:
        self._app = app
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        lane = self._lane(scope)
        if lane is not None:
            try:
                lane.check_room(1)
            except Refusal as refusal:
                notes_of(scope).code = refusal.code
                await asyncio.sleep(lane.pause())
                await refused(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _lane(self, scope: Scope) -> Lane | None:
        """The lane that a request needs room in, if it needs any."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        found = _ASKED.fullmatch(scope["path"])
        if found is None:
            return None
        notes: Notes = notes_of(scope)
        notes.verb = found["v1_verb"] or found["v2_verb"]
        with suppress(Refusal):  # there is no such model: the application says so
            lane = self._registry.lane(found["v1"] or found["v2"])
            notes.model = lane.name
            return lane
        return None
