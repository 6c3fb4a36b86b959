"""What is said about common mistakes: the true reason, and the next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
from click.testing import Result

pytestmark = pytest.mark.quick

Run = Callable[..., Result]


@pytest.fixture
def place(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "review.txt").write_text("a good film")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "reviews").symlink_to(model.parent)
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "config.json").write_text('{"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}')
    (tmp_path / "tokenizer.json").symlink_to(model.parent / "tokenizer.json")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("explain models --text a", 3, ["holds no .onnx file", "Folders in it do: reviews."]),
        ("explain nope.onnx --text a", 3, ["There is no such model file", "at: nope.onnx"]),
        (
            "explain review.txt --text a",
            4,
            ["it begins with b'a good film'", "Name the .onnx file"],
        ),
        (
            "explain model --text a --target 7",
            4,
            ["Class 7 is outside", "at: output logits", "0 NEGATIVE, 1 POSITIVE"],
        ),
        ("explain model --text a --format html", 2, ["-o map.html"]),
        ("explain model --text a --generate 2", 2, ["predicts the next token", "Leave out"]),
        ("explain model --input review.txt --fail-on residual>=0", 5, ["\n  at: review\n"]),
        ("explain model --text a -o map.json --open", 2, ["--open", "-o FILE.html"]),
    ],
)
def test_messages(run: Run, place: Path, command: str, code: int, said: list[str]) -> None:
    result = run(*command.split())
    assert result.exit_code == code, result.stderr
    for part in said:
        assert part in result.stderr


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is a GPU"
)
def test_the_cpu_runtime_goes_first(run: Run, place: Path) -> None:
    result = run("explain", "model", "--text", "a", "--device", "cuda")
    assert result.exit_code == 7
    assert "pip uninstall -y onnxruntime" in result.stderr


def test_a_device_takes_the_record(run: Run, place: Path) -> None:
    result = run("explain", "model", "--text", "a", "-o", "/dev/null")
    assert result.exit_code == 0, result.stderr
    assert "wrote /dev/null" in result.stderr


def test_a_label_that_is_another_class_is_ambiguous(run: Run, place: Path) -> None:
    (place / "config.json").write_text('{"id2label": {"0": "1", "1": "0"}}')
    result = run("explain", "model", "--text", "a", "--target", "1")
    assert result.exit_code == 4
    assert "class 1 ('0'), or class 0 with the label '1'" in result.stderr
    assert "Use index:1 or label:1." in result.stderr
