"""The queue before a model, with a model that answers when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("starlette")
from palrp_onnx.serving import lane as lane_module
from palrp_onnx.serving.lane import Lane
from palrp_onnx.serving.metrics import Metrics
from palrp_onnx.serving.options import ServingOptions
from palrp_onnx.serving.refusals import Refusal


@dataclass(frozen=True)
class Job:
    key: str
    length: int = 0
    name: str = ""


@dataclass
class Model:
    """Keeps batches that it got; runs while ``open`` is set."""

    options: ServingOptions
    overlaps: bool = True
    batches: list[list[Job]] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)

    def run(self, batch: Sequence[Job]) -> list[Any]:
        assert self.open.wait(30)
        self.batches.append(list(batch))
        return [ValueError(each.name) if each.key == "bad" else each.name for each in batch]


def tried(work: Any, **options: Any) -> Any:
    """What a coroutine returns that gets a lane and its model."""

    async def run() -> Any:
        model = Model(ServingOptions(models=(), **options))
        lane = Lane("m", model, Metrics())  # type: ignore[arg-type]
        try:
            return await asyncio.wait_for(work(lane, model), 30)
        finally:
            model.open.set()
            await asyncio.wait_for(lane.close(), 30)

    return asyncio.run(run())


async def queued(lane: Lane, jobs: Sequence[Job]) -> list[asyncio.Task[Any]]:
    """A task for every job, in this order; the first one runs."""
    tasks = []
    for job in jobs:
        tasks.append(asyncio.create_task(lane.results([job])))  # type: ignore[list-item]
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    return tasks


def names(model: Model) -> list[list[str]]:
    return [[job.name for job in batch] for batch in model.batches]


@pytest.mark.quick
def test_what_waits_runs_in_batches_of_its_kind_and_length() -> None:
    async def work(lane: Lane, model: Model) -> None:
        lengths = {"b": 10, "c": 100, "d": 11, "e": 98, "f": 9}
        jobs = [Job("first", name="a"), *(Job("x", n, k) for k, n in lengths.items())]
        tasks = await queued(lane, [*jobs, Job("y", 10, "g"), Job("bad", name="h")])
        model.open.set()
        found = [found for (found,) in await asyncio.gather(*tasks)]
        assert names(model) == [["a"], ["f", "b", "d"], ["e", "c"], ["g"], ["h"]]
        assert found[:-1] == list("abcdefg")  # each gets its own
        assert isinstance(found[-1], ValueError)

    tried(work)


def test_a_run_that_fails_fails_alone() -> None:
    async def work(lane: Lane, model: Model) -> None:
        tasks = await queued(lane, [Job("a", name="0"), Job("x", name="1")])
        model.open.set()
        run = model.run

        def broken(batch: Sequence[Job]) -> list[Any]:
            model.run = run  # type: ignore[method-assign]
            raise MemoryError

        model.run = broken  # type: ignore[method-assign]
        failing = asyncio.create_task(lane.results([Job("b", name="2")]))  # type: ignore[list-item]
        found = await asyncio.gather(*tasks, failing)
        assert sum(isinstance(each, MemoryError) for (each,) in found) == 1
        assert await lane.results([Job("c", name="3")]) == ["3"]  # type: ignore[list-item]

    tried(work)


def test_batches_are_bounded_and_the_oldest_goes_first() -> None:
    async def work(lane: Lane, model: Model) -> None:
        tasks = await queued(lane, [Job("a", name="0"), *(Job("x", 8, str(k)) for k in range(5))])
        model.open.set()
        await asyncio.gather(*tasks)
        assert names(model) == [["0"], ["0", "1"], ["2", "3"], ["4"]]

    tried(work, batch_size=2)


def test_what_nobody_waits_for_never_runs() -> None:
    async def work(lane: Lane, model: Model) -> None:
        tasks = await queued(lane, [Job("a", name="0"), Job("x", name="1"), Job("x", name="2")])
        tasks[1].cancel()
        await asyncio.sleep(0)
        model.open.set()
        await asyncio.gather(tasks[0], tasks[2])
        assert names(model) == [["0"], ["2"]]

    tried(work)


def refusal(lane: Lane, rows: int) -> Refusal:
    with pytest.raises(Refusal) as found, lane.admitted() as ticket:
        ticket.take(rows)
    return found.value


def test_too_many_are_refused_and_told_when_to_come_again() -> None:
    async def work(lane: Lane, _: Model) -> None:
        with lane.admitted() as ticket:
            ticket.take(3)
            with lane.admitted():
                found = refusal(lane, 1)
                assert (found.status, found.headers["retry-after"]) == (429, "1")
            assert refusal(lane, 2).status == 429
        assert lane.rows == 0
        for rows in (0, 5):
            assert refusal(lane, rows).status == 413
        with lane.admitted() as ticket:
            ticket.take(4)  # one request may fill the queue

    tried(work, queue=4, max_rows=4)


def test_what_would_come_too_late_is_refused() -> None:
    async def work(lane: Lane, _: Model) -> None:
        with pytest.raises(asyncio.CancelledError), lane.admitted():
            lane._paced(type("", (), {"ahead": 1})(), 5.0)  # type: ignore[arg-type]
            raise asyncio.CancelledError
        with lane.admitted() as ticket:
            ticket.take(2)  # alone, whatever the pace
            assert refusal(lane, 1).headers["retry-after"] == "8"

    tried(work, timeout=8.0)


def test_refusals_are_held_back_the_longer_the_more_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(lane: Lane, _: Model) -> None:
        monkeypatch.setattr(lane_module, "time", SimpleNamespace(monotonic=lambda: 100.0))
        pauses = [lane.pause() for _ in range(1000)]
        assert pauses[0] == 0
        assert pauses[-1] == 1
        assert all(later > earlier or later == 1 for earlier, later in pairwise(pauses[:150]))

        monkeypatch.undo()

    tried(work, timeout=2.0)


def test_closing_answers_what_waits() -> None:
    async def work(lane: Lane, model: Model) -> None:
        async def request() -> list[Any]:
            with lane.admitted():
                return await lane.results([Job("x", name="0")])  # type: ignore[list-item]

        asked = asyncio.create_task(request())
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(lane.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        model.open.set()
        assert await asked == ["0"]
        await closing

    tried(work)


def test_reading_waits_for_runs_only_where_it_must() -> None:
    async def work(lane: Lane, model: Model) -> None:
        model.open.clear()
        await queued(lane, [Job("x")])
        reading = asyncio.create_task(lane.read(lambda: 7))
        done, _ = await asyncio.wait({reading}, timeout=0.3)
        assert bool(done) == (lane._reading is not lane._running)
        model.open.set()
        assert await reading == 7

    async def alone(lane: Lane, model: Model) -> None:
        lane._reading = lane._running
        await work(lane, model)

    tried(work)
    tried(alone)
