"""Forward values that are computed again give the explanation of those that are kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import committed
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from building import ints, opened, proto, real
from committed import FILES, sample

from palrp_onnx import Explainer
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.compiler.graph import OPSET, CompileSettings, compile_graph
from palrp_onnx.describe import Explanation
from palrp_onnx.errors import ResourceError, UsageError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.open import Model
from palrp_onnx.prepare import plan_model, shapes_of
from palrp_onnx.record import InputFacts
from palrp_onnx.relevance.method_parsing import resolve_method
from palrp_onnx.relevance.methods import METHODS
from palrp_onnx.session import saved_as_optimised
from palrp_onnx.types import Feeds

WAYS = ("fast", "bounded")


def compiled(model: Model, feeds: Feeds, memory: str, method: str = "pa-lrp") -> bytes:
    """The compiled graph, serialised."""
    planned = plan_model(model.at_opset(OPSET), feeds, resolve_method(method))
    settings = CompileSettings(memory=memory, features=True)
    graph, _ = compile_graph(planned, settings, shapes_of(feeds))
    data: bytes = ir.serde.serialize_model(graph).SerializeToString()
    return data


def computed(model: Model, feeds: Feeds, memory: str, method: str) -> dict[str, Any]:
    """All results for two targets, each node as it is in the graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    folder = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(folder, f"{model.folder}/")
    session = onnxruntime.InferenceSession(compiled(model, feeds, memory, method), options)
    names = [each.name for each in session.get_outputs()]
    found = [session.run(names, {**feeds, "target": ints(k, k)}) for k in (0, 1)]
    return {
        f"{name} {k}": a
        for k, each in enumerate(found)
        for name, a in zip(names, each, strict=True)
    }


@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "pa-lrp") for name in FILES), *(("llama", method) for method in sorted(METHODS))],
)
def test_the_same_numbers(name: str, method: str) -> None:
    """Up to rounding: rows of scores are computed from rows; with positions and padding."""
    model, feeds = committed.opened(name), sample(name).feeds
    kept, again = (computed(model, feeds, way, method) for way in WAYS)
    assert kept.keys() == again.keys()
    for key, array in kept.items():
        np.testing.assert_allclose(again[key], array, rtol=0, atol=1e-5 * np.abs(array).max())
    assert b"relevance/again/" in compiled(model, feeds, "bounded", method)


def explained(given: Sample, *explainers: Explainer) -> list[Explanation]:
    return [each.explain(given)[-1] for each in explainers]


def tensors(feeds: Feeds) -> Sample:
    return Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))


def alike(kept: Explanation, again: Explanation) -> None:
    """Up to rounding: the runtime fuses operations whose values nothing else reads."""
    assert "memory" not in kept.record.run.params
    assert again.record.run.params["memory"] == "bounded"
    assert kept.tensors.keys() == again.tensors.keys()
    for key, array in kept.tensors.items():
        assert np.abs(again.tensors[key] - array).max() <= 1e-5 * np.abs(array).max()
    scale = sum(abs(v) for k, v in kept.record.ledger.items() if "residual" not in k)
    for key, amount in kept.record.ledger.items():
        assert abs(again.record.ledger[key] - amount) <= 3e-6 * scale
    assert abs(again.record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("name", FILES)
def test_through_the_front_door(name: str) -> None:
    made = (Explainer(committed.opened(name), memory=way) for way in WAYS)
    alike(*explained(sample(name), *made))


def chain(depth: int, kind: str = "Tanh") -> Model:
    """Convolutions with biases and functions, with a shortcut over the second half."""
    lines, weights, x = [], {}, "x"
    for k in range(depth):
        weights[f"w{k}"] = real(4, 3 if k == 0 else 4, 3, 3, seed=k, low=-0.4, high=0.4)
        weights[f"b{k}"] = real(4, seed=k)
        lines += [f"c{k} = Conv<pads=[1, 1, 1, 1]>({x}, w{k}, b{k})", f"r{k} = {kind}(c{k})"]
        x = f"r{k}"
    lines += [f"s = Add(r{depth // 2}, {x})", "g = GlobalAveragePool(s)", "y = Flatten(g)"]
    return opened(proto(" ".join(lines), {"x": real(2, 3, 16, 16)}, weights, free=(0, 2, 3)))


@pytest.mark.parametrize("kind", ["Tanh", "Relu"])
def test_a_chain_of_convolutions(kind: str) -> None:
    model = chain(9, kind)
    made = [Explainer(model, memory=way) for way in WAYS]
    alike(*explained(tensors({"x": real(2, 3, 16, 16, seed=5)}), *made))


def test_the_optimiser_does_not_merge_copies_with_the_first_computation() -> None:
    """Nor do fixed shapes let it compute the barrier beforehand."""
    feeds = {"x": real(2, 3, 16, 16)}
    graphs = [saved_as_optimised(compiled(chain(9), feeds, way)).graph for way in WAYS]
    kept, again = (Counter(node.op_type for node in graph.node)["Conv"] for graph in graphs)
    assert again > kept


def test_a_compiled_explainer(tmp_path: Path) -> None:
    """The choice is in the manifest, and cannot be changed afterwards."""
    path = tmp_path / "explainer.onnx"
    model = FILES["reviews-rope"]
    path.write_bytes(compile_model(model, path, settings=CompileSettings(memory="bounded")))
    given = sample("reviews-rope")
    there, here = explained(given, *(Explainer(p, memory="bounded") for p in (path, model)))
    assert there.record.run.params["memory"] == "bounded"
    assert there.record.relevance.total == pytest.approx(here.record.relevance.total, rel=1e-5)
    with pytest.raises(UsageError, match="memory compiled in"):
        Explainer(path, memory="fast")
    session = onnxruntime.InferenceSession(str(path))
    assert np.isfinite(session.run(["relevance_total"], dict(given.feeds))[0]).all()


def test_memory_decides_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the shapes of the input; a larger one changes the choice."""
    monkeypatch.setattr("palrp_onnx.machine.free_memory", lambda: 8_000_000)
    made = Explainer(chain(9))
    feeds = [tensors({"x": real(1, 3, side, side)}) for side in (16, 160, 16)]
    found = [explained(each, made)[0].record.run.params.get("memory") for each in feeds]
    assert found == [None, "bounded", "bounded"]
    monkeypatch.setattr("palrp_onnx.machine.free_memory", lambda: 1_000_000)
    with pytest.raises(ResourceError, match="would take about"):
        explained(feeds[1], Explainer(chain(9)))
    monkeypatch.setattr("palrp_onnx.machine.free_memory", lambda: None)
    assert "memory" not in explained(feeds[1], Explainer(chain(9)))[0].record.run.params


def test_numpy_keeps_everything() -> None:
    with pytest.raises(UsageError, match="NumPy engine keeps"):
        Explainer(chain(2), engine="numpy", memory="bounded")
    with pytest.raises(UsageError, match="Unknown memory"):
        Explainer(chain(2), memory="small")
