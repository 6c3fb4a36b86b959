"""Parts, the manifest, going on; a stub stands for the model, so that it takes seconds."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from committed import MODELS, ROOT
from msgspec import structs
from stub_jobs import Stub, go, job_of

from palrp_onnx.errors import InputError, OutputError, ResourceError, UsageError
from palrp_onnx.files import make_folder, write_files
from palrp_onnx.jobs import Line, Record, Settings
from palrp_onnx.jobs.run import BatchPlan
from palrp_onnx.jobs.settings import Shard
from palrp_onnx.jobs.sources import Folder


def write_input(folder: Path, count: int, bad: Sequence[int] = ()) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join('"bad"\n' if n in bad else '"fine"\n' for n in range(count)))
    return path


def ids(folder: Path) -> list[int]:
    parts = sorted(folder.glob("part-*.jsonl"))
    return [int(json.loads(line)["id"]) for part in parts for line in part.open()]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return found


def test_every_record_in_order(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome, heard = go(write_input(tmp_path, 25, bad=[3, 11]), BatchPlan(folder=out, part_size=10))
    assert outcome.complete and (outcome.tally.records, outcome.tally.failed) == (25, 2)
    assert ids(out) == list(range(1, 26))
    assert [len(path.read_bytes().splitlines()) for path in sorted(out.glob("part*"))] == [
        10,
        10,
        5,
    ]
    assert manifest(out)["state"] == "complete"
    counts = {"records": 25, "explained": 23, "failed": 2, "parts": 3}
    assert manifest(out)["counts"].items() >= counts.items()
    assert (heard.done, heard.skipped) == (25, 0)
    assert sorted(content(out)) == ["manifest.json", *(f"part-0000{n}.jsonl" for n in range(3))]


def test_only_missing_parts_are_computed(tmp_path: Path) -> None:
    source, out = write_input(tmp_path, 45, bad=[12]), tmp_path / "out"
    plan = BatchPlan(folder=out, part_size=10, resume=True)
    go(source, plan)
    whole = content(out)
    (out / "part-00001.jsonl").unlink()
    (out / "part-00003.jsonl").write_bytes(whole["part-00003.jsonl"][:40])  # cut off by hand
    (out / ".palrp-0123.part").write_bytes(b"half a part")
    stub = Stub()
    outcome, heard = go(source, plan, stub)
    assert sorted(stub.seen) == [*range(11, 21), *range(31, 41)]
    assert (heard.done, heard.skipped) == (20, 25)
    assert outcome.tally.failed == 1
    assert content(out) == whole


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    source, out = write_input(tmp_path, 60), tmp_path / "out"

    class Failing(Stub):
        def __call__(self, records: Sequence[Record], done: Callable[[int], None]) -> list[Line]:
            if records[0].number > 30:
                raise KeyboardInterrupt
            return super().__call__(records, done)

    with pytest.raises(KeyboardInterrupt):
        go(source, BatchPlan(folder=out, part_size=10), Failing())
    assert manifest(out)["state"] == "running"
    assert ids(out) == list(range(1, 31))
    go(source, BatchPlan(folder=out, part_size=10, resume=True))
    assert ids(out) == list(range(1, 61))


def test_a_folder_that_is_taken(tmp_path: Path) -> None:
    source, out = write_input(tmp_path, 5), tmp_path / "out"
    go(source, BatchPlan(folder=out))
    before = content(out)
    with pytest.raises(UsageError, match="already"):
        go(source, BatchPlan(folder=out))
    (out / "manifest.json").unlink()
    with pytest.raises(UsageError, match="no manifest"):
        go(source, BatchPlan(folder=out, resume=True))
    del before["manifest.json"]
    assert content(out) == before


def test_changes_are_refused_by_name(tmp_path: Path) -> None:
    source, out = write_input(tmp_path, 5), tmp_path / "out"
    go(source, BatchPlan(folder=out))
    plan = BatchPlan(folder=out, resume=True)
    before = content(out)
    job = job_of(source, plan)
    changes = {
        "--target": {"settings": Settings(target="1")},
        "--role mask": {"settings": Settings(roles={"mask": "mask"})},
        "model.sha256": {"model": structs.replace(job.model, sha256="1" * 64)},
        "model.files.config.json": {
            "model": structs.replace(job.model, files={"config.json": "0"})
        },
        "input.sha256": {"input": structs.replace(job.input, sha256="1" * 64)},
        "--shard count": {"shard": Shard(1, 2)},
        "--part-size": {"part_size": 7},
        "version": {"version": "0.0"},
    }
    for name, change in changes.items():
        with pytest.raises(UsageError, match=f"{name} was ") as caught:
            go(source, plan, job=structs.replace(job, **change))
        assert caught.value.exit_code == 2
    source.write_text('"fine"\n' * 6)
    with pytest.raises(UsageError, match=r"input\.sha256"):
        go(source, plan)
    assert content(out) == before


def test_the_input_is_looked_at_not_its_name(tmp_path: Path) -> None:
    source, out = write_input(tmp_path, 5), tmp_path / "out"
    go(source, BatchPlan(folder=out))
    moved = source.rename(tmp_path / "moved.jsonl")
    outcome, _ = go(moved, BatchPlan(folder=out, resume=True))
    assert outcome.complete


def test_too_many_errors_stop_a_batch(tmp_path: Path) -> None:
    source, out = write_input(tmp_path, 100, bad=range(15, 30)), tmp_path / "out"
    outcome, _ = go(source, BatchPlan(folder=out, part_size=10, max_errors=5))
    assert not outcome.complete and outcome.tally.failed == 15
    assert manifest(out)["state"] == "stopped"
    assert ids(out) == list(range(1, 31))
    outcome, _ = go(source, BatchPlan(folder=out, part_size=10, resume=True))
    assert outcome.complete and outcome.tally.failed == 15
    assert ids(out) == list(range(1, 101))


def test_no_errors_are_allowed(tmp_path: Path) -> None:
    source = write_input(tmp_path, 30, bad=[14])
    outcome, _ = go(source, BatchPlan(folder=tmp_path / "out", part_size=10, max_errors=0))
    assert not outcome.complete and ids(tmp_path / "out") == list(range(1, 21))


def test_shards_have_every_record_once(tmp_path: Path) -> None:
    source = write_input(tmp_path, 23)
    found = []
    for index in (1, 2, 3):
        out = tmp_path / str(index)
        go(source, BatchPlan(folder=out, part_size=4, shard=Shard(index, 3)))
        assert ids(out) == sorted(ids(out))
        found += ids(out)
    assert sorted(found) == list(range(1, 24))


def test_an_empty_input(tmp_path: Path) -> None:
    outcome, _ = go(write_input(tmp_path, 0), BatchPlan(folder=tmp_path / "out"))
    assert outcome.complete and outcome.tally.records == 0
    assert manifest(tmp_path / "out")["state"] == "complete"


# ----------------------------------------------------------------------------------- full disks


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, ResourceError), (errno.EROFS, OutputError)]
)
def test_nothing_is_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    source, out = write_input(tmp_path, 50), tmp_path / "out"
    go(source, BatchPlan(folder=tmp_path / "whole", part_size=10))
    synced, own = 0, os.fsync

    def fsync(handle: int) -> None:
        nonlocal synced
        synced += 1
        if synced == 7:
            raise OSError(number, os.strerror(number))
        own(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(kind):
        go(source, BatchPlan(folder=out, part_size=10))
    monkeypatch.undo()
    whole = content(tmp_path / "whole")
    for name, data in content(out).items():
        assert name == "manifest.json" or data == whole[name]
    go(source, BatchPlan(folder=out, part_size=10, resume=True))
    assert content(out) == whole


def test_a_limit_on_files(tmp_path: Path) -> None:
    """A real refusal of the system: files may not grow beyond a few bytes."""
    code = f"""
import resource
from pathlib import Path
from palrp_onnx.errors import ResourceError
from palrp_onnx.files import write_files
path = Path({str(tmp_path)!r}) / "x"
write_files({{path: b"old"}})
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_files({{path: [b"n" * 1000] * 100}})
except ResourceError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused\n", done.stderr
    assert content(tmp_path) == {"x": b"old"}


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        make_folder(tmp_path / "file" / "out")
    with pytest.raises(OutputError):
        write_files({tmp_path / "file" / "x": b""})


# --------------------------------------------------------------------------------------- memory

SUPPORT = ROOT / "tests" / "support"
MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from stub_jobs import Stub, go
from palrp_onnx.jobs.run import BatchPlan

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

folder = Path({folder!r})
for name, count in (("few", 30_000), ("many", 1_000_000)):
    source = folder / f"{{name}}.jsonl"
    with source.open("w") as stream:
        stream.writelines('{{"text": "a good film"}}\\n' for _ in range(count))
    stub = Stub()
    stub.seen = type("Nothing", (), {{"__iadd__": lambda self, other: self}})()
    outcome, heard = go(source, BatchPlan(folder=folder / name, part_size=5000), stub)
    assert outcome.tally.records == heard.done == count
    print(peak())
"""


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A million lines through everything but the model."""
    code = MEMORY.format(tests=str(SUPPORT), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    few, many = map(float, done.stdout.split())
    assert many < few + 15  # MiB


REAL = """
import resource
from pathlib import Path
import sys
sys.path.insert(0, {tests!r})
from stub_jobs import Heard
from palrp_onnx.jobs import Settings, Worker
from palrp_onnx.jobs.run import BatchPlan, run_with
from palrp_onnx.jobs.sources import open_source

folder = Path({folder!r})
worker = Worker({model!r}, Settings())
for count in (200, 1000):
    source = folder / f"{{count}}.jsonl"
    source.write_text('{{"text": "a gripping, beautifully acted drama"}}\\n' * count)
    plan = BatchPlan(folder=folder / str(count), part_size=40)
    outcome = run_with(worker, open_source(source, None), plan, Heard())
    assert (outcome.tally.records, outcome.tally.failed) == (count, 0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_stays_flat_with_a_model(tmp_path: Path) -> None:
    model = MODELS / "reviews-bert" / "model.onnx"
    code = REAL.format(tests=str(SUPPORT), folder=str(tmp_path), model=str(model))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    few, many = map(float, done.stdout.split())
    assert many < few + 30  # MiB; five times as many records


def test_a_folder_without_input_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"")
    with pytest.raises(InputError, match="no text"):
        Folder(tmp_path).facts()
