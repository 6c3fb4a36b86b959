"""A method and rules from outside of the package, wherever a method is taken."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from committed import MODELS
from own_method import MINE, SET, uneven

from palrp_onnx import Explainer, Method, method, register_method
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.compiler.manifest import Manifest
from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines import compared_method
from palrp_onnx.inputs import Sample, open_sample
from palrp_onnx.jobs.run import BatchPlan, run
from palrp_onnx.jobs.settings import Settings
from palrp_onnx.jobs.sources import open_source
from palrp_onnx.model.open import Model
from palrp_onnx.record import Attribution
from palrp_onnx.relevance import method_parsing
from palrp_onnx.rules import find_rule, registry

FOLDER = MODELS / "reviews-bert"
MODEL = FOLDER / "model.onnx"
ASKED = "uneven-in-tests:share=0.2"
PARAMS = {
    "positions": "relu",
    "parameters": {"share": 0.2},
    "definition": {
        "map": "sum",
        "shares": ["positions", "attention", "gates"],
        "rules": [SET],
        "spared": False,
    },
}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Method]:
    """The method, known by its name in this test alone."""
    monkeypatch.setattr(method_parsing, "_registered", {})
    yield register_method(MINE)


@pytest.fixture(scope="module")
def sample() -> Sample:
    inputs = Model.open(MODEL).inputs
    text = FOLDER / "sample.txt"
    return open_sample(text, model_path=MODEL, graph_inputs=inputs, tokenizer=None)


def record(asked: Method | str, sample: Sample, engine: str = "onnxruntime") -> Attribution:
    (found,) = Explainer(MODEL, method=asked, engine=engine).explain(sample)
    return found.record


def close(ours: Attribution, reference: Attribution) -> None:
    expected = np.array(reference.relevance.total)
    assert np.abs(ours.relevance.total - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_by_name_and_as_an_object(engine: str, sample: Sample, registered: Method) -> None:
    named = record(ASKED, sample, engine)
    close(record(MINE.having(share=0.2), sample, engine), named)
    assert (named.run.method, named.run.params) == (ASKED, PARAMS)
    assert abs(named.ledger["residual_relative"]) < 1e-5
    # Half each is the usual rule.
    usual = record("pa-lrp", sample, engine)
    close(record("uneven-in-tests", sample, engine), usual)
    differences = np.abs(np.subtract(named.relevance.total, usual.relevance.total))
    assert differences.max() > 0.01 * np.abs(usual.relevance.total).max()


def test_an_object_need_not_be_registered(sample: Sample) -> None:
    assert record(MINE, sample).run.method == "uneven-in-tests"
    with pytest.raises(UsageError, match="Unknown method 'uneven-in-tests'"):
        Explainer(MODEL, method="uneven-in-tests")


def test_a_name_is_given_once(registered: Method) -> None:
    with pytest.raises(UsageError, match="There is a method of this name"):
        register_method(MINE)


def test_numbers_become_defaults(registered: Method) -> None:
    other = register_method(replace(MINE, name="other").having(share=0.25))
    assert method("other") == other
    assert (other.text, other.numbers) == ("other", {"share": 0.25})


def test_in_evaluations(sample: Sample, registered: Method) -> None:
    model = Model.open(MODEL)
    for asked in (ASKED, MINE.having(share=0.2)):
        found = compared_method(asked, model)
        assert isinstance(found, Explainer)
        assert found.method.text == ASKED


def test_a_compiled_file_holds_the_whole_method(sample: Sample, tmp_path: Path) -> None:
    asked = MINE.having(share=0.2)
    path = tmp_path / "explainer.onnx"
    path.write_bytes(compile_model(MODEL, path, method=asked))
    manifest = Manifest.read(Model.open(path).metadata)
    assert manifest is not None and manifest.own == asked and manifest.method == ASKED
    # This process knows the rules; another one does not.
    code = "from palrp_onnx.cli.main import main; main()"
    text, words = FOLDER / "sample.txt", FOLDER / "tokenizer.json"
    arguments = ("explain", path, "--input", text, "--tokenizer", words, "-q")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["run"]["method"], found["run"]["params"]) == (ASKED, PARAMS)
    expected = np.array(record(asked, sample).relevance.total)
    assert np.abs(found["relevance"]["total"] - expected).max() < 1e-5 * np.abs(expected).max()
    for other in ("pa-lrp", MINE, replace(asked, map="content")):
        with pytest.raises(UsageError, match="method compiled in"):
            Explainer(path, method=other)
    assert Explainer(path, method=asked).method == asked


class Silent:
    def start(self, records: int | None) -> None: ...

    def skip(self, records: int) -> None: ...

    def advance(self, records: int) -> None: ...


def batch(asked: Method | str, folder: Path, **plan: Any) -> list[dict[str, Any]]:
    source = folder.parent / "records.jsonl"
    texts = [{"id": f"{k}", "text": "a good film " * k} for k in range(1, 7)]
    source.write_text("".join(json.dumps(each) + "\n" for each in texts))
    settings, planned = Settings(method=asked), BatchPlan(folder=folder, part_size=3, **plan)
    outcome = run(MODEL, settings, open_source(source, sys.stdin.buffer), planned, Silent())
    assert outcome.complete and not outcome.tally.failed
    lines = [line for part in sorted(folder.glob("*.jsonl")) for line in part.open()]
    return [json.loads(line) for line in lines]


def test_worker_processes_get_the_method_and_its_rules(tmp_path: Path, registered: Method) -> None:
    here, there = batch(ASKED, tmp_path / "here"), batch(ASKED, tmp_path / "there", workers=2)
    assert [each["run"]["params"] for each in there] == [PARAMS] * 6
    for ours, theirs in zip(here, there, strict=True):
        np.testing.assert_allclose(
            ours["relevance"]["total"], theirs["relevance"]["total"], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("same", [True, False])
def test_a_batch_goes_on_with_the_same_method_alone(tmp_path: Path, same: bool) -> None:
    asked = MINE.having(share=0.2)
    batch(asked, tmp_path / "parts")
    other = asked if same else replace(asked, map="content")
    refused = pytest.raises(UsageError, match="--method map was 'sum', and is 'content'")
    with nullcontext() if same else refused:
        batch(other, tmp_path / "parts", resume=True)


def test_rules_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no module can be imported that registers them, as with what Ray sends."""
    state = MINE.__getstate__()
    rest = {key: entries for key, entries in registry._RULES.items() if key[0] != SET}
    monkeypatch.setattr(registry, "_RULES", rest)
    assert find_rule("", "MatMul", 18, (SET,)) == find_rule("", "MatMul", 18)
    arrived = object.__new__(Method)
    arrived.__setstate__(state)
    assert arrived == MINE
    found = find_rule("", "MatMul", 18, (SET,))
    assert found is not None and found.rule is uneven
    assert copy.deepcopy(arrived) == MINE  # what is there already is not added again
    assert len(registry._RULES[SET, "", "MatMul"]) == 1
    assert not method("pa-lrp-gamma").__getstate__()["carried"]
