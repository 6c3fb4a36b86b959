"""What this machine has left, and whether it is enough."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from palrp_onnx.errors import ResourceError, UsageError
from palrp_onnx.types import Shape

#: Ways to use memory; a size is another.
MEMORY = ("auto", "fast", "bounded")
#: Share of the free memory that an explanation may take before less is kept.
_SHARE = 0.6
_MEMINFO = Path("/proc/meminfo")
#: Limit and use of the control group of this process, as containers set it.
_GROUP = Path("/sys/fs/cgroup")


_SIZE = re.compile(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)(I?)B?", re.IGNORECASE | re.ASCII)
_POWERS = ("", "K", "M", "G", "T")


@dataclass(frozen=True)
class Memory:
    """A way to use memory.

    Attributes:
        way: ``auto``, ``fast`` or ``bounded``.
        limit: Bytes that the process may take, if a size was given; ``way`` is ``auto`` then.
    """

    way: str = "auto"
    limit: int | None = None

    @classmethod
    def of(cls, text: str | None) -> Memory:
        """The way that a text names: one of :data:`MEMORY`, or a size as in ``6GB``.

        Raises:
            UsageError: It is neither.
        """
        if text is None or text in MEMORY:
            return cls(text or MEMORY[0])
        found = _SIZE.fullmatch(text.strip())
        size = 0
        if found is not None:
            number, unit, binary = found.groups()
            size = int(float(number) * (1024 if binary else 1000) ** _POWERS.index(unit.upper()))
        if size < 1 << 20:
            raise UsageError(
                f"Unknown memory {text!r}",
                hint=f"One of {', '.join(MEMORY)}, or a size of at least 1 MiB, as 6GB or 6GiB.",
            )
        return cls("auto", size)


@dataclass(frozen=True)
class Forecast:
    """Peak of an explanation in bytes, by the way to use memory.

    Attributes:
        fast: Where all that the way back reads is kept.
        bounded: Where it is computed again.
        apart: Bytes of both that need not be free: weights that are mapped from the file, which
            the system may drop and read again, and the program, which runs already.
    """

    fast: int
    bounded: int
    apart: int = 0

    def choose(self, memory: Memory) -> str:
        """``fast`` or ``bounded``, as the memory of this machine, or the limit, allows.

        Raises:
            ResourceError: It needs more than there is.
        """
        free = memory.limit if memory.limit is not None else free_memory()
        if free is None:
            return "bounded" if memory.way == "bounded" else "fast"
        apart = 0 if memory.limit is not None else self.apart
        share = 1.0 if memory.limit is not None else _SHARE
        way = memory.way
        if way == "auto":
            way = "fast" if self.fast - apart <= share * free else "bounded"
        if (self.fast if way == "fast" else self.bounded) - apart > free:
            room = f", of which {size_text(apart)} need not be free; {size_text(free)} are free"
            if memory.limit is not None:
                room = f"; --memory allows {size_text(free)}"
            raise ResourceError(
                f"The explanation would take about {size_text(self.bounded)} of memory (with "
                f"--memory fast {size_text(self.fast)}){room}",
                hint="Explain a shorter input or fewer rows, or give more memory. "
                "inspect --tokens N prints the forecast for N tokens.",
            )
        return way


def size_text(size: int) -> str:
    """Bytes as people read them: ``1.8 GB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


class Room:
    """Whether inputs of other shapes can be explained in the way that was chosen for the first.

    Args:
        forecast: Shapes of inputs by name → the forecast.
        memory: What was asked for.
        way: ``fast`` or ``bounded``.
    """

    def __init__(
        self, forecast: Callable[[Mapping[str, Shape]], Forecast], memory: Memory, way: str
    ) -> None:
        self._forecast, self._memory, self._way = forecast, memory, way
        self._fitting: set[frozenset[tuple[str, Shape]]] = set()
        self._most = 0

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether there is room, or was for as much: the runtime holds what it has used once.

        Raises:
            ResourceError: Neither way has room.
        """
        key = frozenset(shapes.items())
        if key in self._fitting:
            return True
        forecast = self._forecast(shapes)
        size = forecast.fast if self._way == "fast" else forecast.bounded
        if size > self._most:
            if self._way == "fast" and forecast.choose(self._memory) != "fast":
                return False
            if self._way == "bounded":
                forecast.choose(self._memory)
            self._most = size
        self._fitting.add(key)
        return True


def free_memory() -> int | None:
    """Bytes that can be allocated without swapping, under the container's limit as well.

    ``None`` where the system does not tell.
    """
    found = [each for each in (_available(), _below_limit()) if each is not None]
    return min(found, default=None)


def _available() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    kib = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((int(each) * 1024 for each in kib), None)


def _below_limit() -> int | None:
    try:
        limit, used = (
            _GROUP.joinpath(f"memory.{n}").read_text().strip() for n in ("max", "current")
        )
        statistics = _GROUP.joinpath("memory.stat").read_text().splitlines()
    except OSError:
        return None
    if limit == "max":
        return None
    pages = (int(line.split()[1]) for line in statistics if line.startswith("inactive_file "))
    return max(int(limit) - int(used) + next(pages, 0), 0)
