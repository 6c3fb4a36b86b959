"""The queue before one opened model: bounded, in batches of similar lengths, drained at its end.

Everything but reading and running happens in the event loop, so nothing here is locked. A request
that is answered late or not at all is cancelled, and what it waited for never runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import TypeVar

from palrp_onnx.jobs.batches import around
from palrp_onnx.serving.metrics import Metrics
from palrp_onnx.serving.refusals import Refusal
from palrp_onnx.serving.served import Result, Served, Work

T = TypeVar("T")
#: Weight of the last request in the pace, from which the time of the next is told.
_RECENT = 0.2
#: Requests that would take a larger share of their time at this pace are not admitted.
_SHARE = 0.5
#: Seconds from one refusal to the next where many are refused, and the longest that one is held.
_REFUSAL, _HELD = 0.005, 2.0


@dataclass(eq=False)
class _Job:
    """Work that waits, and what waits for it."""

    work: Work
    done: asyncio.Future[Result | Exception] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def key(self) -> object:
        return self.work.key

    @property
    def length(self) -> int:
        return self.work.length


@dataclass
class Ticket:
    """The rows of a request in a lane, and how many there were when it came, its own included."""

    lane: Lane
    rows: int = 0
    ahead: int = 0

    def take(self, rows: int) -> None:
        """Have this number of rows.

        Raises:
            Refusal: There are none or too many in the request, or too many wait already.
        """
        limit = self.lane.served.options.max_rows
        if not 1 <= rows <= limit:
            raise Refusal(413, "limit", f"A request has 1 to {limit} rows, not {rows}")
        self.lane.check_room(rows, self.rows)
        self.lane.count(rows - self.rows)
        self.rows, self.ahead = rows, self.lane.rows


class Lane:
    """Runs the work of one model, batch after batch.

    Args:
        name: Name of the model.
        served: The opened model.
        metrics: Where numbers go.

    Attributes:
        rows: Rows that wait or run.
    """

    def __init__(self, name: str, served: Served, metrics: Metrics) -> None:
        self.name = name
        self.served = served
        self.metrics = metrics
        self._options = served.options
        self._running = ThreadPoolExecutor(1, f"run-{name}")
        self._reading = ThreadPoolExecutor(1, f"read-{name}") if served.overlaps else self._running
        self._jobs: list[_Job] = []
        self._filled = asyncio.Event()
        self.rows = 0
        self._seconds_a_row = 0.0
        self._refusals = 0.0
        self._loop = asyncio.create_task(self._serve())

    @contextmanager
    def admitted(self) -> Iterator[Ticket]:
        """Count the rows of a request until it is answered: one at first.

        Raises:
            Refusal: Too many wait already.
        """
        ticket, start = Ticket(self), time.perf_counter()
        try:
            ticket.take(1)
            yield ticket
            self._paced(ticket, time.perf_counter() - start)
        except asyncio.CancelledError:  # the deadline, or the client is gone
            seconds = time.perf_counter() - start
            if seconds > self._seconds_a_row * ticket.ahead:
                self._paced(ticket, seconds)
            raise
        finally:
            self.count(-ticket.rows)

    def _paced(self, ticket: Ticket, seconds: float) -> None:
        """Learn the pace from a request: its time, and what was before it and in it."""
        found = seconds / max(1, ticket.ahead)
        weight = _RECENT if self._seconds_a_row else 1.0
        self._seconds_a_row += weight * (found - self._seconds_a_row)

    def check_room(self, rows: int, own: int = 0) -> None:
        """Refuse rows that there is no room for, or no time before the deadline.

        Args:
            rows: The rows of a request.
            own: How many of them are counted already.

        Raises:
            Refusal: Too many others wait already.
        """
        others, whole = self.rows - own, self._options.timeout
        seconds = others * self._seconds_a_row
        if others and (others + rows > self._options.queue or seconds > _SHARE * whole):
            headers = {"retry-after": str(max(1, ceil(min(seconds, whole))))}
            raise Refusal(429, "busy", f"{others} rows wait; ask again later", headers)

    def pause(self) -> float:
        """Seconds to hold back a refusal: clients that ask again at once leave time for answers."""
        now, longest = time.monotonic(), min(_HELD, self._options.timeout / 2)
        found = min(max(0.0, self._refusals - now), longest)
        self._refusals = now + found + _REFUSAL
        return found

    def count(self, rows: int) -> None:
        """Count rows that come or go."""
        self.rows += rows
        self.metrics.waiting.labels(self.name).inc(rows)

    async def read(self, reader: Callable[[], T]) -> T:
        """Read in the model's thread for reading."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, reader)

    async def results(self, works: Sequence[Work]) -> list[Result | Exception]:
        """What became of work, in its order."""
        jobs = [_Job(work) for work in works]
        self._jobs.extend(jobs)
        self._filled.set()
        try:
            return [await job.done for job in jobs]
        finally:
            for job in jobs:
                job.done.cancel()  # no effect on those that are done

    async def close(self) -> None:
        """Run what waits, then end the threads."""
        while self.rows:
            await asyncio.sleep(0.05)
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        for each in {self._reading, self._running}:
            each.shutdown(wait=False)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._filled.wait()
            batch = self._next()
            if not batch:
                self._filled.clear()
                continue
            start = time.perf_counter()
            works = [job.work for job in batch]
            found: list[Result | Exception]
            try:
                found = await loop.run_in_executor(self._running, self.served.run, works)
            except Exception as error:  # these fail, and those that wait still run
                found = [error] * len(batch)
            self._measure(len(batch), time.perf_counter() - start)
            for job, result in zip(batch, found, strict=True):
                if not job.done.done():
                    job.done.set_result(result)

    def _next(self) -> list[_Job]:
        """The batch of the job that has waited longest."""
        self._jobs = [job for job in self._jobs if not job.done.done()]
        if not self._jobs:
            return []
        size, tokens = self._options.batch_size, self._options.batch_tokens
        batch = around(self._jobs[0], self._jobs, size=size, tokens=tokens)
        taken = set(batch)
        self._jobs = [job for job in self._jobs if job not in taken]
        return batch

    def _measure(self, rows: int, seconds: float) -> None:
        self.metrics.batch.labels(self.name).observe(rows)
        self.metrics.run.labels(self.name).observe(seconds)
