"""``report`` and ``explain --format html``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def lines(run: Run, model: Path, text: Path, tmp_path: Path) -> Path:
    """A run of one record and one failure."""
    record = json.loads(run("explain", model, "--input", text, "-q").stdout)
    folder = tmp_path / "run"
    folder.mkdir()
    failed = {"id": "bad", "error": {"code": "input", "message": "empty"}}
    made = "".join(json.dumps(each) + "\n" for each in (record, failed))
    (folder / "part-0.jsonl").write_text(made)
    return folder


def test_report_of_a_folder_and_of_a_file(run: Run, lines: Path, tmp_path: Path) -> None:
    pages = []
    for source in (lines, lines / "part-0.jsonl"):
        out = tmp_path / "made" / "report.html"
        result = run("report", source, "-o", out)
        assert result.exit_code == 0, result.stderr
        assert result.stdout == ""
        assert "2 records, 1 failed" in result.stderr
        assert "without" not in result.stderr
        page = out.read_text(encoding="utf-8")
        assert f"<h1>{source.name}</h1>" in page
        assert "review" in page
        assert "empty" in page
        pages.append(page)
    assert run("report", lines, "-o", tmp_path / "q.html", "-q").stderr == ""


def test_several_runs_are_one_report(run: Run, lines: Path, tmp_path: Path) -> None:
    result = run("report", lines, lines / "part-0.jsonl", "-o", tmp_path / "both.html")
    assert result.exit_code == 0, result.stderr
    assert "4 records, 2 failed" in result.stderr
    assert "<h1>run, part-0.jsonl</h1>" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_two_methods_stand_side_by_side(run: Run, model: Path, text: Path, tmp_path: Path) -> None:
    records = [tmp_path / f"{method}.json" for method in ("pa-lrp", "attnlrp")]
    for place in records:
        made = run("explain", model, "--input", text, "--method", place.stem, "-o", place, "-q")
        assert made.exit_code == 0, made.stderr
    result = run("report", *records, "-o", tmp_path / "both.html")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert page.count('<article class="record"') == 2
    assert "attnlrp, float32" in page


def test_help_names_the_command(run: Run) -> None:
    assert "report" in run("--help").stdout


def test_report_says_what_has_no_room(
    run: Run, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palrp_onnx.render.listing._packed", lambda _: "x" * 2**21)
    result = run("report", lines, "-o", tmp_path / "report.html", "--room", "1")
    assert result.exit_code == 0
    assert "1 are listed without their maps" in result.stderr
    assert "part-0.jsonl:1" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{run}", "-o", "{out}/report.pdf"], 2, ".html"),
        (["{run}"], 2, "-o"),
        (["{out}/none.jsonl", "-o", "{out}/report.html"], 3, "none.jsonl"),
        (["{out}", "-o", "{out}/report.html"], 3, ".jsonl"),
        (["{run}", "-o", "{out}/report.html", "--room", "0"], 2, "--room"),
    ],
)
def test_errors(
    run: Run, lines: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    filled = [each.format(run=lines, out=tmp_path) for each in arguments]
    result = run("report", *filled)
    assert result.exit_code == code
    assert said in result.stderr
    assert not (tmp_path / "report.html").exists()


def test_explain_writes_a_page(run: Run, model: Path, text: Path, tmp_path: Path) -> None:
    result = run("explain", model, "--input", text, "-o", tmp_path / "map.html")
    assert result.exit_code == 0, result.stderr
    assert '<span class="w k' in (tmp_path / "map.html").read_text(encoding="utf-8")
    run("explain", model, "--input", text, "-o", tmp_path / "all", "--format", "json,png,html")
    names = sorted(path.name for path in (tmp_path / "all").iterdir())
    assert names == ["review.html", "review.json", "review.png"]


def test_explain_lists_several_records(run: Run, model: Path, batch: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.html"
    result = run("explain", model, "--input", batch, "-o", out)
    assert result.exit_code == 0, result.stderr
    page = out.read_text(encoding="utf-8")
    assert "batch-0" in page
    assert "batch-1" in page
    assert page.count('id="packed-') == 2
