"""The record: what its maps sum to, and how records of 1.x are read."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import write_record
from committed import FILES, GOLDEN, ROOT, opened, sample
from msgspec import UNSET

from palrp_onnx import Explainer, Limit, Model
from palrp_onnx.clock import utc_now
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.compiler.graph import CompileSettings
from palrp_onnx.errors import UnsupportedError, UsageError
from palrp_onnx.inputs import read_labels
from palrp_onnx.inputs.text import TextReader
from palrp_onnx.limits import with_checks
from palrp_onnx.record import PARTS, SCHEMA, Attribution, Check, decode, encode, unmapped
from palrp_onnx.relevance.methods import METHODS
from palrp_onnx.render import wording
from palrp_onnx.render.flow import UnreadText, paragraphs
from palrp_onnx.session import runtime_version
from palrp_onnx.warning_codes import WARNINGS

OLD = GOLDEN / "records"


def adds_up(record: Attribution, tolerance: float) -> None:
    """Σ content and Σ position, with what is off the map, are the ledger's; total is their sum."""
    scale = sum(abs(v) for k, v in record.ledger.items() if "residual" not in k and k != "target")
    for entry, missed in unmapped(record.maps, record.ledger).items():
        assert abs(missed) <= tolerance * scale, entry
    for shown in record.maps:
        relevance = shown.relevance
        both = np.add(relevance.content, relevance.position)
        np.testing.assert_array_equal(relevance.total, both)
        sites = [site.relevance for site in shown.sites]
        summed = np.sum(sites, axis=0) if sites else np.zeros(len(both))
        close = tolerance * max(scale, 1e-30)
        np.testing.assert_allclose(relevance.position, summed, atol=close)


#: absLRP scales layers sample by sample; those of GPT-2 have samples and tokens in one axis.
REFUSED = {("gpt2", "abslrp")}


@cache
def explained(name: str, method: str, engine: str, dtype: str) -> list[Attribution]:
    explainer = Explainer(opened(name), method=method, engine=engine, dtype=dtype)
    return [each.record for each in explainer.explain(sample(name))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FILES)
def test_maps_sum_to_the_ledger_in_both_engines(name: str, method: str) -> None:
    if (name, method) in REFUSED:
        with pytest.raises(UnsupportedError, match="samples share their axis"):
            explained(name, method, "numpy", "float64")
        return
    for record in explained(name, method, "numpy", "float64"):
        adds_up(record, 1e-12)
    for record in explained(name, method, "onnxruntime", "float32"):
        adds_up(record, 2e-6)


@pytest.mark.quick
@pytest.mark.parametrize("method", METHODS)
def test_the_score_is_what_the_method_ranks_by(method: str) -> None:
    for record in explained("reviews-bert", method, "numpy", "float64"):
        relevance = record.relevance
        summed = [np.maximum(site.relevance, 0.0) for site in record.sites]
        kind = METHODS[method].map
        if kind == "content":
            np.testing.assert_array_equal(relevance.score, relevance.content)
        elif kind == "position":  # Σ_features ReLU ≥ ReLU(Σ_features)
            assert (np.array(relevance.score) >= np.sum(summed, axis=0) - 1e-9).all()
        else:
            least = np.array(relevance.content) + np.sum(summed, axis=0)
            assert (np.array(relevance.score) >= least - 1e-9).all()


@pytest.mark.parametrize("positions", ["relu", "abs", "signed", "single-sink"])
def test_only_the_score_depends_on_the_reduction(positions: str) -> None:
    explainer = Explainer(opened("reviews-rope"), positions=positions, dtype="float64")
    plain = explained("reviews-rope", "pa-lrp", "numpy", "float64")
    for each, other in zip(explainer.explain(sample("reviews-rope")), plain, strict=True):
        for part in ("content", "position", "total"):
            assert getattr(each.record.relevance, part) == getattr(other.relevance, part)
        if positions == "signed":
            np.testing.assert_allclose(each.record.relevance.score, each.record.relevance.total)


@pytest.mark.parametrize("name", ["reviews-rope", "digits-vit", "vit"])
def test_a_compiled_file_has_the_same_sums(tmp_path: Path, name: str) -> None:
    path = tmp_path / "explainer.onnx"
    path.write_bytes(compile_model(FILES[name], path, settings=CompileSettings()))
    ours = Explainer(Model.open(path)).explain(sample(name))
    for each, other in zip(ours, explained(name, "pa-lrp", "numpy", "float64"), strict=True):
        adds_up(each.record, 2e-6)
        for part in PARTS:
            values, expected = (getattr(e.relevance, part) for e in (each.record, other))
            np.testing.assert_allclose(values, expected, atol=1e-4 * np.abs(expected).max())


# --- what the model said --------------------------------------------------------------------------
def of_text(text: str, target: str = "pred", model: str = "reviews-bert") -> Attribution:
    path = FILES[model]
    explainer = Explainer(opened(model))
    reader = TextReader(path.parent / "tokenizer.json", explainer.model.inputs)
    (found,) = explainer.explain(reader.read(text, id="x"), target, read_labels(path))
    return found.record


@pytest.mark.quick
def test_what_the_model_said_does_not_depend_on_the_target() -> None:
    usual, other = (of_text("A gripping film.", target) for target in ("pred", "NEGATIVE"))
    assert usual.prediction == other.prediction is not UNSET
    said = usual.prediction
    assert (said.index, said.label) == (1, "POSITIVE") == (usual.target.index, usual.target.label)
    assert said.probability == usual.target.probability
    assert [each.index for each in said.top] == [1, 0]
    assert sum(each.probability or 0.0 for each in said.top) == pytest.approx(1.0)
    assert wording.said(usual) is None
    assert "POSITIVE" in str(wording.said(other))


@pytest.mark.quick
def test_a_record_names_files_versions_and_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    record = of_text("A gripping film.")
    assert record.model.name == "model.onnx"
    assert (record.run.date, record.run.runtime) == ("1970-01-02T00:00:00Z", runtime_version())
    files = {path.name: path for path in FILES["reviews-bert"].parent.iterdir()}
    assert record.run.files == {
        name: hashlib.sha256(files[name].read_bytes()).hexdigest()
        for name in (*sorted(files.keys() & {"config.json"}), *(n for n in files if "token" in n))
    }
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="no number of seconds"):
        utc_now()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert utc_now() > "2025"


@pytest.mark.quick
def test_what_was_not_read_or_not_known_is_counted() -> None:
    text = "A gripping \N{UNICORN FACE} film. " * 70 + "The end"
    record = of_text(text)
    last = max(record.units.end)
    unread, tail = record.input.unread, text[last:]
    assert record.input.truncated and unread is not None
    assert unread.characters == len(tail.strip()) > 0
    assert unread.tokens > 10
    marked = zip(record.units.text, record.units.unknown, strict=True)
    unknown = [text for text, is_one in marked if is_one]
    assert set(unknown) == {"\N{UNICORN FACE}"}
    assert record.unknown == len(unknown) / (len(record.units.text) - 2)
    plain = of_text("A gripping film.")
    assert (plain.units.unknown, plain.input.unread, plain.unknown) == ([], None, 0.0)
    (paragraph,) = paragraphs(record.units, record.input)
    assert [str(each) for each in paragraph if isinstance(each, UnreadText)] == [tail]
    assert [note.split(":")[0] for note in wording.notices(record)] == ["not read", "not known"]


@pytest.mark.quick
def test_the_sentence_says_where_the_target_is() -> None:
    record = decode((OLD / "text-1.0.json").read_bytes())
    assert wording.covered(record) == (
        "of +1.5 this map shows +1.61; −0.107 stays in softmax (attention that all tokens share), "
        "0 in biases"
    )


@pytest.mark.quick
def test_checks_are_in_the_record() -> None:
    record = decode((OLD / "text-1.0.json").read_bytes())
    limits = [Limit.parse(text) for text in ("residual>1e-3", "unknown>=0", "warning:padded")]
    checks = with_checks(record, limits).checks
    assert checks == [
        Check(check="residual>0.001", passed=True, found=record.residual),
        Check(check="unknown>=0", passed=False, found=0.0),
        Check(check="warning:padded", passed=True, found=0.0),
    ]
    assert with_checks(record, []) == record
    with pytest.raises(ValueError, match="is none of the warnings also-file"):
        Limit.parse("warning:paded")


@pytest.mark.quick
def test_every_warning_is_in_the_table() -> None:
    source = "".join(path.read_text("utf-8") for path in ROOT.glob("palrp_onnx/**/*.py"))
    codes = set(re.findall(r'Warning_\(\s*code="([\w-]+)"', source))
    codes |= set(re.findall(r'self\._warn\(\s*row,\s*"([\w-]+)"', source))
    codes |= set(re.findall(r'yield \(?\s*"([\w-]+)",\s*f?"', source))
    assert codes and codes <= set(WARNINGS), codes - set(WARNINGS)
    page = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    assert write_record.written(page) == page, "Run: python docs/write_record.py"


# --- records of 1.x -------------------------------------------------------------------------------
@pytest.mark.quick
@pytest.mark.parametrize("name", ["text-1.0", "image-1.0"])
def test_a_record_of_1_0_is_read(name: str) -> None:
    data = (OLD / f"{name}.json").read_bytes()
    old = json.loads(data)
    record = decode(data)
    assert record.schema == SCHEMA
    assert record.relevance.content == old["relevance"]["content"]
    assert record.relevance.score == old["relevance"]["total"]
    adds_up(record, 1e-12)
    sites = np.sum([site["relevance"] for site in old["sites"]], axis=0)
    np.testing.assert_allclose(record.relevance.position, sites, atol=1e-12)
    off = sum(site.get("off_map", 0.0) for site in old["sites"])
    assert record.relevance.off_map.position == pytest.approx(off, abs=1e-6)
    assert decode(encode(record)) == record


def changed(**changes: Any) -> bytes:
    return json.dumps(json.loads((OLD / "text-1.0.json").read_bytes()) | changes).encode()


@pytest.mark.quick
def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="without the relevance of its sites"):
        decode(changed(sites=[]))
    relevance = {"content": [1.0], "position": [0.0], "total": [1.0]}
    with pytest.raises(msgspec.ValidationError, match="differ in length"):
        decode(changed(relevance=relevance))
    with pytest.raises(msgspec.ValidationError, match="schema"):
        decode(changed(schema="palrp-onnx/attribution/3.0"))
    with pytest.raises(msgspec.ValidationError, match="ledger"):
        decode(changed(ledger=[]))
