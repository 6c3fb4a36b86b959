"""Measure child processes in turn: what ``neighbours.py`` prints is taken here.

Needs the standard library only, and so does everything its importer loads before it measures: the
system counts the memory of the process that started a child towards that child's peak.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

#: Waiting threads of the child before have gone to sleep after this long.
PAUSE = 0.1


@dataclass(frozen=True)
class Contender:
    """Somebody who explains.

    Attributes:
        warm: Command of a child that answers; see ``serving.py``.
        fresh: Command of one explanation.
        out: Where both write their map.
        variables: Environment variables besides the parent's.
    """

    warm: tuple[str, ...]
    fresh: tuple[str, ...]
    out: Path
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Cost:
    """What was measured of one contender; seconds and MiB.

    Attributes:
        wall: Wall times of warm explanations.
        cpu: CPU times of the same.
        starts: Wall times from the start of a process to the map on disk.
        warm_peak: Peak memory of the process that stayed open.
        fresh_peak: Largest peak of the processes that explained once.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    warm_peak: float = 0.0
    fresh_peak: float = 0.0

    @property
    def warm(self) -> float:
        """Median wall time of an explanation."""
        return statistics.median(self.wall)

    @property
    def quietest(self) -> float:
        """The least wall time, which other processes disturb least."""
        return min(self.wall)

    @property
    def busy(self) -> float:
        """Median CPU time of an explanation."""
        return statistics.median(self.cpu)

    @property
    def start(self) -> float:
        """Median from process start to the map on disk."""
        return statistics.median(self.starts)


class Child:
    """A contender that has been opened, has explained once and answers."""

    def __init__(self, name: str, contender: Contender, log: IO[str]) -> None:
        self._name = name
        self._log = log
        self._process = subprocess.Popen(
            contender.warm,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **contender.variables},
        )
        self.versions: dict[str, str] = self._read()

    def explain(self) -> dict[str, float]:
        """Explain once: ``wall`` and ``cpu``."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        taken: dict[str, float] = self._read()
        return taken

    def finish(self) -> float:
        """Peak memory; the process ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak: float = self._read()["peak"]
        self._process.wait()
        return peak

    def close(self) -> None:
        """End the process if it has not ended."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit(f"{self._name} ended early; see {self._log.name}")
        return json.loads(line)


class Machine:
    """How much of the machine other processes use: a measurement on a busy one is worth less."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._before = _others()

    def others(self) -> float:
        """Share of all CPUs since the beginning; children must have ended."""
        elapsed = (time.perf_counter() - self._start) * (os.cpu_count() or 1)
        return (_others() - self._before) / elapsed


def _others() -> float:
    """CPU seconds, so far, of all processes but this one and its ended children."""
    counts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, *interrupts = map(int, counts)
    everyone = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    mine = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return everyone - sum(usage.ru_utime + usage.ru_stime for usage in mine)


def measure_warm(
    contenders: Mapping[str, Contender], costs: Mapping[str, Cost], rounds: int, log: IO[str]
) -> dict[str, str]:
    """Let all open children explain in turn; versions of the packages they run on."""
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        children: dict[str, Child] = {}
        for name, contender in contenders.items():
            children[name] = stack.enter_context(closing(Child(name, contender, log)))
            versions |= children[name].versions
        for _ in range(rounds):
            for name, child in children.items():
                time.sleep(PAUSE)
                taken = child.explain()
                costs[name].wall.append(taken["wall"])
                costs[name].cpu.append(taken["cpu"])
        for name, child in children.items():
            costs[name].warm_peak = child.finish()
    return versions


def measure_starts(
    contenders: Mapping[str, Contender], costs: Mapping[str, Cost], starts: int, log: IO[str]
) -> None:
    """A process for every explanation, in turn."""
    for _ in range(starts):
        for name, contender in contenders.items():
            seconds, peak = explain_once(name, contender, log)
            costs[name].starts.append(seconds)
            costs[name].fresh_peak = max(costs[name].fresh_peak, peak)


def explain_once(name: str, contender: Contender, log: IO[str]) -> tuple[float, float]:
    """Seconds and peak memory of one process."""
    contender.out.unlink(missing_ok=True)
    start = time.perf_counter()
    process = subprocess.Popen(
        contender.fresh,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **contender.variables},
    )
    # Unlike subprocess's own waiting, this tells the usage of one child.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not contender.out.exists():
        raise SystemExit(f"{name} wrote no map; see {log.name}")
    return seconds, usage.ru_maxrss / 1024
