"""What this machine has left, and whether it is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from palrp_onnx.types import Shape

#: Share of the free memory that values of the forward pass may take before less is kept.
_SHARE = 0.6
_MEMINFO = Path("/proc/meminfo")
#: Limit and use of the control group of this process, as containers set it.
_GROUP = Path("/sys/fs/cgroup")


class Room:
    """Whether what is kept for inputs leaves enough memory; shapes are weighed when they are new.

    Args:
        kept: Shapes of inputs by name → bytes.
    """

    def __init__(self, kept: Callable[[Mapping[str, Shape]], int]) -> None:
        self._kept = kept
        self._fitting: set[frozenset[tuple[str, Shape]]] = set()
        self._most = 0

    def kept(self, shapes: Mapping[str, Shape]) -> int:
        """Bytes that are kept for inputs of these shapes."""
        return self._kept(shapes)

    def fits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether there is room, or was for as much: the runtime holds what it has used once."""
        key = frozenset(shapes.items())
        if key in self._fitting:
            return True
        size = self._kept(shapes)
        if size > self._most:
            free = free_memory()
            if free is not None and size > _SHARE * free:
                return False
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
