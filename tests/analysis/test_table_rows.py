"""Rows of tables, and ids outside of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from building import ints, opened, proto, real
from onnx import helper

from palrp_onnx import Explainer
from palrp_onnx.errors import InputError
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A cast index of two tables, one with 5 rows and one with 7, and a linear head."""
    generator = np.random.default_rng(0)
    weights = {
        "small": generator.normal(size=(5, 3)),
        "large": generator.normal(size=(7, 3)),
        "head": generator.normal(size=(3, 2)),
    }
    nodes = [
        helper.make_node("Cast", ["ids"], ["index"], to=onnx.TensorProto.INT32),
        helper.make_node("Gather", ["small", "index"], ["first"]),
        helper.make_node("Gather", ["large", "ids"], ["second"]),
        helper.make_node("Add", ["first", "second"], ["sum"]),
        helper.make_node("ReduceMean", ["sum"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tables",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["B", "T"])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["B", 2])],
        [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("outside", [5, -6])
def test_an_id_outside_of_the_smallest_table_is_refused(
    model: Path, engine: str, outside: int
) -> None:
    explainer = Explainer(model, engine=engine)
    inside = np.array([[4, -5, 0]])
    (found,) = explainer.explain(_sample(inside), "0")
    assert found.record.residual < 1e-5
    with pytest.raises(InputError, match=f"{outside} is not in the table .* 5 rows"):
        explainer.explain(_sample(np.where(inside == 0, outside, inside)), "0")


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_rows_that_are_tokens_are_as_many_as_the_input_has(engine: str) -> None:
    """Tokens picked by an input are no table: a longer input has more of them."""
    weights = {"words": real(30, 6), "mix": real(6, 6), "head": real(6, 3)}
    feeds = {"ids": ints(list(range(20))), "at": ints(19)}
    body = (
        "e = Gather(words, ids)  m = MatMul(e, mix)  r = Relu(m)  p = Gather<axis=1>(r, at)  "
        "y = MatMul(p, head)"
    )
    model = proto(body, {"ids": feeds["ids"]}, weights, free=(0, 1))
    model.graph.input.append(helper.make_tensor_value_info("at", onnx.TensorProto.INT64, ["K"]))
    explainer = Explainer(opened(model), engine=engine, explain_input="ids")
    (found,) = explainer.explain(Sample("x", "tensors", feeds, InputFacts(kind="tensors")), "0")
    units = np.abs(found.record.relevance.total)
    assert units[19] > 0
    assert not units[:19].any()


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_ids_that_are_replaced_before_the_lookup_are_refused(engine: str) -> None:
    weights = {"words": real(30, 6), "head": real(6, 3), "none": ints(-100), "zero": ints(0)}
    body = (
        "o = Equal(ids, none)  i = Where(o, zero, ids)  e = Gather(words, i)  r = Relu(e)  "
        "s = ReduceMean<keepdims=0>(r, one)  y = MatMul(s, head)"
    )
    feeds = {"ids": ints([3, 4, 5, -100])}
    model = opened(proto(body, feeds, {**weights, "one": ints(1)}, free=(0, 1)))
    with pytest.raises(InputError, match=r"-100 is not in the table.*replaces before"):
        Explainer(model, engine=engine).explain(_sample(feeds["ids"]), "0")


def _sample(ids: np.ndarray) -> Sample:
    return Sample("ids", "tensors", {"ids": ids}, InputFacts(kind="tensors"))
