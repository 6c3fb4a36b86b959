"""The program as a shell sees it: exit codes, streams, signals, start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import jsonschema
import onnxruntime
import pytest
from click.testing import Result

from palrp_onnx import errors
from palrp_onnx.cli import options
from palrp_onnx.explainer import Explainer
from palrp_onnx.record import json_schema
from palrp_onnx.relevance.sinks import Reduction

Run = Callable[..., Result]

PROGRAM = (sys.executable, "-c", "from palrp_onnx.cli.main import main; main()")
HEAVY = (
    *("numpy", "onnx", "onnx_ir", "onnxruntime", "tokenizers", "PIL", "msgspec", "rich", "torch"),
    "palrp_onnx.rules",
)


def shell(*arguments: object, **named: object) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, **named)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["explain", "--help"], ["inspect", "-h"], ["--version"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from palrp_onnx.cli.main import program
try:
    program.main({arguments!r}, prog_name="palrp-onnx")
except SystemExit as stop:
    assert stop.code == 0, stop.code
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.stderr.decode().strip() == "[]"
    assert b"palrp-onnx" in done.stdout


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("explain", "export", "inspect", "schema"):
        assert name in result.stdout


def test_choices_are_the_librarys() -> None:
    assert set(options.POSITIONS) == set(get_args(Reduction))


def test_schema_is_a_schema(run: Run) -> None:
    result = run("schema")
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == json_schema()


def test_inspect(run: Run, model: Path) -> None:
    result = run("inspect", model)
    assert result.exit_code == 0, result.stderr
    assert "learned" in result.stdout
    result = run("inspect", model, "--json")
    assert result.exit_code == 0, result.stderr
    assert isinstance(json.loads(result.stdout), dict)
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["explain"], ["nothing"], ["explain", "--nothing"]])
def test_usage_is_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error[usage]: " if arguments else "Usage: ")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.InputError, 3),
        (errors.ModelError, 4),
        (errors.UnsupportedError, 4),
        (errors.RoleError, 4),
        (errors.TargetError, 4),
        (errors.CheckError, 5),
        (errors.ResourceError, 7),
    ],
)
def test_exit_codes(
    run: Run,
    model: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[errors.PalrpError],
    code: int,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("It went wrong", place="node 7", hint="Try less.")

    monkeypatch.setattr(Explainer, "explain", fail)
    result = run("explain", model, "--input", text)
    assert result.exit_code == code
    assert result.stderr.splitlines() == [
        f"error[{kind.code}]: It went wrong",
        "  at: node 7",
        "  hint: Try less.",
    ]


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (ValueError("two\nlines"), 1, "error[bug]: ValueError: two lines (-v shows the traceback)"),
        (PermissionError(13, "No", "file"), 3, "error[output]: Cannot read or write: No"),
        (OSError(28, "No room", "file"), 7, "error[resource]: Cannot read or write: No room"),
        (OSError("nowhere"), 1, "error[bug]: OSError: nowhere (-v shows the traceback)"),
        (MemoryError(), 7, "error[resource]: Out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_other_failures(
    run: Run,
    model: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    code: int,
    line: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(Explainer, "explain", fail)
    result = run("explain", model, "--input", text)
    assert result.exit_code == code
    assert line in result.stderr.splitlines()
    assert "Traceback" not in result.stderr
    if code == 1:
        assert "Traceback" in run("explain", model, "--input", text, "-v").stderr


def test_real_streams(model: Path, text: Path) -> None:
    done = shell("explain", model, "--input", "-", input=text.read_bytes())
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), json_schema())
    assert b"stdin:" in done.stderr
    done = shell("explain", model, "--input", text, "--target", "9")
    assert (done.returncode, done.stdout) == (4, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["explain", "--help"],
        ["schema"],
        ["inspect", "{model}"],
        ["explain", "{model}", "--input", "{text}"],
    ],
)
def test_closed_pipe_is_no_failure(model: Path, text: Path, arguments: list[str]) -> None:
    filled = [a.format(model=model, text=text) for a in arguments]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [*PROGRAM, *filled], stdout=stdout, stderr=subprocess.PIPE, timeout=120
        )
    assert done.returncode == 0, done.stderr
    assert b"BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["schema"], ["explain", "{model}", "--text", "a"]]
)
def test_closed_streams_are_no_failure(model: Path, arguments: list[str]) -> None:
    filled = [a.format(model=model) for a in arguments]
    for closed in (">&-", ">&- 2>&- <&-"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, *filled], capture_output=True
        )
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
        assert b"error" not in done.stderr


def test_check_counts_though_stdout_is_closed(model: Path) -> None:
    command = [*PROGRAM, "explain", str(model), "--text", "a", "--fail-on", "residual>=0"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True)
    assert done.returncode == 5
    assert done.stderr.rstrip().endswith(b"at: text")


def test_check_counts_though_the_reader_has_gone(model: Path, text: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*PROGRAM, "explain", str(model), "--input", str(text), "--fail-on", "residual>=0"]
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_no_room_is_7(model: Path, text: Path) -> None:
    command = [*PROGRAM, "explain", str(model), "--input", str(text)]
    with Path("/dev/full").open("wb") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 7
    assert done.stderr.startswith(b"error[resource]: Cannot write")


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is a GPU"
)
def test_cuda_is_never_replaced_by_the_cpu(run: Run, model: Path, text: Path) -> None:
    result = run("explain", model, "--input", text, "--device", "cuda")
    assert result.exit_code == 7
    assert "--device cpu" in result.stderr


def test_interrupt_is_130(model: Path, text: Path, tmp_path: Path) -> None:
    code = """
import sys, time
from palrp_onnx.cli.main import main
from palrp_onnx.explainer import Explainer

def slow(*_, **__):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)

Explainer.explain = slow
main()
"""
    arguments = ["explain", str(model), "--input", str(text), "-o", str(tmp_path / "out")]
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read().strip() == b"interrupted"
    assert [path.name for path in tmp_path.iterdir()] == [text.name]


def test_interrupted_batch_says_how_to_go_on(model: Path, tmp_path: Path) -> None:
    code = """
import palrp_onnx.jobs.run
from palrp_onnx.cli.main import main

def stop(*_, **__):
    raise KeyboardInterrupt

palrp_onnx.jobs.run.run = stop
main()
"""
    lines, place = tmp_path / "my texts.jsonl", tmp_path / "run"
    lines.write_text('{"text": "a film"}')
    arguments = ["batch", str(model), "--input", str(lines), "-o", str(place), "--resume"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 130
    resumed = f"batch {model} --input '{lines}' -o {place} --resume"
    assert done.stderr.lstrip() == f"interrupted\n  to go on: palrp-onnx {resumed}\n"
    arguments[3] = "-"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr.lstrip()) == (130, "interrupted\n")
