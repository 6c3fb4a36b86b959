"""Measurements of child processes in turn, for ``neighbours.py``.

Needs only the standard library, and so must everything that is imported before measuring: the
system counts the memory of the parent process at the start of a child towards the child's peak.
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

#: Seconds after which waiting threads of the previous child sleep.
PAUSE = 0.1


@dataclass(frozen=True)
class Program:
    """A program that explains.

    Attributes:
        warm: Command of a child that explains repeatedly; see ``serving.py``.
        fresh: Command of a single explanation.
        out: The file to which both write their map.
        variables: Environment variables besides those of the parent.
    """

    warm: tuple[str, ...]
    fresh: tuple[str, ...]
    out: Path
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Cost:
    """Measurements of one program, in seconds and MiB.

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
        """The smallest wall time, which is least affected by other processes."""
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
    """An open program that has explained once and waits for further requests."""

    def __init__(self, name: str, program: Program, log: IO[str]) -> None:
        self._name = name
        self._log = log
        self._process = subprocess.Popen(
            program.warm,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **program.variables},
        )
        self.versions: dict[str, str] = self._read()

    def explain(self) -> dict[str, float]:
        """Explain once; its times ``wall`` and ``cpu`` in seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        taken: dict[str, float] = self._read()
        return taken

    def finish(self) -> float:
        """End the process; its peak memory in MiB."""
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
    """Use of the CPUs by other processes, which make measurements less reliable."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._before = _others()

    def others(self) -> float:
        """Share of all CPUs since the start; children must have ended."""
        elapsed = (time.perf_counter() - self._start) * (os.cpu_count() or 1)
        return (_others() - self._before) / elapsed


def _others() -> float:
    """CPU seconds of all processes except this one and its ended children."""
    counts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, *interrupts = map(int, counts)
    total = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return total - sum(usage.ru_utime + usage.ru_stime for usage in own)


def measure_warm(
    programs: Mapping[str, Program], costs: Mapping[str, Cost], rounds: int, log: IO[str]
) -> dict[str, str]:
    """Let all open children explain in turn; returns the versions of their packages."""
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        children: dict[str, Child] = {}
        for name, program in programs.items():
            children[name] = stack.enter_context(closing(Child(name, program, log)))
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
    programs: Mapping[str, Program], costs: Mapping[str, Cost], starts: int, log: IO[str]
) -> None:
    """Measure explanations that each run in a new process, in turn."""
    for _ in range(starts):
        for name, program in programs.items():
            seconds, peak = explain_once(name, program, log)
            costs[name].starts.append(seconds)
            costs[name].fresh_peak = max(costs[name].fresh_peak, peak)


def explain_once(name: str, program: Program, log: IO[str]) -> tuple[float, float]:
    """Seconds and peak memory in MiB of one process."""
    program.out.unlink(missing_ok=True)
    start = time.perf_counter()
    process = subprocess.Popen(
        program.fresh,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **program.variables},
    )
    # Unlike subprocess's own waiting, this returns the usage of a single child.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not program.out.exists():
        raise SystemExit(f"{name} wrote no map; see {log.name}")
    return seconds, usage.ru_maxrss / 1024
