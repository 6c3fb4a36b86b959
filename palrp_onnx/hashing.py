"""Digests of large files, computed by a thread while others work: hashing needs no lock of Python.

A digest that was begun early, before the slow imports, is found again by :meth:`Digest.of`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

_CHUNK = 1 << 20
#: What tells that a file is no longer the same: device, number, size, and times of two changes.
_State = tuple[int, ...]


class Digest:
    """The SHA-256 of some files, one after the other.

    Args:
        files: The files, with links resolved.
        before: The digest of files that come before these.
    """

    def __init__(self, files: Sequence[Path], *, before: Digest | None = None) -> None:
        self.files = tuple(files)
        self._before = before
        self._hash = hashlib.sha256()
        self._states: list[_State] = []
        self._problem: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    @classmethod
    def begin(cls, files: Sequence[Path]) -> None:
        """Begin a digest that the next :meth:`of` of these files takes."""
        _begun[tuple(files)] = cls(files)

    @classmethod
    def of(cls, files: Sequence[Path]) -> Digest:
        """The digest of files: one that was begun and has not been taken, or a new one."""
        return _begun.pop(tuple(files), None) or cls(files)

    def hex(self) -> str:
        """The digest in hexadecimal; files that have changed since are read again.

        Raises:
            OSError: A file cannot be read.
        """
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        if not self._is_current():
            return Digest(self._every()).hex()
        return self._hash.hexdigest()

    def _run(self) -> None:
        try:
            if self._before is not None:
                self._before._thread.join()
                if self._before._problem is not None:
                    raise self._before._problem
                self._hash = self._before._hash.copy()
            for file in self.files:
                self._states.append(_state(file))
                self._read(file)
        except Exception as error:  # it is raised where the digest is asked for
            self._problem = error

    def _read(self, file: Path) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                self._hash.update(buffer[:count])

    def _is_current(self) -> bool:
        before = self._before is None or self._before._is_current()
        return before and self._states == [_state(file) for file in self.files]

    def _every(self) -> tuple[Path, ...]:
        return (*(() if self._before is None else self._before._every()), *self.files)


_begun: dict[tuple[Path, ...], Digest] = {}


def _state(file: Path) -> _State:
    found = file.stat()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
