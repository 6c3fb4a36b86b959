"""Models in half precision: both engines, multipliers kept in range, close to the full model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import Array, ints, proto, real
from committed import FILES, opened, sample
from onnx import numpy_helper

from palrp_onnx import Explainer, Model
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.target_parsing import parse_target
from palrp_onnx.session import Session

float16 = pytest.importorskip("onnxruntime.transformers.float16")


def halved(name: str, folder: Path, *, keep: bool) -> Path:
    """The model with weights and arithmetic in float16; ``keep`` leaves inputs and outputs."""
    path = folder / "half.onnx"
    onnx.save(float16.convert_float_to_float16(onnx.load(FILES[name]), keep_io_types=keep), path)
    return path


def fed(given: Sample, *, keep: bool) -> Sample:
    """Real inputs as the halved model takes them."""
    kinds = {np.dtype(np.float32): np.float16}
    feeds = {
        k: a if keep else a.astype(kinds.get(a.dtype, a.dtype)) for k, a in given.feeds.items()
    }
    return replace(given, feeds=feeds)


@cache
def full(name: str) -> list[Array]:
    """Maps of the model as it is."""
    explainer = Explainer(opened(name), engine="numpy")
    return [np.array(e.record.relevance.total) for e in explainer.explain(sample(name), "0")]


@pytest.mark.filterwarnings("ignore:the float32 number")
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama-tc", "vit", "reviews-rope", "digits-vit"])
def test_half_precision_is_close_to_full(name: str, keep: bool, tmp_path: Path) -> None:
    path = halved(name, tmp_path, keep=keep)
    given = sample(name)
    model = Model.open(path)
    for engine in ("onnxruntime", "numpy"):
        ours = Explainer(model, engine=engine).explain(fed(given, keep=keep), "0")
        for half, theirs in zip(ours, full(name), strict=True):
            mine = np.array(half.record.relevance.total)
            assert np.abs(mine - theirs).max() <= 5e-3 * np.abs(theirs).max()
            assert abs(half.record.ledger["residual_relative"]) < 2e-3


@pytest.mark.filterwarnings("ignore:the float32 number")
@pytest.mark.parametrize(
    "method",
    [
        "pa-lrp-kept:kept=1",
        "pa-lrp-adaptive",
        "pa-lrp-gamma:gamma=0,gamma_conv=0",
        "pa-lrp-gamma:gamma=1000,gamma_conv=1000",
    ],
)
def test_sets_of_rules_in_half_precision(method: str, tmp_path: Path) -> None:
    path, given = halved("vit", tmp_path, keep=True), sample("vit")
    (ours, *_), (full, *_) = (
        Explainer(each, method=method).explain(given, "0") for each in (path, FILES["vit"])
    )
    mine, theirs = (np.array(e.record.relevance.total) for e in (ours, full))
    assert np.abs(mine - theirs).max() <= 1e-2 * np.abs(theirs).max()
    assert abs(ours.record.ledger["residual_relative"]) < 2e-3


@pytest.mark.filterwarnings("ignore:the float32 number")
@pytest.mark.parametrize(
    ("samples", "tokens", "seed"), [(300, 8, 256), (1, 255, 256), (1, 256, 512), (1, 1100, 2048)]
)
def test_long_inputs_start_with_a_larger_seed(
    samples: int, tokens: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The multiplier of one of many tokens is small, and must not vanish."""
    ones = np.ones((samples, tokens), np.int64)
    feeds = {name: ones * (name != "position_ids") for name in sample("llama").feeds}
    engine = Explainer(halved("llama", tmp_path, keep=True)).engine(feeds)
    seeds = []
    run = Session.run

    def stored(session: Session, names: Iterable[str], given: Mapping[str, Array]) -> Any:
        seeds.extend(given.get("seed_scale", []))
        return run(session, names, given)

    monkeypatch.setattr(Session, "run", stored)
    ledger = engine.explain(feeds, parse_target("token:-1:0")).ledger
    assert seeds == [seed]
    assert np.abs(ledger["residual_relative"]).max() < 2e-2


def narrowed(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The same numbers in bfloat16: the upper half of their bits."""
    bits = numpy_helper.to_array(tensor).astype(np.float32).view(np.uint32)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    kind, name = onnx.TensorProto.BFLOAT16, tensor.name
    return onnx.helper.make_tensor(name, kind, upper.shape, upper.tobytes(), raw=True)


def in_bfloat(source: Path, path: Path) -> Path:
    """The model with all its numbers in bfloat16."""
    model, wide = onnx.load(source), onnx.TensorProto.FLOAT
    for tensor in model.graph.initializer:
        if tensor.data_type == wide:
            tensor.CopyFrom(narrowed(tensor))
    for attribute in (a for node in model.graph.node for a in node.attribute):
        if attribute.name == "to" and attribute.i == wide:
            attribute.i = onnx.TensorProto.BFLOAT16
        elif attribute.t.data_type == wide:
            attribute.t.CopyFrom(narrowed(attribute.t))
    for info in (*model.graph.value_info, *model.graph.output):
        if info.type.tensor_type.elem_type == wide:
            info.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    onnx.save(model, path)
    return path


@pytest.mark.filterwarnings("ignore:.*[Ss]hape inference")
@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("name", ["reviews-rope", "reviews-bert"])
def test_bfloat16_is_computed_in_float32(name: str, engine: str, tmp_path: Path) -> None:
    """The processor runs no such file, so that nothing can be checked, which the record says."""
    path = in_bfloat(FILES[name], tmp_path / "model.onnx")
    given = sample(name)
    ours = Explainer(path, engine=engine).explain(given, "0")[0].record
    mine, theirs = np.array(ours.relevance.total), full(name)[0]
    assert np.abs(mine - theirs).max() <= 3e-2 * np.abs(theirs).max()
    assert abs(ours.ledger["residual_relative"]) < 1e-5
    assert ours.fidelity.difference is None
    assert "ONNXRuntimeError" in str(ours.fidelity.unverified)
    assert [w.code for w in ours.warnings] == ["unverified"]


def explainer_of(scale: float, tmp_path: Path) -> tuple[Explainer, Sample, Array]:
    """y = Σ_t x W ``scale`` in float16, a multiplier of ``scale`` · W."""
    x = real(1, 3, 4).astype(np.float16)
    weights = {"w": (scale * real(4, 2, seed=3)).astype(np.float16), "a": ints(1)}
    model = proto("h = MatMul(x, w)  y = ReduceSum<keepdims = 0>(h, a)", {"x": x}, weights)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    return Explainer(path), Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors")), x


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1000.0])
def test_multipliers_neither_vanish_nor_overflow(scale: float, tmp_path: Path) -> None:
    explainer, given, x = explainer_of(scale, tmp_path)
    (explanation,) = explainer.explain(given, "1")
    weight = (scale * real(4, 2, seed=3)).astype(np.float16)[:, 1].astype(np.float64)
    expected = (x[0].astype(np.float64) * weight).sum(axis=1)
    np.testing.assert_allclose(explanation.record.relevance.total, expected, rtol=3e-3)
