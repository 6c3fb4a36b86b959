"""The explanation as an ONNX graph equals the NumPy engine, for every target, size and method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from palrp_onnx import Explainer
from palrp_onnx.attribution import InputFacts
from palrp_onnx.compiler import Settings, compile_graph
from palrp_onnx.errors import TargetError, UsageError
from palrp_onnx.graph.model import Model
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.planning import plan_model
from palrp_onnx.relevance.presets import PRESETS

ROOT = Path(__file__).parent
FILES = {
    "bert": ROOT / "golden/lxt_bert_seqcls/model.onnx",
    "gpt2": ROOT / "golden/lxt_gpt2_lm/model.onnx",
    "llama": ROOT / "golden/palrp_llama_causal_gqa/model.onnx",
    "llama-tc": ROOT / "golden/palrp_llama_seqcls/model.onnx",
    "vit": ROOT / "golden/lxt_vit_hf/model.onnx",
    "reviews-rope": ROOT.parent / "models/reviews-rope/model.onnx",
    "reviews-bert": ROOT.parent / "models/reviews-bert/model.onnx",
    "digits-vit": ROOT.parent / "models/digits-vit/model.onnx",
}
TOLERANCE = 2e-3

Array = NDArray[Any]


def sample(name: str, samples: int = 2, tokens: int = 9, seed: int = 0) -> Sample:
    """Random input; the last row's last two tokens are padding."""
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for signature in Model.open(FILES[name]).inputs:
        if signature.name == "pixel_values":
            side = 16 if name == "digits-vit" else 48
            feeds["pixel_values"] = generator.normal(size=(samples, 3, side, side)).astype("f4")
        elif signature.name == "input_ids":
            feeds["input_ids"] = generator.integers(5, 60, size=(samples, tokens))
        elif signature.name == "attention_mask":
            mask = np.ones((samples, tokens), np.int64)
            mask[-1, -2:] = 0
            feeds["attention_mask"] = mask
        elif signature.name == "position_ids":
            feeds["position_ids"] = np.tile(np.arange(tokens), (samples, 1))
        else:
            feeds[signature.name] = np.zeros((samples, tokens), np.int64)
    return Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))


def compare(name: str, given: Sample, target: str = "pred", **options: Any) -> None:
    numpy = Explainer(FILES[name], **options).explain(given, target)
    compiled = Explainer(FILES[name], engine="onnxruntime", **options).explain(given, target)
    assert len(compiled) == len(numpy)
    for ours, reference in zip(compiled, numpy, strict=True):
        assert ours.record.run.engine == "onnxruntime"
        assert ours.record.target.index == reference.record.target.index
        assert ours.record.target.value == pytest.approx(reference.record.target.value, rel=1e-4)
        assert ours.tensors.keys() == reference.tensors.keys()
        for key, array in reference.tensors.items():
            assert np.abs(ours.tensors[key] - array).max() <= TOLERANCE * np.abs(array).max()
        for key, amount in reference.record.ledger.items():
            scale = sum(abs(v) for k, v in reference.record.ledger.items() if "residual" not in k)
            assert abs(ours.record.ledger[key] - amount) <= TOLERANCE * scale
        assert abs(ours.record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("name", FILES)
def test_equals_the_numpy_engine(name: str) -> None:
    compare(name, sample(name))


@pytest.mark.parametrize("method", PRESETS)
@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
def test_every_method(name: str, method: str) -> None:
    compare(name, sample(name), method=method)


@pytest.mark.parametrize("positions", ["relu", "abs", "signed", "single-sink"])
@pytest.mark.parametrize("name", ["bert", "llama-tc", "vit"])
def test_reductions_in_the_graph(name: str, positions: str) -> None:
    given = sample(name)
    reference = Explainer(FILES[name], positions=positions).explain(given)
    session = compiled_session(name, given, positions=positions)
    outputs = run(session, given.feeds)
    for row, explanation in enumerate(reference):
        relevance = explanation.record.relevance
        for part in ("content", "position", "total"):
            expected = np.array(getattr(relevance, part))
            ours = outputs[f"relevance_{part}"][row]
            assert np.abs(ours - expected).max() <= TOLERANCE * np.abs(relevance.total).max()
        sites = np.array([site.relevance for site in explanation.record.sites])
        assert np.abs(outputs["relevance_sites"][row] - sites).max() <= TOLERANCE * abs(sites).max()


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("bert", "2"),
        ("bert", "0-1"),
        ("gpt2", "5"),
        ("gpt2", "5-7"),
        ("gpt2", "token:3"),
        ("llama", "token:2:11"),
    ],
)
def test_targets(name: str, target: str) -> None:
    compare(name, sample(name), target)


def test_targets_that_the_graph_does_not_take() -> None:
    with pytest.raises(UsageError, match="compiled graph"):
        Explainer(FILES["gpt2"], engine="onnxruntime").explain(sample("gpt2"), "0,1")
    with pytest.raises(TargetError, match="outside"):
        Explainer(FILES["bert"], engine="onnxruntime").explain(sample("bert"), "9")
    with pytest.raises(TargetError, match="token axis"):
        Explainer(FILES["bert"], engine="onnxruntime").explain(sample("bert"), "token:1")


def compiled_model(name: str, given: Sample, **settings: Any) -> ir.Model:
    planned = plan_model(Model.open(FILES[name]), given.feeds, PRESETS["pa-lrp"])
    return compile_graph(planned, Settings(**settings))


def compiled_session(name: str, given: Sample, **settings: Any) -> Any:
    proto = ir.serde.serialize_model(compiled_model(name, given, **settings))
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def run(session: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "llama-tc", "vit"])
def test_one_graph_serves_every_batch_size_and_length(name: str) -> None:
    session = compiled_session(name, sample(name))
    for samples, tokens in ((1, 2), (3, 5), (2, 12)):
        given = sample(name, samples, tokens, seed=tokens)
        if name == "vit" and tokens != 5:
            continue
        batch = run(session, given.feeds)
        reference = Explainer(FILES[name]).explain(given)
        for row in range(samples):
            expected = np.array(reference[row].record.relevance.total)
            ours = batch["relevance_total"][row]
            assert np.abs(ours - expected).max() <= TOLERANCE * np.abs(expected).max()
            alone = {key: array[row : row + 1] for key, array in given.feeds.items()}
            single = run(session, alone)["relevance_total"][0]
            assert np.abs(single - ours).max() <= TOLERANCE * np.abs(expected).max()


def test_targets_may_differ_from_row_to_row() -> None:
    given = sample("bert", samples=3)
    session = compiled_session("bert", given)
    target, against = np.array([0, 2, -1]), np.array([-1, 1, -1])
    outputs = run(session, {**given.feeds, "target": target, "target_against": against})
    for row, name in enumerate(("0", "2-1", "pred")):
        expected = Explainer(FILES["bert"]).explain(given, name)[row].record.relevance.total
        difference = np.abs(outputs["relevance_total"][row] - expected).max()
        assert difference <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
def test_portable_graphs_use_the_standard_only(name: str) -> None:
    given = sample(name)
    model = compiled_model(name, given, portable=True)
    assert {node.domain for node in model.graph} == {""}
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=False)
    plain = run(compiled_session(name, given), given.feeds)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for key, array in run(session, given.feeds).items():
        np.testing.assert_allclose(array, plain[key], atol=TOLERANCE * np.abs(plain[key]).max())


def test_outputs_and_metadata() -> None:
    given = sample("llama")
    model = compiled_model("llama", given)
    names = [output.name for output in model.graph.outputs]
    assert names == [
        "logits",
        "relevance_content",
        "relevance_position",
        "relevance_total",
        "relevance_sites",
        "relevance_ledger",
    ]
    facts = {k.removeprefix("palrp_onnx."): v for k, v in model.metadata_props.items()}
    assert facts["method"] == "pa-lrp"
    assert facts["source_sha256"] == Model.open(FILES["llama"]).sha256
    sites = json.loads(facts["sites"])
    assert sites == [["rope", layer, part] for layer in range(3) for part in ("cos", "sin")]
    outputs = run(compiled_session("llama", given), given.feeds)
    assert outputs["relevance_sites"].shape == (2, 6, 9)
    assert outputs["relevance_ledger"].shape == (2, len(json.loads(facts["ledger"])))
    lean = compiled_model("llama", given, ledger=False)
    assert "relevance_ledger" not in [output.name for output in lean.graph.outputs]
    assert len(lean.graph) < len(model.graph)


def test_weights_are_neither_copied_nor_transposed() -> None:
    given = sample("reviews-rope")
    before = Model.open(FILES["reviews-rope"]).graph
    size = sum(v.const_value.nbytes for v in before.initializers.values() if v.const_value)
    after = compiled_model("reviews-rope", given).graph
    added = sum(v.const_value.nbytes for v in after.initializers.values() if v.const_value) - size
    assert added < 4096
    weights = {
        v for v in after.initializers.values() if v.const_value and v.const_value.nbytes > 4096
    }
    assert not [n for n in after if n.op_type == "Transpose" and n.inputs[0] in weights]
