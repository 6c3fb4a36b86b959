"""The models that are served, by their names; a file that changes is opened again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping

from palrp_onnx.serving.lane import Lane
from palrp_onnx.serving.metrics import Metrics
from palrp_onnx.serving.options import Place, ServingOptions
from palrp_onnx.serving.refusals import Refusal, concealed
from palrp_onnx.serving.served import Seen, Served, beside

_log = logging.getLogger(__name__)


class Registry:
    """Opens the models, and hands out the lane of each.

    Args:
        options: How models are served.
        opened: Models that are open already, by their names.
    """

    def __init__(self, options: ServingOptions, opened: Mapping[str, Served] | None = None) -> None:
        self.options = options
        self.metrics = Metrics()
        self.ready = False
        self._opened = dict(opened or {})
        self._lanes: dict[str, Lane] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def lane(self, name: str, version: str | None = None) -> Lane:
        """The lane of a model.

        Raises:
            Refusal: There is no such model, or it has another version by now.
        """
        if name not in self._lanes:
            raise Refusal(404, "model", f"There is no model {name[:80]!r}")
        lane = self._lanes[name]
        if version and version != lane.served.version:
            raise Refusal(404, "model", f"The model has the version {lane.served.version}")
        return lane

    async def start(self) -> None:
        """Open all models.

        Raises:
            PalrpError: One cannot be explained with these options.
        """
        loop = asyncio.get_running_loop()
        for place in self.options.models:
            served = self._opened.pop(place.name, None)
            if served is None:
                served = await loop.run_in_executor(None, Served, place, self.options)
            self._lanes[place.name] = Lane(place.name, served, self.metrics)
            if self.options.reload:
                self._tasks.append(asyncio.create_task(self._watch(place, served.seen)))
        self.ready = True

    async def close(self) -> None:
        """Answer what waits, and close all models."""
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(lane.close() for lane in self), return_exceptions=True)

    async def _watch(self, place: Place, seen: Seen) -> None:
        """Open a model again when its files have changed and rest."""
        last = seen
        while True:
            await asyncio.sleep(self.options.reload)
            now = beside(place)
            if now == last and now != seen:
                seen = now
                await self._reload(place)
            last = now

    async def _reload(self, place: Place) -> None:
        """Serve the new file; if it cannot be opened, the old one stays."""
        loop, old = asyncio.get_running_loop(), self._lanes[place.name]
        try:
            if not await loop.run_in_executor(None, old.served.changed):
                return
            served = await loop.run_in_executor(None, Served, place, self.options)
        except Exception as error:  # whatever is in the file now
            self.metrics.reloads.labels(place.name, "failed").inc()
            _log.error("reload", extra={"model": place.name, "error": concealed(str(error))})
            return
        self._lanes[place.name] = Lane(place.name, served, self.metrics)
        self.metrics.reloads.labels(place.name, "opened").inc()
        _log.info("reload", extra={"model": place.name, "version": served.version})
        await old.close()
