"""Entries are whole and of their key, or there are none; the folder never fails its callers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from palrp_onnx.cache.folder import LARGEST, CacheFolder

pytestmark = pytest.mark.quick

CONTENT = bytes(range(256)) * 40


def entry(folder: CacheFolder) -> Path:
    (found,) = folder.path.glob("*.entry")
    return found


def test_what_was_put_is_found(folder: CacheFolder) -> None:
    assert folder.get("a") is None
    assert folder.put("a", CONTENT)
    assert (folder.get("a"), folder.get("b")) == (CONTENT, None)
    assert folder.put("a", b"other")
    assert folder.get("a") == b"other"
    assert [oct(path.stat().st_mode & 0o777) for path in (folder.path, entry(folder))] == [
        "0o700",
        "0o600",
    ]
    folder.remove("a")
    assert folder.get("a") is None


@pytest.mark.parametrize("damage", ["changed", "truncated", "empty", "longer", "header"])
def test_damaged_entries_are_none_and_are_replaced(folder: CacheFolder, damage: str) -> None:
    folder.put("a", CONTENT)
    path = entry(folder)
    data = bytearray(path.read_bytes())
    match damage:
        case "changed":
            data[-1] ^= 1
        case "truncated":
            del data[-10:]
        case "empty":
            data.clear()
        case "longer":
            data += b"x"
        case "header":
            data[0] ^= 1
    path.write_bytes(data)
    assert folder.get("a") is None
    assert folder.put("a", CONTENT) and folder.get("a") == CONTENT


def test_an_entry_of_another_key_is_none(folder: CacheFolder) -> None:
    folder.put("a", CONTENT)
    first = entry(folder)
    folder.put("b", b"other")
    (second,) = set(folder.path.glob("*.entry")) - {first}
    first.write_bytes(second.read_bytes())
    assert (folder.get("a"), folder.get("b")) == (None, b"other")


@pytest.mark.parametrize("kind", ["link", "hard link", "world", "group", "pipe", "folder"])
def test_entries_that_others_may_have_made_are_none(
    folder: CacheFolder, tmp_path: Path, kind: str
) -> None:
    folder.put("a", CONTENT)
    path, elsewhere = entry(folder), tmp_path / "elsewhere"
    match kind:
        case "link":
            path.rename(elsewhere)
            path.symlink_to(elsewhere)
        case "hard link":
            os.link(path, elsewhere)
        case "world":
            path.chmod(0o602)
        case "group":
            path.chmod(0o620)
        case "pipe":
            path.unlink()
            os.mkfifo(path, 0o600)
        case "folder":
            path.unlink()
            path.mkdir(0o700)
    assert folder.get("a") is None
    if kind == "folder":
        assert not folder.put("a", CONTENT)
        return
    assert folder.put("a", CONTENT) and folder.get("a") == CONTENT
    if elsewhere.exists():
        assert elsewhere.read_bytes()[-len(CONTENT) :] == CONTENT  # a link is not written through


def test_a_folder_that_is_not_of_the_user_alone_is_not_used(
    folder: CacheFolder, tmp_path: Path
) -> None:
    folder.put("a", CONTENT)
    folder.path.chmod(0o777)
    assert folder.get("a") is None and not folder.put("b", CONTENT)
    with pytest.raises(PermissionError):
        folder.held()
    folder.path.chmod(0o700)
    assert folder.get("a") == CONTENT
    link = tmp_path / "link"
    link.symlink_to(folder.path)
    assert CacheFolder(link).get("a") is None and not CacheFolder(link).put("b", CONTENT)


@pytest.mark.parametrize("place", ["file", "/dev/null/cache", "/proc/cache"])
def test_a_folder_that_cannot_be_made_holds_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    folder = CacheFolder(tmp_path / place)
    assert not folder.put("a", CONTENT)
    assert folder.get("a") is None


def test_a_full_disk_is_no_failure(folder: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put("a", CONTENT)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palrp_onnx.cache.folder._write", full)
    assert not folder.put("b", CONTENT)
    assert [each.name for each in folder.held()] == [entry(folder).name]


def test_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path / "cache", limit=3 * len(CONTENT) + 400)
    for age, key in enumerate("abc"):
        folder.put(key, CONTENT)
        (new,) = (p for p in folder.path.glob("*.entry") if p.stat().st_mtime > time.time() - 3600)
        os.utime(new, (time.time() - 7200 + age,) * 2)
    assert folder.get("a") == CONTENT  # it is used now
    folder.put("d", CONTENT)
    assert [folder.get(key) is not None for key in "abcd"] == [True, False, True, True]
    assert not folder.put("e", bytes(4 * len(CONTENT)))  # more than all
    assert not CacheFolder(tmp_path / "other").put("e", bytes(LARGEST + 1))


def test_clear_removes_entries_and_rests(folder: CacheFolder) -> None:
    assert folder.clear() == [] and folder.held() == []
    folder.put("a", CONTENT)
    (folder.path / "left.part").write_bytes(b"")
    (folder.path / "mine.txt").write_text("not an entry")
    assert [each.size > len(CONTENT) for each in folder.clear()] == [True]
    assert [path.name for path in folder.path.iterdir()] == ["mine.txt"]


def test_old_rests_of_killed_processes_go(folder: CacheFolder) -> None:
    folder.put("a", CONTENT)
    old, new = folder.path / "old.part", folder.path / "new.part"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    folder.put("b", CONTENT)
    assert (old.exists(), new.exists()) == (False, True)


_WRITER = """
import sys
from pathlib import Path
from palrp_onnx.cache.folder import CacheFolder
folder = CacheFolder(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    folder.put("a", bytes([int(sys.argv[2])]) * 3_000_000)
"""


def test_readers_see_whole_entries_while_writers_are_killed(folder: CacheFolder) -> None:
    for seed in range(1, 5):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(folder.path), str(seed + k)],
                stdout=subprocess.PIPE,
            )
            for k in range(2)
        ]
        for each in writers:
            assert each.stdout is not None and each.stdout.readline() == b"ready\n"
        for _ in range(10):
            found = folder.get("a")
            assert found is None or (len(found) == 3_000_000 and len(set(found)) == 1)
        for each in writers:
            each.send_signal(signal.SIGKILL)
            each.wait()
            assert each.stdout is not None
            each.stdout.close()
    assert folder.put("a", CONTENT) and folder.get("a") == CONTENT


@pytest.mark.parametrize("said", ["0", "false", "No", "OFF"])
def test_the_switch(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PALRP_ONNX_CACHE", said)
    assert CacheFolder.usual() is None
    monkeypatch.setenv("PALRP_ONNX_CACHE", "1")
    assert CacheFolder.usual() == CacheFolder(tmp_path / "palrp-onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CacheFolder.usual() == CacheFolder(tmp_path / ".cache" / "palrp-onnx")
