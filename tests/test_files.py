from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from palrp_onnx.errors import InputError, PalrpError, ResourceError
from palrp_onnx.files import write_files

pytestmark = pytest.mark.quick


def fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_writes_bytes_and_streams(tmp_path: Path) -> None:
    def stream(file: BinaryIO) -> None:
        file.write(b"two")

    write_files({tmp_path / "a" / "1": b"one", tmp_path / "b" / "2": stream})
    assert (tmp_path / "a" / "1").read_bytes() == b"one"
    assert (tmp_path / "b" / "2").read_bytes() == b"two"
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 2


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (fail(errno.EACCES), InputError),
        (fail(errno.EROFS), InputError),
        (fail(errno.ENOSPC), ResourceError),
        (ValueError("not ours"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_all_or_nothing(tmp_path: Path, failure: BaseException, kind: type[BaseException]) -> None:
    def stream(file: BinaryIO) -> None:
        file.write(b"half of it")
        raise failure

    old = tmp_path / "old"
    old.write_bytes(b"old")
    with pytest.raises(kind) as caught:
        write_files({old: b"new", tmp_path / "second": stream})
    assert old.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    if isinstance(caught.value, PalrpError):
        assert caught.value.place == str(tmp_path / "second")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="Cannot write"):
        write_files({tmp_path / "file" / "below": b""})
    with pytest.raises(InputError, match="Cannot write"):
        write_files({tmp_path: b""})
    with pytest.raises(InputError, match="Cannot write"):
        write_files({tmp_path / ("n" * 300): b""})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError):
        write_files({tmp_path / "file": b""})


def test_link_is_followed_and_mode_kept(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(target)
    write_files({link: b"new"})
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_devices_are_written_to(tmp_path: Path) -> None:
    null = Path(os.devnull)
    write_files({null: b"gone", tmp_path / "file": b"kept"})
    assert null.is_char_device()
    assert (tmp_path / "file").read_bytes() == b"kept"
