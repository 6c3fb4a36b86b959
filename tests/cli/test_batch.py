"""``palrp-onnx batch`` as a shell sees it: kills, bad records, exit codes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shifted_ids
from click.testing import Result
from committed import MODELS

from palrp_onnx.cli.progress import Plain, duration
from palrp_onnx.jobs import Settings, ray
from palrp_onnx.jobs.tally import Tally
from palrp_onnx.record import decode

Run = Callable[..., Result]

PROGRAM = (sys.executable, "-c", "from palrp_onnx.cli.main import main; main()")
WORDS = "a good bad film".split()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_records(tmp_path / "data.jsonl", 40)


def write_records(path: Path, count: int) -> Path:
    generator = random.Random(0)
    rows: list[dict[str, Any]] = [
        {"id": f"r{n}", "text": " ".join(generator.choices(WORDS, k=generator.randint(1, 6)))}
        for n in range(count)
    ]
    for n in range(5, count, 100):
        rows[n] = {"id": f"r{n}", "text": " "}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(folder: Path) -> list[dict[str, Any]]:
    parts = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_bytes().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_data_set(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("batch", model, "--input", data, "-o", out, "--part-size", 16)
    assert result.exit_code == 6, result.stderr
    assert result.stdout == ""
    assert "40 records, 1 failed" in result.stderr
    found = lines(out)
    assert [line["id"] for line in found] == [f"r{n}" for n in range(40)]
    assert set(found[5]) == {"id", "error"}
    assert set(found[5]["error"]) == {"code", "message", "place", "hint"}
    for part in sorted(out.glob("part-*.jsonl")):
        for line in part.read_bytes().splitlines():
            if line.startswith(b'{"schema"'):
                assert decode(line).run.ms == {}
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["state"] == "complete" and manifest["counts"]["failed"] == 1


def test_all_well_is_exit_code_0(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = b'{"text": "a good film"}\n{"input_ids": [1, 3], "target": "NEGATIVE", "meta": 4}\n'
    result = run("batch", model, "--input", "-", "-o", out, "-q", stdin=rows)
    assert (result.exit_code, result.stderr) == (0, "")
    first, second = lines(out)
    assert (first["id"], second["id"], second["meta"]) == ("1", "2", 4)
    assert second["target"]["label"] == "NEGATIVE"
    result = run("batch", model, "--input", "-", "-o", out, "--resume", stdin=rows)
    assert result.exit_code == 2 and "stream" in result.stderr


def test_checks_and_what_was_not_read(run: Run, tmp_path: Path) -> None:
    model = MODELS / "reviews-rope"
    out, data = tmp_path / "out", tmp_path / "data.jsonl"
    texts = ["a good film", "\u2603 \u2602 good", "good " * 900, " "]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    limits = ("--fail-on", "truncated", "--fail-on", "unknown>0.2", "--fail-on", "residual>1")
    call = ("batch", model, "--input", data, "-o", out, "--part-size", 1)
    result = run(*call, *limits)
    assert result.exit_code == 5, result.stderr
    assert (
        "4 records, 1 failed, 1 truncated, 2 unknown tokens, 1 warning:truncated" in result.stderr
    )
    assert "(truncated: 1, unknown>0.2: 1)" in result.stderr
    counts = json.loads((out / "manifest.json").read_bytes())["counts"]
    assert counts["warnings"] == {"truncated": 1}
    assert (counts["truncated"], counts["unknown"]) == (1, 2)
    assert counts["checks"] == {"truncated": 1, "unknown>0.2": 1, "residual>1": 0}
    verdicts = [[check["passed"] for check in line["checks"]] for line in lines(out)[:3]]
    assert verdicts == [[True, True, True], [True, False, True], [False, True, True]]
    whole = content(out)
    (out / "part-00001.jsonl").unlink()
    (out / "part-00002.jsonl").write_bytes(whole["part-00002.jsonl"][:-30] + b"\n")
    assert run(*call, *limits, "--resume").exit_code == 5
    assert content(out) == whole
    changed = run(*call, *limits[2:], "--resume")
    assert changed.exit_code == 2 and "--fail-on" in changed.stderr


def test_resume_and_refusals(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = ("batch", model, "--input", data, "-o", out, "--part-size", 8)
    assert run(*call).exit_code == 6
    whole = content(out)
    assert run(*call).exit_code == 2
    (out / "part-00002.jsonl").unlink()
    assert run(*call, "--resume").exit_code == 6
    assert content(out) == whole
    for change in (
        ["--method", "attnlrp"],
        ["--target", "1"],
        ["--part-size", 9],
        ["--shard", "1/2"],
    ):
        result = run(*call, "--resume", *change)
        assert result.exit_code == 2 and change[0].strip("-").split("-")[0] in result.stderr
    with data.open("a") as stream:
        stream.write("{}\n")
    result = run(*call, "--resume")
    assert result.exit_code == 2 and "input.sha256" in result.stderr
    assert content(out) == whole


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"--input": "missing.jsonl"}, 3),
        ({"--input": "/dev/null"}, 3),
        ({"--target": "NEITHER"}, 4),
        ({"--output": "neither"}, 4),
        ({"--shard": "3/2"}, 2),
        ({"--device": "cuda:9"}, 7),
        ({"-o": "/dev/null/out"}, 3),
        ({"--tokenizer": "missing.json"}, 3),
    ],
)
def test_what_is_no_records_fault(
    run: Run, model: Path, data: Path, tmp_path: Path, change: dict[str, str], code: int
) -> None:
    options = {"--input": str(data), "-o": str(tmp_path / "out"), **change}
    result = run("batch", model, *(each for pair in options.items() for each in pair))
    assert result.exit_code == code, result.stderr
    assert not (tmp_path / "out").exists()


def test_results_do_not_go_among_the_input(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a film")
    (tmp_path / "notes.csv").write_text("no input")
    assert run("batch", model, "--input", tmp_path, "-o", tmp_path).exit_code == 2
    result = run("batch", model, "--input", tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "1 records (1 other files ignored)" in result.stderr
    assert [line["id"] for line in lines(tmp_path / "out")] == ["a.txt"]


def test_stopped_by_errors(run: Run, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": ""}\n' * 30)
    out = tmp_path / "out"
    call = ("batch", model, "--input", path, "-o", out, "--part-size", 4, "--max-errors", 5)
    result = run(*call)
    assert result.exit_code == 6 and "stopped" in result.stderr
    assert len(lines(out)) == 8


def test_pictures(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    """Of the records with the largest |target value|."""
    out = tmp_path / "out"
    run("batch", model, "--input", data, "-o", out, "--part-size", 16, "--pictures", 3)
    values = {
        number: abs(line["target"]["value"])
        for number, line in enumerate(lines(out), start=1)
        if "target" in line
    }
    largest = sorted(values, key=lambda number: (-values[number], number))[:3]
    pictures = sorted((out / "pictures").iterdir())
    assert [path.name for path in pictures] == [f"{number:08}.png" for number in sorted(largest)]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    result = run("batch", model, "--input", "-", "-o", tmp_path / "p", "--pictures", 1, stdin="")
    assert result.exit_code == 2


def test_parquet(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out"
    call = ("batch", model, "--input", data, "-o", out, "--part-size", 16, "--parquet")
    assert run(*call).exit_code == 6
    whole = content(out)
    tables = [parquet.read_table(path) for path in sorted(out.glob("part-*.parquet"))]
    assert len(tables) == 3 and len({table.schema for table in tables}) == 1
    rows = [row for table in tables for row in table.to_pylist()]
    for row, line in zip(rows, lines(out), strict=True):
        assert row["id"] == line["id"]
        if "error" in line:
            assert row["error"] == line["error"] and row["relevance"] is None
        else:
            assert row["relevance"] == line["relevance"]
            assert json.loads(row["ledger"]) == line["ledger"]
            assert row["units"]["text"] == line["units"]["text"]
    (out / "part-00001.parquet").unlink()
    assert run(*call, "--resume").exit_code == 6
    assert content(out) == whole
    again = tmp_path / "again"
    table = data.with_suffix(".parquet")
    arrow = pytest.importorskip("pyarrow")
    given = [json.loads(line) for line in data.read_text().splitlines()]
    parquet.write_table(arrow.Table.from_pylist(given), table)
    run("batch", model, "--input", table, "-o", again, "--part-size", 16)
    explained = [line for line in lines(again) if "error" not in line]
    assert explained == [line for line in lines(out) if "error" not in line]


def test_a_folder_of_images(run: Run, tmp_path: Path) -> None:
    vit = MODELS / "digits-vit"
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("b.png", "a.png"):
        (folder / name).write_bytes((vit / "sample.png").read_bytes())
    (folder / "c.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    result = run("batch", vit / "model.onnx", "--input", folder, "-o", out, "--pictures", 1)
    assert result.exit_code == 6, result.stderr
    assert [(line["id"], "error" in line) for line in lines(out)] == [
        ("a.png", False),
        ("b.png", False),
        ("c.png", True),
    ]
    assert [path.name for path in (out / "pictures").iterdir()] == ["00000001.png"]


# ------------------------------------------------------------------------------------- examples


@pytest.fixture
def shifted(tmp_path: Path) -> Path:
    """A model that runs on no input that is made up."""
    return shifted_ids.write_model(tmp_path / "shifted.onnx")


ROWS = ([1001, 1009], [1003, 1003, 1007], [1000, 1008], [1004])
CHOSEN = ("--target", "1", "--positions", "signed")


def write_ids(path: Path) -> Path:
    path.write_text("".join(json.dumps({"input_ids": ids}) + "\n" for ids in ROWS))
    return path


@pytest.mark.parametrize("given", [True, False])
def test_a_model_that_runs_on_nothing_made_up(
    run: Run, shifted: Path, tmp_path: Path, given: bool
) -> None:
    """With an example; without one the first record is it, and records run one at a time."""
    example = shifted_ids.write_example(tmp_path / "example.npz")
    data, out = write_ids(tmp_path / "data.jsonl"), tmp_path / "out"
    more = ("--example", example) if given else ()
    result = run("batch", shifted, "--input", data, "-o", out, *CHOSEN, *more)
    assert result.exit_code == 0, result.stderr
    for line, ids in zip(lines(out), ROWS, strict=True):
        shifted_ids.check(line, ids)


def test_an_example_decides_what_a_batch_is(run: Run, shifted: Path, tmp_path: Path) -> None:
    """Its content does, not its path."""
    example = shifted_ids.write_example(tmp_path / "example.npz")
    moved = shifted_ids.write_example(tmp_path / "moved.npz")
    other = shifted_ids.write_example(tmp_path / "other.npz", shifted_ids.IDS[:1])
    data, out = write_ids(tmp_path / "data.jsonl"), tmp_path / "out"
    call = ("batch", shifted, "--input", data, "-o", out, *CHOSEN, "--resume")
    assert run(*call, "--example", example).exit_code == 0
    whole = content(out)
    (out / "part-00000.jsonl").unlink()
    assert run(*call, "--example", moved).exit_code == 0
    assert content(out) == whole
    for change in (("--example", other), ()):
        result = run(*call, *change)
        assert result.exit_code == 2 and "model.files.example was" in result.stderr
    assert content(out) == whole


@pytest.mark.parametrize(
    ("ids", "problem"),
    [(None, "no such file"), ([[1, 2]], "The model does not run on the example")],
)
def test_an_example_that_is_none(
    run: Run, shifted: Path, tmp_path: Path, ids: list[list[int]] | None, problem: str
) -> None:
    example = tmp_path / "example.npz"
    if ids is not None:
        shifted_ids.write_example(example, np.array(ids))
    data, out = write_ids(tmp_path / "data.jsonl"), tmp_path / "out"
    result = run("batch", shifted, "--input", data, "-o", out, "--example", example)
    assert result.exit_code == 3 and problem in result.stderr
    assert not out.exists()


def test_an_example_reaches_every_worker(run: Run, shifted: Path, tmp_path: Path) -> None:
    example = shifted_ids.write_example(tmp_path / "example.npz")
    data, alone, several = write_ids(tmp_path / "data.jsonl"), tmp_path / "a", tmp_path / "s"
    options = ("--example", example, "--part-size", 2, *CHOSEN)
    assert run("batch", shifted, "--input", data, "-o", alone, *options).exit_code == 0
    assert start(shifted, data, several, *options, "--workers", 2).wait(120) == 0
    assert content(several) == content(alone)


def test_files_reach_a_cluster(
    run: Run, shifted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actors start in other folders."""
    found: list[Settings] = []

    def explain_lines(_model: Path, settings: Settings, *_: Any, **__: Any) -> Tally:
        found.append(settings)
        return Tally(records=4)

    monkeypatch.setattr(ray, "explain_lines", explain_lines)
    monkeypatch.chdir(tmp_path)
    data = write_ids(tmp_path / "data.jsonl")
    call = ("batch", shifted, "--input", data, "-o", tmp_path / "out", "--engine-workers", 2)
    assert run(*call, "--example", "e.npz", "--tokenizer", "t.json").exit_code == 0
    assert run(*call).exit_code == 0
    files = [(each.example, each.tokenizer) for each in found]
    assert files == [(str(tmp_path / "e.npz"), str(tmp_path / "t.json")), (None, None)]


# ---------------------------------------------------------------------------------------- kills


PARTS = ("--part-size", 20)


def start(model: Path, data: Path, out: Path, *options: object) -> subprocess.Popen[bytes]:
    command = [*PROGRAM, "batch", model, "--input", data, "-o", out, *PARTS, "--resume"]
    return subprocess.Popen(
        [*map(str, command), *map(str, options)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_killed_again_and_again(run: Run, model: Path, tmp_path: Path) -> None:
    """Every record once, in order, byte for byte as if nothing had happened."""
    data = write_records(tmp_path / "data.jsonl", 2000)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run("batch", model, "--input", data, "-o", whole, *PARTS).exit_code == 6
    generator = random.Random(4)
    killed = 0
    for _ in range(4):
        process = start(model, data, out)
        before = len(list(out.glob("part-*.jsonl"))) if out.is_dir() else 0
        more = before + generator.randint(1, 8)
        while process.poll() is None and len(list(out.glob("part-*.jsonl"))) < more:
            time.sleep(0.001)
        time.sleep(generator.random() / 50)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 3
    assert len(list(out.glob("part-*.jsonl"))) < 100  # there was something left to do
    last = start(model, data, out)
    assert last.wait(120) == 6, last.stderr and last.stderr.read()
    assert [line["id"] for line in lines(out)] == [f"r{n}" for n in range(2000)]
    assert content(out) == content(whole)


def test_workers(run: Run, model: Path, tmp_path: Path) -> None:
    """The same bytes from two processes, which end with the one that started them."""
    data = write_records(tmp_path / "data.jsonl", 300)
    alone, several, cut = (tmp_path / name for name in ("alone", "several", "cut"))
    assert run("batch", model, "--input", data, "-o", alone, *PARTS).exit_code == 6
    assert start(model, data, several, "--workers", 2).wait(120) == 6
    assert content(several) == content(alone)
    process = start(model, data, cut, "--workers", 2)
    while process.poll() is None and not list(cut.glob("part-*.jsonl")):
        time.sleep(0.001)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not group_lives(process.pid)
    assert start(model, data, cut, "--workers", 2).wait(120) == 6
    assert content(cut) == content(alone)


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked up in /proc")
def test_a_worker_that_is_killed(model: Path, tmp_path: Path) -> None:
    data = write_records(tmp_path / "data.jsonl", 20_000)
    out = tmp_path / "out"
    process = start(model, data, out, "--workers", 2, "-q")
    while process.poll() is None and not list(out.glob("part-*.jsonl")):
        time.sleep(0.001)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 7, stderr
    assert b"error[resource]" in stderr and b"--resume" in stderr
    assert not list(out.glob(".palrp-*"))


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_interrupted(model: Path, tmp_path: Path) -> None:
    data = write_records(tmp_path / "data.jsonl", 20_000)
    out = tmp_path / "out"
    process = start(model, data, out)
    while process.poll() is None and not list(out.glob("part-*.jsonl")):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.strip().startswith(b"interrupted\n  to go on: palrp-onnx ")
    assert not list(out.glob(".palrp-*"))


# ------------------------------------------------------------------------------------- progress


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Plain(every=0.0)
    bar.start(200)
    bar.skip(100)
    time.sleep(0.01)
    bar.advance(50)
    line = capsys.readouterr().err
    assert line.startswith("150/200 75.0% ") and "records/s eta " in line
    bar.start(None)
    bar.advance(1)
    assert capsys.readouterr().err.startswith("151 ")


@pytest.mark.parametrize(("seconds", "text"), [(8.6, "9s"), (251, "4m11s"), (11_100, "3h05m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_bar_on_a_terminal(model: Path, data: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    main, other = pty.openpty()
    command = [*PROGRAM, "batch", str(model), "--input", str(data), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=other, timeout=120)
    os.close(other)
    shown = b""
    try:
        while chunk := os.read(main, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(main)
    assert done.returncode == 6 and done.stdout == b""
    assert b"explaining" in shown and b"40/40" in shown and b"records/s" in shown


@pytest.mark.parametrize("more", [["--resume"], ["--pictures", "2"], ["--shard", "1/2"]])
def test_a_cluster_takes_whole_files(
    run: Run, model: Path, tmp_path: Path, more: list[str]
) -> None:
    source = tmp_path / "records.jsonl"
    source.write_text('{"id": "a", "text": "good"}\n')
    arguments = ("batch", model, "--input", source, "-o", tmp_path / "out", "--engine-workers", "2")
    assert run(*arguments, *more).exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lines", ["", "\n\n"])
def test_an_input_without_records_is_an_error(
    run: Run, model: Path, tmp_path: Path, lines: str
) -> None:
    path = tmp_path / "none.jsonl"
    path.write_text(lines)
    result = run("batch", model, "--input", path, "-o", tmp_path / "out")
    assert result.exit_code == 3 and "holds no record" in result.stderr
    missing = run("batch", model, "--input", tmp_path / "nope", "-o", tmp_path / "out")
    assert missing.exit_code == 3 and "no such file or folder" in missing.stderr
    write_records(path, 1)
    shard = ("--shard", "2/2", "-o", tmp_path / "shard")
    assert run("batch", model, "--input", path, *shard).exit_code == 0
