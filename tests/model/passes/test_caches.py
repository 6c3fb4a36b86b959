"""Decoders for generation: a prompt is explained as a whole, or a step after a past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from decoders import CACHES, IDS, REAL, WIDTH, cached, merged, packed, plain, save

from palrp_onnx import Explainer, Model
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.engines.numpy import NumpyEngine
from palrp_onnx.inputs.past import open_for
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.prepare import plan_model
from palrp_onnx.record import Attribution, InputFacts
from palrp_onnx.relevance.method_parsing import method
from palrp_onnx.runtime.forward import RuntimeForward

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


EARLIER = 3


def past_of(folder: Path, write: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays of a decoding step after three tokens, and the relevance of what they cache.

    Both come from the explanation of the whole prompt: values k2 and v2, and x ∘ m there.
    """
    planned = plan_model(Model.open(plain(folder)), IDS, method("pa-lrp"))
    engine = NumpyEngine(planned, positions="relu", dtype="float32", device="cpu")
    watched = {v.name: v for node in planned.analysis.model.graph for v in node.outputs}
    own = [watched["k2"], watched["v2"]]
    values = RuntimeForward(planned.analysis.model, ["k2", "v2"])(IDS)
    forward = engine.forward(IDS)
    seed = np.zeros_like(forward["y"])
    seed[:, -1, 4] = 1
    found = engine.multipliers(forward, seed, own)
    caches = {f"past_{n[0]}": a[:, :, :EARLIER] for n, a in values.items()}
    relevance = {
        f"past_{v.name[0]}": (values[v.name] * m)[:, :, :EARLIER].sum((1, 3))
        for v, m in found.items()
        if v.name
    }
    feeds: dict[str, Any] = {"ids": IDS["ids"][:, EARLIER:], **caches}
    if write is packed:
        feeds["past"] = np.stack([feeds.pop("past_k"), feeds.pop("past_v")])
        relevance = {"past": relevance["past_k"] + relevance["past_v"]}
    return feeds, relevance


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("write", [cached, packed])
def test_a_decoding_step(write: Any, engine: str, tmp_path: Path) -> None:
    """Cached keys and values get what the walk through the whole prompt sends to them."""
    feeds, expected = past_of(tmp_path, write)
    model = Model.open(write(tmp_path), past=True)
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    rows = Explainer(model, engine=engine).explain(sample, "token:-1:4")
    whole = Sample("x", "tensors", IDS, InputFacts(kind="tensors", truncated=False))
    prompt = Explainer(plain(tmp_path), engine=engine).explain(whole, "token:-1:4")
    for k, (row, reference) in enumerate(zip(rows, prompt, strict=True)):
        record = row.record
        assert record.target.value == pytest.approx(reference.record.target.value, rel=1e-5)
        assert abs(record.ledger["residual_relative"]) < 1e-6
        assert len(record.relevance.total) == IDS["ids"].shape[1] - EARLIER
        for name, relevance in expected.items():
            places = row.tensors[f"input/{name}"][0].sum(-1)
            assert places == pytest.approx(relevance[k], rel=1e-4, abs=1e-5)
            assert record.ledger[name] == pytest.approx(relevance[k].sum(), rel=1e-4, abs=1e-5)


def test_a_file_that_fills_caches_is_a_decoding_step(tmp_path: Path) -> None:
    feeds, _ = past_of(tmp_path, cached)
    path = cached(tmp_path)
    np.savez(tmp_path / "step.npz", **feeds)
    np.savez(
        tmp_path / "empty.npz", **{n: a[:, :, :0] if n != "ids" else a for n, a in feeds.items()}
    )
    assert set(CACHES) <= {s.name for s in open_for(path, tmp_path / "step.npz").inputs}
    assert [s.name for s in open_for(path, tmp_path / "empty.npz").inputs] == ["ids"]


@pytest.mark.parametrize("rank", [3, 4])
def test_states_of_another_network_are_no_cache(rank: int, tmp_path: Path) -> None:
    body = "joined = Concat<axis=1>(first, second)\n h = MatMul(joined, head)\n y = Identity(h)"
    real = (REAL, ("batch", "tokens", 2, WIDTH)[-rank:] if rank == 4 else ("b", "tokens", WIDTH))
    path = save(tmp_path / "two.onnx", body, {"first": real, "second": real})
    assert [s.name for s in Explainer(path).model.inputs] == ["first", "second"]
