"""Shuffled copies of a model: which tensors, in which order, and what maps make of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import onnx
import pytest
from committed import MODELS
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.baselines import ComparedMethod, compared_method
from palrp_onnx.evaluate.maps import explained, target_text
from palrp_onnx.evaluate.randomisation import SHARES, randomisation, shuffled, weights
from palrp_onnx.inputs import Sample, open_sample
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import FileForward

ROPE = MODELS / "reviews-rope"


@pytest.fixture(scope="module")
def rope() -> Model:
    return Model.open(ROPE / "model.onnx")


def read(model: Model, folder: Path = ROPE) -> Sample:
    return open_sample(
        folder / "sample.txt",
        model_path=folder / "model.onnx",
        graph_inputs=model.inputs,
        tokenizer=None,
    )


def stored(model: Model, name: str) -> NDArray[np.generic]:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def tied(path: Path) -> Model:
    """Products with weights, with positions, and with the table that tokens are looked up in."""
    rng = np.random.default_rng(0)

    def table(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "first"], ["y"]),
        helper.make_node("MatMul", ["y", "aside"], ["unused"]),
        helper.make_node("MatMul", ["places", "turn"], ["constant"]),
        helper.make_node("Shape", ["ids"], ["length"], start=1),
        helper.make_node("Slice", ["spots", "zero", "length"], ["cut"]),
        helper.make_node("Transpose", ["cut"], ["across"], perm=[1, 0]),
        helper.make_node("MatMul", ["y", "across"], ["scores"]),
        helper.make_node("MatMul", ["scores", "y"], ["mixed"]),
        helper.make_node("Add", ["mixed", "constant"], ["z"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["z", "turned"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", 9]),
            helper.make_tensor_value_info("unused", TensorProto.FLOAT, ["batch", "tokens", 4]),
        ],
        [
            table("table", 9, 4),
            table("places", 1, 4),
            table("spots", 8, 4),
            numpy_helper.from_array(np.array([0]), "zero"),
            *(table(name, 4, 4) for name in ("first", "aside", "turn")),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return Model.open(path)


def test_weights_from_the_output_down(tmp_path: Path) -> None:
    # Products of constants, and what the length of the input cuts out, are no weights of content.
    assert weights(tied(tmp_path / "m.onnx"), "logits") == ["table", "first"]
    assert weights(tied(tmp_path / "m.onnx"), "unused") == ["aside", "first"]


def test_a_model_without_weights(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("ReduceSum", ["x", "axis"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(np.ones((9, 4), np.float32), "table"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    with pytest.raises(UsageError, match="no weights"):
        weights(Model.open(path), "logits")


def test_entries_are_permuted_and_nothing_else(rope: Model) -> None:
    sample = read(rope)
    names = weights(rope, "logits")
    before = {name: stored(rope, name).copy() for name in rope.graph.initializers}
    with shuffled(rope, names[:4], seed=1) as some:
        for name, array in before.items():
            new = stored(some, name)
            assert np.array_equal(new, array) == (name not in names[:4])
            assert np.array_equal(np.sort(new, axis=None), np.sort(array, axis=None))
            assert np.array_equal(stored(rope, name), array)
        with shuffled(rope, names, seed=1) as more, shuffled(rope, names, seed=2) as others:
            for name in names[:4]:
                assert np.array_equal(stored(more, name), stored(some, name))
                assert not np.array_equal(stored(others, name), stored(some, name))
        logits = [FileForward(each, "logits")(sample.feeds) for each in (rope, some)]
        assert abs(logits[0] - logits[1]).max() > 1e-2
        path = some.path
    assert not path.exists()


def test_numbers_of_few_bits(tmp_path: Path) -> None:
    folder = MODELS / "reviews-bert"
    path = tmp_path / "int8.onnx"
    # In seven bits, so that every processor multiplies exactly: what is written does.
    quantize_dynamic(folder / "model.onnx", path, reduce_range=True)
    real, quantised = Model.open(folder / "model.onnx"), Model.open(path)
    sample = read(real, folder)
    names = weights(quantised, "logits")
    assert len(names) == len(weights(real, "logits"))
    assert {stored(quantised, name).dtype for name in names} == {np.dtype(np.int8)}
    facts, before = explained(compared_method("pa-lrp", quantised), sample, "pred")
    wanted = target_text(facts, "pred")
    with shuffled(quantised, []) as same:
        assert not same.lowered  # what is written is the plain graph
        again = explained(compared_method("pa-lrp", same), sample, wanted)[1]
        assert np.allclose(again, before, atol=1e-5 * abs(before).max())
    with shuffled(quantised, names) as other:
        after = explained(compared_method("pa-lrp", other), sample, wanted)[1]
        assert np.corrcoef(before, after)[0, 1] < 0.9


def build(model: Model) -> Mapping[str, ComparedMethod]:
    return {name: compared_method(name, model) for name in ("pa-lrp", "rollout")}


def test_randomisation(rope: Model) -> None:
    sample = read(rope)

    def samples() -> Iterator[Sample]:
        for start in (0, 12):
            feeds = {k: v[:, start : start + 24] for k, v in sample.feeds.items()}
            yield replace(sample, id=str(start), feeds=feeds, units=None, kind="tensors")

    told: list[int] = []
    found = randomisation(rope, build, samples, progress=told.append)
    assert told == list(range(1, 2 * (len(SHARES) + 1) + 1))
    ours, rollout = found["pa-lrp"], found["rollout"]
    assert (ours.samples, [step.share for step in ours.steps]) == (2, list(SHARES))
    count = len(weights(rope, "logits"))
    assert [step.tensors for step in ours.steps] == [ceil(share * count) for share in SHARES]
    # Attention comes before the last quarter of the weights, so rollout cannot see them change.
    assert rollout.steps[0].signed.value == pytest.approx(1)
    assert all(step.signed.high < 0.8 for step in ours.steps)
    assert ours.steps[-1].magnitude.value < 0.8


def test_nothing_to_evaluate(rope: Model) -> None:
    with pytest.raises(InputError, match="nothing"):
        randomisation(rope, build, list)
