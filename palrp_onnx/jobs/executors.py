"""Parts are computed by two threads that share a worker, or by processes with one worker each."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from palrp_onnx.errors import ResourceError
from palrp_onnx.jobs.records import Record
from palrp_onnx.jobs.results import Line
from palrp_onnx.jobs.settings import Settings
from palrp_onnx.jobs.worker import Worker

Part = tuple[int, Sequence[Record]]
Explain = Callable[[Sequence[Record]], list[Line]]


class Stopped(Exception):
    """Raised in a thread to end it."""


class OrderedExecutor:
    """Computes several parts at a time, and returns them in order.

    Args:
        executor: Runs ``explain``.
        explain: Records → lines.
        ahead: Largest number of parts in memory.
    """

    def __init__(self, executor: Executor, explain: Explain, ahead: int) -> None:
        self._executor = executor
        self._explain = explain
        self._ahead = ahead

    def map(self, parts: Iterable[Part]) -> Iterator[tuple[int, list[Line]]]:
        """Number and lines of every part, in order.

        Raises:
            ResourceError: A worker process has ended.
        """
        try:
            yield from self._map(parts)
        except BrokenProcessPool as error:
            raise ResourceError(
                "A worker process has ended, perhaps because memory was exhausted",
                hint="Resume with --resume and fewer --workers or a smaller --batch-size.",
            ) from error

    def _map(self, parts: Iterable[Part]) -> Iterator[tuple[int, list[Line]]]:
        running: deque[tuple[int, Future[list[Line]]]] = deque()
        for number, records in parts:
            running.append((number, self._executor.submit(self._explain, records)))
            if len(running) >= self._ahead:
                yield _first(running)
        while running:
            yield _first(running)


def _first(running: deque[tuple[int, Future[list[Line]]]]) -> tuple[int, list[Line]]:
    number, future = running.popleft()
    return number, future.result()


@contextmanager
def threads(
    explain: Callable[[Sequence[Record], Callable[[int], None]], list[Line]],
    done: Callable[[int], None],
    *,
    count: int,
) -> Iterator[OrderedExecutor]:
    """An executor with threads. When it is closed, they end after their current batch.

    With two threads, one reads records and writes lines while the other runs the model.
    """
    stop = threading.Event()

    def advance(records: int) -> None:
        if stop.is_set():
            raise Stopped
        done(records)

    executor = ThreadPoolExecutor(count)
    try:
        yield OrderedExecutor(executor, lambda records: explain(records, advance), count + 1)
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


@contextmanager
def processes(
    model: Path, settings: Settings, done: Callable[[int], None], *, count: int
) -> Iterator[OrderedExecutor]:
    """An executor with processes, which end when this process ends."""
    executor = ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_open,
        initargs=(model, settings),
    )

    class Counting(OrderedExecutor):
        def map(self, parts: Iterable[Part]) -> Iterator[tuple[int, list[Line]]]:
            for number, lines in super().map(parts):
                done(len(lines))
                yield number, lines

    try:
        yield Counting(executor, _explain, 2 * count)
    finally:
        executor.shutdown(cancel_futures=True)


_workers: list[Worker] = []


def _open(model: Path, settings: Settings) -> None:
    """In a new process: open the model, and end when the parent process ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _workers.append(Worker(model, settings))


def _explain(records: Sequence[Record]) -> list[Line]:
    return _workers[0](records)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
