"""``evaluate randomisation``, ``evaluate stability``, and what ``perturbation`` draws and keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from palrp_onnx.cli.progress import counting
from palrp_onnx.evaluate.texts import accept_answers
from palrp_onnx.inputs import Sample
from palrp_onnx.record import InputFacts, TargetFacts

Run = Callable[..., Result]

TEXTS = ("a good film", "a bad film a bad film", "good good bad film", "film a good a")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    return folder


@pytest.mark.parametrize("command", ["randomisation", "stability"])
def test_table_and_json(command: str, model: Path, texts: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    given = ("evaluate", command, model, "--input", texts, "-q")
    result = run(*given, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    found = json.loads(out.read_text())
    assert list(found) == ["pa-lrp", "attnlrp"]
    assert all(name in result.stdout for name in (*found, "signed", "magnitude", "4 "))
    assert json.loads(run(*given, "--json").stdout) == found
    assert found["pa-lrp"]["samples"] == len(TEXTS)
    one = json.loads(run(*given, "--json", "--method", "eps-lrp").stdout)
    assert list(one) == ["eps-lrp"]


def test_draws(model: Path, texts: Path, run: Run) -> None:
    given = ("evaluate", "randomisation", model, "--input", texts, "-q", "--json", "--seed")
    alone = [json.loads(run(*given, seed, "--draws", 1).stdout)["pa-lrp"] for seed in (4, 5)]
    both = json.loads(run(*given, 4, "--draws", 2).stdout)["pa-lrp"]
    assert (both["seed"], both["draws"], alone[0]["draws"]) == (4, 2, 1)
    for one, other, mean in zip(alone[0]["steps"], alone[1]["steps"], both["steps"], strict=True):
        expected = (one["signed"]["value"] + other["signed"]["value"]) / 2
        assert mean["signed"]["value"] == pytest.approx(expected)


def test_steps_and_seeds(model: Path, texts: Path, run: Run) -> None:
    given = ("evaluate", "randomisation", model, "--input", texts, "-q", "--json", "--draws", 1)
    found = [json.loads(run(*given, "--seed", seed).stdout)["pa-lrp"] for seed in (0, 0, 3)]
    assert [each["seed"] for each in found] == [0, 0, 3]
    steps = [each["steps"] for each in found]
    assert [step["share"] for step in steps[0]] == [0.25, 0.5, 0.75, 1.0]
    assert steps[0] == steps[1] != steps[2]


def test_an_explainer_is_no_model(model: Path, texts: Path, run: Run, tmp_path: Path) -> None:
    explainer = tmp_path / "explainer.onnx"
    assert run("compile", model, "-o", explainer, "-q").exit_code == 0
    tokenizer = ("--tokenizer", model.parent / "tokenizer.json", "--method", "pa-lrp")
    result = run("evaluate", "randomisation", explainer, "--input", texts, *tokenizer)
    assert (result.exit_code, "cannot be shuffled" in result.stderr) == (2, True), result.output


def test_protected_tokens(model: Path, texts: Path, run: Run) -> None:
    given = ("evaluate", "stability", model, "--input", texts, "-q")
    assert run(*given, "--prefix", 1, "--suffix", 1, "--unknown", "a").exit_code == 0
    result = run(*given, "--prefix", 9)
    assert (result.exit_code, "too few tokens" in result.stderr) == (3, True)


def test_curves(model: Path, texts: Path, run: Run, tmp_path: Path) -> None:
    picture, out = tmp_path / "curves.png", tmp_path / "out.json"
    given = ("evaluate", "perturbation", model, "--input", texts, "-q")
    assert run(*given, "--curves", picture, "-o", out).exit_code == 0
    with Image.open(picture) as page:
        assert (page.format, page.width) == ("PNG", 1200)
    assert json.loads(out.read_text())["random"]["samples"] == len(TEXTS)


def test_a_journal_goes_on(model: Path, texts: Path, run: Run, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    given = ("evaluate", "perturbation", model, "--json", "-q")
    whole = run(*given, "--input", texts).stdout
    kept = (*given, "--journal", journal)
    assert run(*kept, "--input", texts / "0.txt", "--input", texts / "1.txt").exit_code == 0
    first, *lines = journal.read_text().splitlines()
    assert len(lines) == 2
    settings = json.loads(first)
    assert {"model", "answers", "methods", "protocol", "target", "engine", "dtype"} <= {*settings}
    assert run(*kept, "--input", texts).stdout == whole
    assert journal.read_text().splitlines()[:3] == [first, *lines]
    assert len(journal.read_text().splitlines()) == 1 + len(TEXTS)
    assert run(*kept, "--input", texts).stdout == whole
    assert len(journal.read_text().splitlines()) == 1 + len(TEXTS)  # nothing was done again
    (texts / "0.txt").write_text("bad")
    assert run(*kept, "--input", texts).stdout != whole
    assert len(journal.read_text().splitlines()) == 2 + len(TEXTS)
    for other in (("--method", "attnlrp"), ("--prefix", 1), ("--target", 1), ("--engine", "numpy")):
        result = run(*kept, "--input", texts, *other)
        assert (result.exit_code, "other settings" in result.stderr) == (2, True)


def test_journals_that_cannot_be(model: Path, texts: Path, run: Run, tmp_path: Path) -> None:
    given = ("evaluate", "perturbation", model, "--input", texts, "-q", "--journal")
    for journal in (tmp_path, model):
        before = model.read_bytes()
        assert run(*given, journal).exit_code == 3
        assert model.read_bytes() == before


def test_only_what_is_answered_right(model: Path, texts: Path, run: Run, tmp_path: Path) -> None:
    given = ("evaluate", "perturbation", model, "--input", texts, "-q", "--json")
    said = [
        json.loads(run("explain", model, "--input", texts / f"{k}.txt", "-q").stdout)
        for k in range(len(TEXTS))
    ]
    right = {str(k): each["target"]["index"] for k, each in enumerate(said)}
    labels = {str(k): each["target"]["label"].lower() for k, each in enumerate(said)}
    answers = tmp_path / "answers.json"
    whole = run(*given).stdout
    for known in (right, labels):
        answers.write_text(json.dumps(known))
        assert run(*given, "--answers", answers).stdout == whole
    answers.write_text(json.dumps({**right, "1": 1 - right["1"]}))
    journal = ("--journal", tmp_path / "journal.jsonl")
    for _ in range(2):
        found = run(*given, "--answers", answers, *journal)
        assert json.loads(found.stdout)["pa-lrp"]["samples"] == len(TEXTS) - 1
    assert "3 of 4 texts" in run(*given[:-1], "--answers", answers).stdout
    answers.write_text(json.dumps({each: 1 - index for each, index in right.items()}))
    assert run(*given, "--answers", answers).exit_code == 3
    answers.write_text("{}")
    missing = run(*given, "--answers", answers)
    assert (missing.exit_code, "answer is missing" in missing.stderr) == (3, True)


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palrp_onnx.cli.progress.EVERY", 0.0)
    for quiet in (False, True):
        with counting(4, quiet=quiet) as tell:
            tell(1)
            tell(4)
        lines = capsys.readouterr().err.splitlines()
        assert [line.split()[0] for line in lines] == ([] if quiet else ["1/4", "4/4"])


def test_the_answer_of_a_language_model(model: Path, text: Path) -> None:
    accept = accept_answers({text.stem: " Good "}, model.parent / "tokenizer.json")
    sample = Sample(text.stem, "text", {}, InputFacts(kind="text"))

    def said(index: int) -> TargetFacts:
        return TargetFacts(output="logits", kind="token", index=index, value=1.0, position=2)

    assert [accept(sample, said(index)) for index in range(5)] == [False, False, True, False, False]
