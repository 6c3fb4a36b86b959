"""The record: what its maps sum to, and how records of 1.x are read."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from committed import FILES, GOLDEN, opened, sample

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.compiler.graph import CompileSettings
from palrp_onnx.record import PARTS, SCHEMA, Attribution, decode, encode, unmapped
from palrp_onnx.relevance.methods import METHODS

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


@cache
def explained(name: str, method: str, engine: str, dtype: str) -> list[Attribution]:
    explainer = Explainer(opened(name), method=method, engine=engine, dtype=dtype)
    return [each.record for each in explainer.explain(sample(name))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FILES)
def test_maps_sum_to_the_ledger_in_both_engines(name: str, method: str) -> None:
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
