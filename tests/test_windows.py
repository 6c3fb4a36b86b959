"""A long text in windows: its map is the mean of the maps of its windows, each explained alone."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from committed import MODELS
from msgspec import UNSET

from palrp_onnx import Explainer, Model
from palrp_onnx.cli.main import program
from palrp_onnx.errors import InputError, TargetError
from palrp_onnx.inputs import TextReader, read_labels
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

pytestmark = pytest.mark.quick

BERT = MODELS / "reviews-bert"
TEXT = "A good film. " * 150 + "But the end is terrible and boring."


def windows_of(overlap: int | None) -> Sample:
    reader = TextReader(BERT, Model.open(BERT / "model.onnx").inputs)
    return reader.read_windows(TEXT, overlap, id="long")


@pytest.mark.parametrize("overlap", [None, 0, 10, 200])
def test_windows_cover_the_text(overlap: int | None) -> None:
    sample = windows_of(overlap)
    assert sample.units is not None
    places = [list(each.places) for each in sample.windows]
    assert sorted({place for each in places for place in each}) == [*range(len(sample.units.text))]
    for each, window in zip(places, sample.windows, strict=True):
        assert window.units.text == [sample.units.text[place] for place in each]
        assert window.feeds["input_ids"].tolist() == [[sample.units.id[place] for place in each]]
        assert len(each) == 256 and each[0] == 0 and each[-1] == len(sample.units.text) - 1
    starts = [each[1] for each in places]
    shared = 127 if overlap is None else overlap
    assert set(np.diff(starts)[:-1].tolist()) == {254 - shared} or len(starts) < 3
    spans = sample.facts.windows
    assert spans[0][0] == 0 and spans[-1][1] == len(TEXT) and not sample.facts.truncated
    assert all(second[0] <= first[1] + 1 for first, second in pairwise(spans))


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_the_map_is_the_mean_of_the_windows(engine: str) -> None:
    sample = windows_of(10)
    explainer, labels = Explainer(BERT / "model.onnx", engine=engine), read_labels(BERT)
    (whole,) = (each.record for each in explainer.explain(sample, "NEGATIVE", labels))
    total, value, content = np.zeros(len(whole.units.text)), 0.0, 0.0
    for window in sample.windows:
        alone = Sample("w", "tensors", dict(window.feeds), InputFacts(kind="tensors"))
        (part,) = (each.record for each in explainer.explain(alone, "index:0"))
        for place, number in zip(window.places, part.relevance.total, strict=True):
            total[place] += number / len(sample.windows)
        value += part.target.value / len(sample.windows)
        content += part.ledger["content"] / len(sample.windows)
    np.testing.assert_allclose(whole.relevance.total, total, atol=1e-6)
    assert whole.target.value == pytest.approx(value) == whole.ledger["target"]
    assert whole.ledger["content"] == pytest.approx(content)
    assert sum(whole.relevance.content) == pytest.approx(content, abs=1e-6)
    assert whole.residual < 1e-5 and whole.target.probability is None
    assert [w.code for w in whole.warnings] == ["windows"]
    assert whole.target.label == "NEGATIVE" and whole.others is UNSET


def test_the_predicted_class_is_that_of_the_mean() -> None:
    explainer, labels = Explainer(BERT / "model.onnx"), read_labels(BERT)
    sample = windows_of(None)
    (found,) = explainer.explain(sample, "pred", labels)
    outputs = [explainer.engine(each.feeds).output(each.feeds)[0] for each in sample.windows]
    assert found.record.target.index == np.mean(outputs, axis=0).argmax()
    several = explainer.explain(sample, "all", labels)
    assert [each.record.id for each in several] == ["long-0", "long-1"]


def test_every_target_of_a_list_and_its_logarithm_are_of_the_mean() -> None:
    explainer, labels, sample = Explainer(BERT / "model.onnx"), read_labels(BERT), windows_of(None)
    (one,) = explainer.explain(sample, "pred", labels)
    best = one.record.target.index
    for text in ("pred,0", "0,pred"):
        found = [each.record.target.index for each in explainer.explain(sample, text, labels)]
        assert found == ([best, 0] if text == "pred,0" else [0, best])
    (log,) = explainer.explain(sample, "logprob:pred", labels)
    outputs = [explainer.engine(each.feeds).output(each.feeds)[0] for each in sample.windows]
    logs = [y[best] - np.log(np.exp(y.astype(float)).sum()) for y in outputs]
    assert log.record.target.logprob and log.record.target.index == best
    assert log.record.target.value == pytest.approx(np.mean(logs), rel=1e-4)
    with pytest.raises(TargetError, match="where an answer starts"):
        explainer.explain(sample, "answer", labels)


def test_numbers_in_windows_are_not_called_classes() -> None:
    explainer, sample = Explainer(BERT / "model.onnx", head="numbers"), windows_of(None)
    for target in ("default", "0"):
        (found,) = explainer.explain(sample, target)
        doubted = "no-classes" in [each.code for each in found.record.warnings]
        assert doubted == (target == "default")


def test_a_text_that_fits_has_no_windows() -> None:
    reader = TextReader(BERT, Model.open(BERT / "model.onnx").inputs)
    short = reader.read_windows("A good film.", id="a")
    assert not short.windows and not short.warnings and not short.facts.windows
    with pytest.raises(InputError, match="cannot share 254"):
        windows_of(254)


def test_the_command(tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text(TEXT)

    def run(*options: str) -> tuple[int, str, str]:
        found = CliRunner().invoke(program, ["explain", str(BERT), "--input", str(text), *options])
        return found.exit_code, found.stdout, found.stderr

    code, out, said = run("--windows", "20", "--fail-on", "truncated")
    assert code == 0 and "share 20: the target is the mean over them" in said
    assert json.loads(out)["input"]["windows"][-1][1] == len(TEXT)
    code, _, said = run("--windows", "-q", "-o", str(tmp_path / "out"))
    assert code == 0
    assert run("--fail-on", "truncated", "-q")[0] == 5
    assert run("--windows", "--tensors", str(tmp_path / "raw.npz"))[0] == 2
    image = CliRunner().invoke(program, ["explain", str(BERT), "--input", "a.png", "--windows"])
    assert image.exit_code == 3 and "only a text or a pair" in image.stderr
