"""Files are written whole or not at all, even if the process or the machine fails; JSON."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from palrp_onnx.errors import OutputError, PalrpError, ResourceError

#: Content of a file: bytes, pieces of bytes, or a function that writes to a stream.
Content = bytes | Iterable[bytes] | Callable[[BinaryIO], object]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PREFIX, _SUFFIX = ".palrp-", ".part"


def to_json(value: object, *, indent: int = 2) -> bytes:
    """``value`` as indented JSON that ends in a newline."""
    import msgspec  # imported here to keep --help fast

    return msgspec.json.format(msgspec.json.encode(value), indent=indent) + b"\n"


def write_files(files: Mapping[Path, Content]) -> None:
    """Write every file next to its place, sync it to the disk, then move all to their places.

    Missing folders are made. A symbolic link is followed and stays a link. A replaced file keeps
    its mode. A device or a pipe is written to directly.

    Raises:
        OutputError: A place cannot be written to.
        ResourceError: The disk is full. As with every failure to write, no file was changed.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for path, content in files.items():
            place = Path(os.path.realpath(path))
            try:
                _stage(place, content, staged)
            except OSError as error:
                raise refusal(error, path) from error
        for temporary, place in staged:
            try:
                temporary.replace(place)
                _sync_folder(place.parent)
            except OSError as error:
                raise refusal(error, place) from error
    finally:
        for temporary, _ in staged:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _stage(place: Path, content: Content, staged: list[tuple[Path, Path]]) -> None:
    if place.exists() and not place.is_file() and not place.is_dir():
        with place.open("wb") as stream:
            _fill(stream, content)
        return
    if place.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    staged.append((temporary, place))
    with temporary.open("xb") as stream:
        if place.exists():
            temporary.chmod(place.stat().st_mode)
        _fill(stream, content)
        stream.flush()
        os.fsync(stream.fileno())


def _fill(stream: BinaryIO, content: Content) -> None:
    if isinstance(content, bytes):
        stream.write(content)
    elif callable(content):
        content(stream)
    else:
        stream.writelines(content)


def _sync_folder(folder: Path) -> None:
    """Sync a folder, and so the names in it; folders cannot be opened on every system."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, and remove unfinished files that a killed process left in it.

    Raises:
        OutputError: The folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise refusal(error, folder) from error


def refusal(error: OSError, place: object, what: str = "Cannot write") -> PalrpError:
    """The error of this library for an error of the operating system."""
    kind = ResourceError if error.errno in _NO_ROOM else OutputError
    return kind(f"{what}: {error.strerror or error}", place=str(place))
