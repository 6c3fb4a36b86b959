"""What this machine has left."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
#: Limit and use of the control group of this process, as containers set it.
_GROUP = Path("/sys/fs/cgroup")


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
