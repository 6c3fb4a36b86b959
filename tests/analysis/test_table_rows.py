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


#: How ids are replaced before they are looked up, and the places of those that no lookup reads.
REPLACED = {
    "by a mark": ("o = Equal(ids, none)  i = Where(o, zero, ids)", [1]),
    "where they are negative": ("o = Less(ids, zero)  i = Where(o, zero, ids)", [1]),
    "after a shift": (
        """c = Slice(ids, first, last, one)  j = Concat <axis=1> (start, c)  o = Equal(j, none)
        i = Where(o, zero, j)""",
        [1, 3],
    ),
    "before a shift": (
        """o = Equal(ids, none)  j = Where(o, zero, ids)  c = Slice(j, first, last, one)
        i = Concat <axis=1> (start, c)""",
        [1, 3],
    ),
    "by leaving them out": ("i = Gather <axis=1> (ids, order)", [1]),
}


@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize(
    "options", [{}, {"engine": "numpy"}, {"dtype": "float64"}], ids=["compiled", "eager", "float64"]
)
@pytest.mark.parametrize("how", REPLACED)
def test_ids_that_are_replaced_need_not_be_in_the_table(
    how: str, options: dict[str, str], dtype: str
) -> None:
    """A word has the relevance of its own row; what stands for −100 is no word of the text."""
    move, unread = REPLACED[how]
    body = f"""{move}  e = Gather(words, i)  w = Mul(e, weight)
        s = ReduceSum<keepdims=0>(w, along)  y = MatMul(s, head)"""
    known = {
        "words": real(30, 6),
        "head": real(6, 3, seed=2),
        "weight": real(1, 1, 6, seed=3),
        "none": np.array(-100, dtype),
        "zero": np.array(0, dtype),
        "start": np.array([[2]], dtype),
        "first": ints(0),
        "last": ints(-1),
        "order": ints(0, 2, 3),
        "one": ints(1),
        "along": ints(1),
    }
    weights = {k: a for k, a in known.items() if f"{k}," in body or f"{k})" in body}
    ids = np.array([[3, -100, 5, 4]], dtype)
    explainer = Explainer(opened(proto(body, {"ids": ids}, weights, free=(0, 1))), **options)
    (found,) = explainer.explain(_sample(ids), "1")
    rows = (known["words"] * known["weight"][0]) @ known["head"][:, 1]
    expected = rows[ids[0] % 30]
    expected[unread] = 0
    np.testing.assert_allclose(found.record.relevance.total, expected, atol=1e-5)
    assert abs(found.record.ledger["residual_relative"]) < 1e-5
    assert found.record.ledger["target"] == pytest.approx(
        expected.sum() + found.record.ledger["bias"], abs=1e-5
    )
    with pytest.raises(InputError):  # as in the file itself
        explainer.explain(_sample(np.where(ids == 5, 30, ids)), "1")


def _sample(ids: np.ndarray) -> Sample:
    return Sample("ids", "tensors", {"ids": ids}, InputFacts(kind="tensors"))
