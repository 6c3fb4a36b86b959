"""The committed models, through the front door."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from committed import MODELS

from palrp_onnx import Explainer, Model, inspect
from palrp_onnx.inputs import open_sample, read_labels

pytestmark = pytest.mark.quick

SAMPLES = {
    "reviews-rope": "sample.txt",
    "reviews-bert": "sample.txt",
    "digits-vit": "sample.png",
    "clothes-vit": "sample.png",
}
SITES = {
    "reviews-rope": {("rope", 0), ("rope", 1)},
    "reviews-bert": {("learned", 0)},
    "digits-vit": {("learned", 0)},
    "clothes-vit": {("learned", 0)},
}
EXPECTED = {
    "reviews-rope": "POSITIVE",
    "reviews-bert": "POSITIVE",
    "digits-vit": "3",
    "clothes-vit": "Sneaker",
}


@cache
def opened(name: str) -> Model:
    return Model.open(MODELS / name / "model.onnx")


@cache
def explained(name: str, dtype: str = "float32") -> Any:
    explainer = Explainer(opened(name), dtype=dtype)
    path = explainer.model.path
    sample = open_sample(
        MODELS / name / SAMPLES[name],
        model_path=path,
        graph_inputs=explainer.model.inputs,
        tokenizer=None,
    )
    (explanation,) = explainer.explain(sample, "pred", read_labels(path))
    return explanation


@pytest.mark.parametrize("name", SAMPLES)
def test_ledger_and_sites(name: str) -> None:
    rough, exact = explained(name), explained(name, dtype="float64")
    assert rough.record.target.label == EXPECTED[name]
    assert (rough.record.target.probability or 0) > 0.8
    assert abs(rough.record.ledger["residual_relative"]) < 1e-5
    assert abs(exact.record.ledger["residual_relative"]) < 1e-10
    assert {(site.kind, site.layer) for site in exact.record.sites} == SITES[name]
    for key, array in exact.tensors.items():
        assert np.abs(rough.tensors[key] - array).max() <= 2e-3 * np.abs(array).max()


@pytest.mark.parametrize("name", SAMPLES)
def test_inspection(name: str) -> None:
    report = inspect(opened(name))
    assert report.explainable
    assert {(site.kind, site.layer) for site in report.sites} == SITES[name]


@pytest.mark.parametrize("name", ["reviews-rope", "reviews-bert"])
def test_the_map_of_the_sample_reads_sensibly(name: str) -> None:
    """Praise speaks for POSITIVE, blame against it."""
    record = explained(name).record
    total = dict(zip(record.units.text, record.relevance.total, strict=True))
    praise, blame = {
        "reviews-rope": (("gripping", "beautifully", "lovely"), ("dull", "wooden", "hated")),
        "reviews-bert": (("wonderful", "superb", "beautiful"), ("slow", "flat")),
    }[name]
    assert min(total[word] for word in praise) > 0
    assert max(total[word] for word in blame) < 0


@pytest.mark.parametrize("name", SAMPLES)
def test_files_are_small_and_complete(name: str) -> None:
    folder = MODELS / name
    assert (folder / "model.onnx").stat().st_size < 8 * 2**20
    assert json.loads((folder / "config.json").read_text())["id2label"]
    companion = "preprocessor_config.json" if name.endswith("-vit") else "tokenizer.json"
    assert (folder / companion).is_file()
