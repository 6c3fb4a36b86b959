"""Progress on stderr: a bar on a terminal, elsewhere a line every few seconds."""

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
def progress(*, quiet: bool, what: str = "explaining") -> Iterator[Progress]:
    """A bar or lines, whichever suits stderr; nothing if ``quiet``."""
    if not quiet and sys.stderr.isatty():
        with _bar(what) as bar:
            yield bar
    else:
        yield Plain(every=float("inf") if quiet else EVERY)


@contextmanager
def counting(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Progress as a function that is called with the number of finished items of ``total``."""
    with progress(quiet=quiet) as bar:
        shown = 0

        def advance(done: int) -> None:
            nonlocal shown
            bar.advance(done - shown)
            shown = done

        bar.start(total)
        yield advance


class Plain:
    """One line every few seconds: ``412/10000 4.1 % 38.2 records/s eta 4m11s``."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._lock = threading.Lock()
        self._total: int | None = None
        self._done = self._skipped = 0
        self._began = self._told = time.monotonic()

    def start(self, records: int | None) -> None:
        """Start counting."""
        self._total = records
        self._began = self._told = time.monotonic()

    def skip(self, records: int) -> None:
        """Count records that were explained before; they do not enter the rate."""
        with self._lock:
            self._skipped += records

    def advance(self, records: int) -> None:
        """Count records, and print a line if enough time has passed."""
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
def _bar(what: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        yield _Rich(bar)


class _Rich:
    """The bar of rich; skipped records are counted at once and do not enter the rate."""

    def __init__(self, bar: object) -> None:
        from rich.progress import Progress as Bar

        assert isinstance(bar, Bar)
        self._bar = bar
        self._task = bar.add_task("records", total=None, rate="")
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
