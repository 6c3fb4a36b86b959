from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from palrp_onnx.export import ExportReport

Run = Callable[..., Result]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the command passes on; the export itself is tested with the library."""
    seen: list[tuple[object, ...]] = []

    def export_model(
        source: str, output: Path, *, task: str | None = None, opset: int | None = None
    ) -> ExportReport:
        seen.append((source, output, task, opset))
        return ExportReport(
            path=str(output / "model.onnx"),
            task=task or "fill-mask",
            opset=opset or 17,
            differences={"logits": 2e-6},
            files=["config.json", "model.onnx"],
        )

    monkeypatch.setattr("palrp_onnx.export.export_model", export_model)
    return seen


def test_report(run: Run, calls: list[tuple[object, ...]], tmp_path: Path) -> None:
    result = run("export", "some/model", "-o", tmp_path, "--task", "fill-mask", "--opset", "18")
    assert result.exit_code == 0, result.stderr
    assert calls == [("some/model", tmp_path, "fill-mask", 18)]
    report = json.loads(result.stdout)
    assert report["differences"] == {"logits": 2e-6}
    assert report["opset"] == 18
    assert "logits differs from PyTorch by at most 2.0e-06" in result.stderr


def test_quiet(run: Run, calls: list[tuple[object, ...]], tmp_path: Path) -> None:
    result = run("export", "some/model", "-o", tmp_path, "-q")
    assert result.stderr == ""
    assert calls == [("some/model", tmp_path, None, None)]


def test_usage(run: Run, calls: list[tuple[object, ...]], tmp_path: Path) -> None:
    assert run("export", "some/model").exit_code == 2
    assert run("export", "some/model", "-o", tmp_path, "--opset", "0").exit_code == 2
    assert calls == []
