"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from palrp_onnx.errors import OutputError, PalrpError, ResourceError

Content = bytes | Callable[[BinaryIO], object]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_files(files: Mapping[Path, Content]) -> None:
    """Write every file beside its place, then move all of them there.

    Folders are made as needed. A symbolic link is followed and stays a link; the mode of a file
    that is replaced is kept; a device or a pipe is written to as it is.

    Raises:
        OutputError: A place cannot be written to.
        ResourceError: There is no room. As with every failure to write, no file was changed.
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
    temporary = place.parent / f".palrp-{secrets.token_hex(8)}.part"
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
    else:
        content(stream)


def refusal(error: OSError, place: object, what: str = "Cannot write") -> PalrpError:
    """The error that an operating system's refusal is."""
    kind = ResourceError if error.errno in _NO_ROOM else OutputError
    return kind(f"{what}: {error.strerror or error}", place=str(place))


def write_stdout(data: bytes) -> None:
    """Write to stdout; a reader that has gone is no failure.

    Raises:
        ResourceError: There is no room where stdout leads.
    """
    stream = sys.stdout.buffer
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        close_stdout()
    except OSError as error:
        close_stdout()
        raise refusal(error, "stdout") from error


def close_stdout() -> None:
    """Let the interpreter's last flush go nowhere, after stdout has failed."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
