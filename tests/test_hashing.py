"""Digests are those of all bytes, and of the files as they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from palrp_onnx.hashing import Digest

pytestmark = pytest.mark.quick


def test_files_follow_each_other(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * (number * 3_000_000))
    expected = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert Digest(files).hex() == expected
    own = Digest(files[:2])
    assert Digest(files[2:], before=own).hex() == expected
    assert Digest([], before=own).hex() == own.hex()


def test_a_digest_that_was_begun_is_taken_once(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    Digest.begin([file])
    taken = Digest.of([file])
    assert Digest.of([file]) is not taken
    assert taken.hex() == hashlib.sha256(b"a").hexdigest()


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    for each in (file, other):
        each.write_bytes(b"before")
    digest = Digest([other], before=Digest([file]))
    digest.hex()
    other.write_bytes(b"1")
    file.write_bytes(b"after")
    assert digest.hex() == hashlib.sha256(b"after1").hexdigest()


def test_a_missing_file_is_an_error_where_it_is_asked_for(tmp_path: Path) -> None:
    digest = Digest([tmp_path / "a"])
    with pytest.raises(FileNotFoundError):
        digest.hex()
    with pytest.raises(FileNotFoundError):
        Digest([], before=digest).hex()
