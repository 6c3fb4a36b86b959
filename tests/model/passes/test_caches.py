"""Decoders for generation: caches are removed, and the prompt is explained as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from decoders import CACHES, IDS, REAL, WIDTH, cached, merged, packed, plain, save

from palrp_onnx import Explainer
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Attribution, InputFacts

pytestmark = pytest.mark.quick


def explain(path: Path, **options: Any) -> list[Attribution]:
    sample = Sample("x", "tensors", IDS, InputFacts(kind="tensors", truncated=False))
    return [e.record for e in Explainer(path, **options).explain(sample)]


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("write", [cached, packed, merged])
def test_as_without_a_cache(write: Any, engine: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    assert [s.name for s in Explainer(path).model.inputs] == ["ids"]
    expected = explain(plain(tmp_path), engine=engine)
    for ours, reference in zip(explain(path, engine=engine), expected, strict=True):
        assert ours.relevance.total == pytest.approx(reference.relevance.total, rel=1e-5, abs=1e-6)
        assert ours.sites == reference.sites
        assert abs(ours.ledger["residual_relative"]) < 1e-6
        assert ours.fidelity.difference <= ours.fidelity.allowed  # type: ignore[union-attr]


def test_the_explainer_takes_no_cache(tmp_path: Path) -> None:
    explainer = tmp_path / "explainer.onnx"
    explainer.write_bytes(compile_model(cached(tmp_path), explainer))
    names = [v.name for v in onnx.load(explainer).graph.input]
    assert "ids" in names
    assert not set(CACHES) & set(names)
    expected = explain(plain(tmp_path))
    for ours, reference in zip(explain(explainer), expected, strict=True):
        assert ours.relevance.total == pytest.approx(reference.relevance.total, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("rank", [3, 4])
def test_states_of_another_network_are_no_cache(rank: int, tmp_path: Path) -> None:
    body = "joined = Concat<axis=1>(first, second)\n h = MatMul(joined, head)\n y = Identity(h)"
    real = (REAL, ("batch", "tokens", 2, WIDTH)[-rank:] if rank == 4 else ("b", "tokens", WIDTH))
    path = save(tmp_path / "two.onnx", body, {"first": real, "second": real})
    assert [s.name for s in Explainer(path).model.inputs] == ["first", "second"]
