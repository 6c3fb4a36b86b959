"""Files that are there whole or not at all, whatever ends the process or the machine."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from palrp_onnx.errors import OutputError, PalrpError, ResourceError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PREFIX, _SUFFIX = ".palrp-", ".part"


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file beside its place, wait until it is on the disk, then move it there.

    Raises:
        OutputError: The place cannot be written to.
        ResourceError: There is no room. As with every failure, an older file stays as it was.
    """
    temporary = path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    try:
        with temporary.open("xb") as stream:
            stream.writelines(chunks)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise refusal(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """A name is on the disk once its folder is; not every system opens folders."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, and clear away what a process that was killed has left half written.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise refusal(error, folder) from error


def refusal(error: OSError, place: Path) -> PalrpError:
    """The error that an operating system's refusal is."""
    kind = ResourceError if error.errno in _NO_ROOM else OutputError
    return kind(f"Cannot write: {error.strerror or error}", place=str(place))
