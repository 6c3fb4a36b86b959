"""A folder of entries that belongs to one user, is bounded, and is never believed.

An entry is a file: a line that names the form, the SHA-256 of its key and its content, and the
content. It is read only if the folder and the file belong to the user, and nobody else may write
or read them; if it is a regular file with one name, and no link; and if its digest is right. All
else is as if there were no entry. Entries are written whole, under another name, and then renamed,
so that processes can read and write at the same time, and be killed. No failure of the folder is a
failure of the caller.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: The variable that switches the cache off, and what it says then.
SWITCH, _NO = "PALRP_ONNX_CACHE", ("0", "f", "false", "n", "no", "off")
#: The form of entries; another one has another line.
_FORM = b"palrp-onnx entry 1\n"
_NAME, _SUFFIX, _PART = "palrp-onnx", ".entry", ".part"
_DIGEST = hashlib.sha256().digest_size
#: Bytes of all entries, and of the largest one.
LIMIT, LARGEST = 512 << 20, 64 << 20
#: Seconds after which an unfinished file is one that a killed process has left.
_LEFT = 3600
_PRIVATE = 0o077


@dataclass(frozen=True)
class Held:
    """One entry as the folder lists it: its file, its bytes, and seconds since 1970 of its use."""

    name: str
    size: int
    used: float


@dataclass(frozen=True)
class CacheFolder:
    """A folder of entries.

    Attributes:
        path: The folder, which need not exist.
        limit: The most bytes of all entries; those that were not used for longest are removed.
    """

    path: Path
    limit: int = LIMIT

    @classmethod
    def usual(cls) -> CacheFolder | None:
        """The folder of the user; ``None`` where ``PALRP_ONNX_CACHE`` says no, or there is none."""
        return None if os.environ.get(SWITCH, "").strip().lower() in _NO else cls.of_user()

    @classmethod
    def of_user(cls) -> CacheFolder | None:
        """``$XDG_CACHE_HOME/palrp-onnx``; ``None`` where files or users have none of their own."""
        if not hasattr(os, "geteuid"):
            return None
        base = os.environ.get("XDG_CACHE_HOME", "")
        if Path(base).is_absolute():  # others are to be ignored, says the standard
            return cls(Path(base, _NAME))
        try:
            return cls(Path.home() / ".cache" / _NAME)
        except RuntimeError:
            return None

    def get(self, key: str) -> bytes | None:
        """The content that was put under a key; ``None`` where there is none that is believed."""
        with suppress(OSError), self._opened() as folder:
            content = _content(key, _read(folder, _file_of(key)))
            if content is not None:
                with suppress(OSError):
                    os.utime(_file_of(key), dir_fd=folder, follow_symlinks=False)
            return content
        return None

    def put(self, key: str, content: bytes) -> bool:
        """Keep a content under a key; whether that was possible."""
        if len(content) > min(LARGEST, self.limit):
            return False
        temporary = f"{secrets.token_hex(8)}{_PART}"
        with suppress(OSError), self._opened(make=True) as folder:
            try:
                _write(folder, temporary, key, content)
                os.rename(temporary, _file_of(key), src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:  # the disk is full: make room for next time
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                self._bound(folder)
                return False
            self._bound(folder)
            return True
        return False

    def remove(self, key: str) -> None:
        """Remove the entry of a key, if there is one."""
        with suppress(OSError), self._opened() as folder:
            os.unlink(_file_of(key), dir_fd=folder)

    def clear(self) -> list[Held]:
        """Remove all entries, and return those that were there.

        Raises:
            OSError: An entry cannot be removed, or the folder is not one of this user alone.
        """
        if not self.path.exists():
            return []
        with self._opened() as folder:
            held = list(_held(folder))
            for name in [*(each.name for each in held), *_parts(folder)]:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            return held

    def held(self) -> list[Held]:
        """All entries, the last one used first.

        Raises:
            OSError: The folder cannot be read, or is not one of this user alone.
        """
        if not self.path.exists():
            return []
        with self._opened() as folder:
            return sorted(_held(folder), key=lambda each: each.used, reverse=True)

    @contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[int]:
        """The folder as a descriptor, so that it cannot become another one meanwhile.

        Raises:
            OSError: There is none, or it is a link, or others can write to it.
        """
        if make:
            self.path.parent.mkdir(0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.path.mkdir(0o700)
        found = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check_owner(os.fstat(found), str(self.path))
            yield found
        finally:
            os.close(found)

    def _bound(self, folder: int) -> None:
        """Remove what was not used for longest, and what killed processes have left."""
        held = sorted(_held(folder), key=lambda each: each.used, reverse=True)
        total = 0
        for each in held:
            total += each.size
            if total > self.limit:
                with suppress(OSError):
                    os.unlink(each.name, dir_fd=folder)
        for name in _parts(folder):
            with suppress(OSError):
                if time.time() - os.stat(name, dir_fd=folder).st_mtime > _LEFT:
                    os.unlink(name, dir_fd=folder)


def _file_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest() + _SUFFIX


def _held(folder: int) -> Iterator[Held]:
    for name in os.listdir(folder):
        if name.endswith(_SUFFIX):
            with suppress(OSError):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                yield Held(name, found.st_size, found.st_mtime)


def _parts(folder: int) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(_PART)]


def _check_owner(found: os.stat_result, place: str) -> None:
    if found.st_uid != os.geteuid() or found.st_mode & _PRIVATE:
        raise PermissionError(f"{place} is not of this user alone (chmod go= would make it so)")


def _read(folder: int, name: str) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(name, flags, dir_fd=folder)
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(handle)
        _check_owner(found, name)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size > 2 * LARGEST:
            raise PermissionError(f"{name} is no file of its own")
        return stream.read()


def _write(folder: int, name: str, key: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as stream:
        stream.write(_FORM + _digest(key, content))
        stream.write(content)


def _content(key: str, data: bytes) -> bytes | None:
    """The content of an entry, if it is whole and belongs to the key."""
    start = len(_FORM) + _DIGEST
    content = data[start:]
    whole = data[:start] == _FORM + _digest(key, content)
    return content if whole else None


def _digest(key: str, content: bytes) -> bytes:
    digest = hashlib.sha256(len(key.encode()).to_bytes(8, "big") + key.encode())
    digest.update(content)
    return digest.digest()
