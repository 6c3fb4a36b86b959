"""A box for hostile input: a process of bounded memory that is killed when it hangs.

The process is kept between inputs, as starting one takes a second. A native crash or a hang is an
outcome like any other; the next input gets a new process.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: Address space of the box. Imports alone take about 1.5 GiB of it.
MEMORY = 4 << 30
#: Seconds that one input may take.
PATIENCE = 20
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Outcome:
    """Outcome of one input.

    Attributes:
        exit: Exit code of the program, or that which the error has; 0 where there was none,
            1 for an exception without a code, negative for a signal, ``None`` for a hang.
        text: What was written to stdout and stderr, or the traceback.
    """

    exit: int | None
    text: str

    @property
    def acceptable(self) -> bool:
        """Success, or a refusal with a code."""
        return self.exit in (0, 2, 3, 4, 5, 6, 7)


class Box:
    """Runs one task at a time. Tasks: ``model``, ``explainer`` and ``cli``, see ``worker.py``."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, task: str, *arguments: object, patience: float = PATIENCE) -> Outcome:
        """Run ``task`` and wait for it."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([task, *map(str, arguments)]).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], patience)
        line = process.stdout.readline() if ready else b""
        if line:
            return Outcome(*json.loads(line))
        self.close()
        return Outcome(process.returncode if ready else None, "crash" if ready else "hang")

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        try:  # one that crashed has ended by itself, and its signal is the reason
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER), str(MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        )
        return self._process


def hold(box: Box, task: str, *arguments: object) -> Outcome:
    """Run ``task`` and fail where it does not end well."""
    outcome = box.run(task, *arguments)
    assert outcome.acceptable, (outcome.exit, outcome.text[-3000:])
    # What libraries log is their users' to hear; the program has nobody else to tell.
    assert task != "cli" or "Traceback" not in outcome.text, outcome.text[-3000:]
    return outcome
