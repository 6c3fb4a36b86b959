"""How far a batch has come, on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import click

#: Seconds between two plain lines.
EVERY = 10.0


class Progress(Protocol):
    """See :class:`palrp_onnx.jobs.run.Progress`."""

    def start(self, records: int | None) -> None: ...  # noqa: D102

    def skip(self, records: int) -> None: ...  # noqa: D102

    def advance(self, records: int) -> None: ...  # noqa: D102


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """What fits stderr; nothing where ``quiet``."""
    if not quiet and sys.stderr.isatty():
        with _bar() as bar:
            yield bar
    else:
        yield Plain(every=float("inf") if quiet else EVERY)


@contextmanager
def counting(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """The same, for who is told how many of ``total`` are done."""
    with progress(quiet=quiet) as bar:
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            bar.advance(done - told)
            told = done

        bar.start(total)
        yield tell


class Plain:
    """One line every few seconds: ``412/10000 4.1 % 38.2 records/s eta 4m11s``."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._lock = threading.Lock()
        self._total: int | None = None
        self._done = self._skipped = 0
        self._began = self._told = time.monotonic()

    def start(self, records: int | None) -> None:
        """Count from now on."""
        self._total = records
        self._began = self._told = time.monotonic()

    def skip(self, records: int) -> None:
        """Explained before; they do not count for the rate."""
        with self._lock:
            self._skipped += records

    def advance(self, records: int) -> None:
        """Tell, where it is time to."""
        with self._lock:
            self._done += records
            now = time.monotonic()
            if now - self._told < self._every:
                return
            self._told = now
            line = self._line(now - self._began)
        click.echo(line, err=True)

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds if seconds else 0.0
        done = self._skipped + self._done
        if self._total is None:
            return f"{done} {rate:.1f} records/s"
        share = done / max(self._total, 1)
        left = max(self._total - done, 0)
        eta = f" eta {duration(left / rate)}" if rate else ""
        return f"{done}/{self._total} {share:.1%} {rate:.1f} records/s{eta}"


def duration(seconds: float) -> str:
    """``3h05m``, ``4m11s``, ``9s``."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("explaining"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        yield _Rich(bar)


class _Rich:
    """The bar of rich; skipped records are there from the start and do not count for the rate."""

    def __init__(self, bar: object) -> None:
        from rich.progress import Progress as Bar

        assert isinstance(bar, Bar)
        self._bar = bar
        self._task = bar.add_task("explaining", total=None, rate="")
        self._lock = threading.Lock()
        self._done = 0
        self._began = time.monotonic()

    def start(self, records: int | None) -> None:
        self._began = time.monotonic()
        self._bar.reset(self._task, total=records)

    def skip(self, records: int) -> None:
        self._bar.advance(self._task, records)

    def advance(self, records: int) -> None:
        with self._lock:
            self._done += records
        rate = self._done / max(time.monotonic() - self._began, 1e-9)
        self._bar.update(self._task, advance=records, rate=f"{rate:.1f} records/s")
