"""The families Optimum exports, from seeds: right sites, closed ledgers, agreement of dtypes.

Weights are random but every bias, norm and table is non-trivial, so that a wrong sign or a lost
term shows in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from building import Array
from families import FAMILIES, TASKS, build, feeds_for

from palrp_onnx import Explainer, inspect
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

transformers = pytest.importorskip("transformers")

CASES = [(name, opset) for name in FAMILIES for opset in (14, 18)]

Exported = Callable[[str, int], Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    from palrp_onnx.export import export_model

    done: dict[tuple[str, int], Path] = {}

    def export(name: str, opset: int) -> Path:
        if (name, opset) not in done:
            folder = tmp_path_factory.mktemp(f"{name}-{opset}")
            model = build(name)
            if model.config.model_type in ("vit", "deit"):
                size = {"height": 24, "width": 24}
                transformers.ViTImageProcessor(size=size).save_pretrained(folder / "torch")
            model.save_pretrained(folder / "torch")
            report = export_model(
                folder / "torch", folder / "onnx", task=TASKS[FAMILIES[name][1]], opset=opset
            )
            assert report.opset == opset
            done[name, opset] = Path(report.path)
        return done[name, opset]

    return export


def sample_of(feeds: dict[str, Array]) -> Sample:
    return Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))


@pytest.mark.parametrize(("name", "opset"), CASES)
def test_sites_ledger_and_dtypes(name: str, opset: int, exported: Exported) -> None:
    path = exported(name, opset)
    single = Explainer(path)
    feeds = feeds_for(single)
    rough = single.explain(sample_of(feeds))
    exact = Explainer(path, dtype="float64").explain(sample_of(feeds))
    for ours, reference in zip(rough, exact, strict=True):
        found = {(site.kind, site.layer) for site in ours.record.sites}
        assert found == FAMILIES[name][3]
        assert abs(ours.record.ledger["residual_relative"]) < 1e-5
        assert abs(reference.record.ledger["residual_relative"]) < 1e-10
        for key, array in reference.tensors.items():
            scale = np.abs(array).max()
            assert np.abs(ours.tensors[key] - array).max() <= 2e-3 * scale


@pytest.mark.parametrize("name", FAMILIES)
def test_inspect_finds_the_same_without_input(name: str, exported: Exported) -> None:
    report = inspect(Explainer(exported(name, 18)).model)
    assert report.explainable and not report.coverage.unsupported
    assert {(site.kind, site.layer) for site in report.sites} == FAMILIES[name][3]


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("vit", "deit")])
def test_padding_and_batching_change_nothing(name: str, exported: Exported) -> None:
    """A padded row of a batch explains its real tokens as the row alone, unpadded, does."""
    explainer = Explainer(exported(name, 18), dtype="float64")
    feeds = feeds_for(explainer)
    target = "1" if "Classification" in FAMILIES[name][1] else "token:6:7"
    batch = explainer.explain(sample_of(feeds), target)
    for row, length in ((0, 9), (1, 7)):
        alone = {key: array[row : row + 1, :length] for key, array in feeds.items()}
        (single,) = explainer.explain(sample_of(alone), target)
        ours, reference = batch[row].record.relevance, single.record.relevance
        np.testing.assert_allclose(ours.total[:length], reference.total, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(ours.total[length:], 0, atol=1e-9)


@pytest.mark.parametrize("name", ["bert", "llama-tc", "gpt2", "vit"])
def test_methods_share_one_content_where_they_should(name: str, exported: Exported) -> None:
    """AttnLRP = PA-LRP's content at the input, but not with RoPE, which takes half of q and k."""
    path = exported(name, 18)
    feeds = feeds_for(Explainer(path))
    maps = {
        method: Explainer(path, method=method, dtype="float64").explain(sample_of(feeds))[0].record
        for method in ("pa-lrp", "attnlrp", "pe-only", "cp-lrp")
    }
    same = np.allclose(maps["pa-lrp"].relevance.content, maps["attnlrp"].relevance.content)
    assert same == (name != "llama-tc")
    assert maps["attnlrp"].relevance.total == maps["attnlrp"].relevance.content
    assert maps["pe-only"].relevance.total == maps["pa-lrp"].relevance.position
    assert not np.allclose(maps["cp-lrp"].relevance.content, maps["attnlrp"].relevance.content)
    assert maps["cp-lrp"].ledger["softmax"] == 0
    for record in maps.values():
        assert abs(record.ledger["residual_relative"]) < 1e-10
