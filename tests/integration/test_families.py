"""The families Optimum exports, from seeds: right sites, closed ledgers, agreement of dtypes.

Weights are random but every bias, norm and table is non-trivial, so that a wrong sign or a lost
term shows in the ledger.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from building import Array
from families import FAMILIES, exported, feeds_for
from recorded import reduced

from palrp_onnx import Explainer, Model, inspect
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

CASES = [(name, opset) for name in FAMILIES for opset in (14, 18)]


def model_of(name: str, opset: int, shared: Path) -> Model:
    return Model.open(exported(name, opset, shared))


def sample_of(feeds: dict[str, Array]) -> Sample:
    return Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))


@pytest.mark.parametrize(("name", "opset"), CASES)
def test_sites_ledger_and_dtypes(name: str, opset: int, shared: Path) -> None:
    model = model_of(name, opset, shared)
    feeds = feeds_for(model)
    assert model.opset == opset
    rough = Explainer(model).explain(sample_of(feeds))
    exact = Explainer(model, dtype="float64").explain(sample_of(feeds))
    for ours, reference in zip(rough, exact, strict=True):
        found = {(site.kind, site.layer) for site in ours.record.sites}
        assert found == FAMILIES[name][3]
        assert abs(ours.record.ledger["residual_relative"]) < 1e-5
        assert abs(reference.record.ledger["residual_relative"]) < 1e-10
        for key, array in reference.tensors.items():
            scale = np.abs(array).max()
            assert np.abs(ours.tensors[key] - array).max() <= 2e-3 * scale


@pytest.mark.parametrize("name", FAMILIES)
def test_inspect_finds_the_same_without_input(name: str, shared: Path) -> None:
    report = inspect(model_of(name, 18, shared))
    assert report.explainable and not report.coverage.unsupported
    assert {(site.kind, site.layer) for site in report.sites} == FAMILIES[name][3]


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("vit", "deit")])
def test_padding_and_batching_change_nothing(name: str, shared: Path) -> None:
    """A padded row of a batch explains its real tokens as the row alone, unpadded, does."""
    explainer = Explainer(model_of(name, 18, shared), dtype="float64")
    feeds = feeds_for(explainer.model)
    target = "1" if "Classification" in FAMILIES[name][1] else "token:6:7"
    batch = explainer.explain(sample_of(feeds), target)
    for row, length in ((0, 9), (1, 7)):
        alone = {key: array[row : row + 1, :length] for key, array in feeds.items()}
        (single,) = explainer.explain(sample_of(alone), target)
        ours, reference = batch[row].record.relevance, single.record.relevance
        np.testing.assert_allclose(ours.total[:length], reference.total, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(ours.total[length:], 0, atol=1e-9)


@pytest.mark.parametrize("name", ["bert", "llama-tc", "gpt2", "vit"])
def test_methods_share_one_content_where_they_should(name: str, shared: Path) -> None:
    """AttnLRP = PA-LRP's content at the input, but not with RoPE, which takes half of q and k."""
    model = model_of(name, 18, shared)
    sample = sample_of(feeds_for(model))
    maps = {
        method: Explainer(model, method=method, dtype="float64").explain(sample)[0].record
        for method in ("pa-lrp", "attnlrp", "pe-only", "cp-lrp")
    }
    same = np.allclose(maps["pa-lrp"].relevance.content, maps["attnlrp"].relevance.content)
    assert same == (name != "llama-tc")
    assert maps["attnlrp"].relevance.score == maps["attnlrp"].relevance.content
    np.testing.assert_allclose(
        maps["pe-only"].relevance.score, reduced(maps["pa-lrp"].relevance), atol=1e-12
    )
    assert not np.allclose(maps["cp-lrp"].relevance.content, maps["attnlrp"].relevance.content)
    assert maps["cp-lrp"].ledger["softmax"] == 0
    for record in maps.values():
        assert abs(record.ledger["residual_relative"]) < 1e-10
