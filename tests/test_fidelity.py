"""What is explained is what the file computes: rewritten operations, branches that were taken."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import opened, proto
from msgspec import UNSET
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx import Explainer, inspect, prepare
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.errors import FidelityError
from palrp_onnx.fidelity import compare
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.lowering import activations
from palrp_onnx.model.open import Model
from palrp_onnx.prepare import Planned, plan_model
from palrp_onnx.record import Attribution, Fidelity, InputFacts, decode, encode

GENERATOR = np.random.default_rng(5)
WEIGHTS = {
    "w": GENERATOR.normal(size=(4, 4)).astype(np.float32),
    "b": GENERATOR.normal(size=4).astype(np.float32),
    "v": GENERATOR.normal(size=(4, 3)).astype(np.float32),
}
FEEDS = {"x": GENERATOR.normal(size=(2, 6, 4)).astype(np.float32)}


def save(path: Path, nodes: list[onnx.NodeProto]) -> Path:
    """A model [B, T, 4] → [B, 3] of these nodes, from ``x`` to ``y``, then mean pooling."""
    pooled = [
        helper.make_node("ReduceMean", ["h"], ["p"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        [*nodes, *pooled],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


def fused(path: Path) -> Path:
    """A matrix product, then a GELU with its bias."""
    gelu = helper.make_node("BiasGelu", ["z", "b"], ["h"], domain="com.microsoft", name="gelu")
    return save(path, [helper.make_node("MatMul", ["x", "w"], ["z"]), gelu])


def branching(path: Path) -> Path:
    """Up to eight tokens go through ``w``, more through its double, decided in nested branches."""

    def branch(name: str, nodes: list[onnx.NodeProto], result: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
        inner = [numpy_helper.from_array(np.float32(2.0), f"two_{name}")]
        return helper.make_graph(nodes, name, [], [out], inner)

    always = helper.make_node("Equal", ["length", "length"], ["always"])
    short = helper.make_node("MatMul", ["x", "w"], ["s"])
    nested = helper.make_node(
        "If",
        ["always"],
        ["t"],
        then_branch=branch("a", [short], "s"),
        else_branch=branch("b", [helper.make_node("Mul", ["x", "two_b"], ["u"])], "u"),
    )
    long = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "two_long"], ["n"]),
    ]
    choice = helper.make_node(
        "If",
        ["few"],
        ["h"],
        then_branch=branch("short", [nested], "t"),
        else_branch=branch("long", long, "n"),
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=1, end=2),
        helper.make_node("Squeeze", ["shape"], ["length"]),
        helper.make_node("Constant", [], ["eight"], value_int=8),
        helper.make_node("LessOrEqual", ["length", "eight"], ["few"]),
        always,
        choice,
    ]
    return save(path, nodes)


def explain(path: Path, feeds: dict[str, Any], **options: Any) -> list[Attribution]:
    sample = Sample("x", "tensors", feeds, InputFacts(kind="tensors", truncated=False))
    return [e.record for e in Explainer(path, **options).explain(sample, "1")]


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_the_record_says_what_was_rewritten(engine: str, tmp_path: Path) -> None:
    for record in explain(fused(tmp_path / "model.onnx"), FEEDS, engine=engine):
        assert isinstance(record.fidelity, Fidelity)
        assert record.fidelity.rewritten == {"com.microsoft.BiasGelu": 1}
        assert record.fidelity.difference <= record.fidelity.allowed
        assert decode(encode(record)) == record


def test_a_graph_that_is_plain_already_has_no_such_entry(tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", [helper.make_node("MatMul", ["x", "w"], ["h"])])
    record = explain(path, FEEDS)[0]
    assert record.fidelity is UNSET
    assert b"fidelity" not in encode(record)


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_a_wrong_rewriting_is_an_error(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "gelu", lambda b, x: b.op("Relu", x))
    path = fused(tmp_path / "model.onnx")
    with pytest.raises(FidelityError, match=r"output y; rewritten: com\.microsoft\.BiasGelu"):
        explain(path, FEEDS, engine=engine)
    with pytest.raises(FidelityError):
        compile_model(path, tmp_path / "explainer.onnx")


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_the_branch_that_is_taken_is_explained(engine: str, tmp_path: Path) -> None:
    path = branching(tmp_path / "model.onnx")
    plain = save(tmp_path / "plain.onnx", [helper.make_node("MatMul", ["x", "w"], ["h"])])
    for ours, reference in zip(
        explain(path, FEEDS, engine=engine), explain(plain, FEEDS, engine=engine), strict=True
    ):
        assert ours.relevance.total == pytest.approx(reference.relevance.total, rel=1e-5)
        assert isinstance(ours.fidelity, Fidelity)
        assert ours.fidelity.rewritten == {"If": 2}
    assert inspect(Model.open(path)).explainable


def test_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    model = Model.open(branching(tmp_path / "model.onnx"))
    inspect(model)
    assert [n.op_type for n in model.graph].count("If") == 1


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_inputs_that_take_different_branches(engine: str, tmp_path: Path) -> None:
    path = branching(tmp_path / "model.onnx")
    explainer = Explainer(path, engine=engine)
    kind = InputFacts(kind="tensors", truncated=False)
    longer = {"x": GENERATOR.normal(size=(2, 9, 4)).astype(np.float32)}
    for feeds in (FEEDS, longer, FEEDS):
        found = explainer.explain(Sample("x", "tensors", feeds, kind), "1")
        alone = explain(path, feeds, engine=engine)
        assert [f.record.relevance for f in found] == [a.relevance for a in alone]
        assert [f.record.target for f in found] == [a.target for a in alone]


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_inputs_that_alternate_are_analysed_once_a_branch(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []

    def counted(*args: Any, **options: Any) -> Planned:
        planned.append(args)
        return plan_model(*args, **options)

    monkeypatch.setattr(prepare, "plan_model", counted)
    explainer = Explainer(branching(tmp_path / "model.onnx"), engine=engine)
    kind = InputFacts(kind="tensors", truncated=False)
    for tokens in (6, 9, 3, 12, 8, 10):
        feeds = {"x": GENERATOR.normal(size=(1, tokens, 4)).astype(np.float32)}
        explainer.explain(Sample("x", "tensors", feeds, kind), "1")
    assert len(planned) == 2


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_branches_are_decided_even_where_outputs_agree(engine: str, tmp_path: Path) -> None:
    """Both branches give the same numbers; their relevance is not the same."""

    def branch(name: str, kind: str, *operands: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"o{name}", TensorProto.FLOAT, None)
        node = helper.make_node(kind, ["x", *operands], [f"o{name}"])
        return helper.make_graph([node], name, [], [out])

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=1, end=2),
        helper.make_node("Squeeze", ["shape"], ["length"]),
        helper.make_node("Constant", [], ["eight"], value_int=8),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("LessOrEqual", ["length", "eight"], ["few"]),
        helper.make_node(
            "If",
            ["few"],
            ["h"],
            then_branch=branch("a", "Exp"),
            else_branch=branch("b", "Add", "one"),
        ),
    ]
    explainer = Explainer(save(tmp_path / "model.onnx", nodes), engine=engine)
    kind = InputFacts(kind="tensors", truncated=False)
    for tokens, entry in ((6, "other"), (9, "bias"), (6, "other")):
        feeds = {"x": np.zeros((1, tokens, 4), np.float32)}
        (found,) = explainer.explain(Sample("x", "tensors", feeds, kind), "1")
        expected = WEIGHTS["v"][:, 1].sum()
        assert found.record.ledger[entry] == pytest.approx(expected, rel=1e-5)


def test_an_explainer_keeps_the_branch_it_was_compiled_with(tmp_path: Path) -> None:
    explainer = tmp_path / "explainer.onnx"
    explainer.write_bytes(compile_model(branching(tmp_path / "model.onnx"), explainer))
    assert not any(n.op_type == "If" for n in onnx.load(explainer).graph.node)
    (record, _) = explain(explainer, FEEDS)
    assert [w.code for w in record.warnings] == ["branches"]
    assert "as one example decides" in record.warnings[0].message


def test_an_example_chooses_the_branch_that_is_compiled(tmp_path: Path) -> None:
    model, explainer = branching(tmp_path / "model.onnx"), tmp_path / "explainer.onnx"
    for tokens in (6, 9):
        feeds = {"x": GENERATOR.normal(size=(1, tokens, 4)).astype(np.float32)}
        np.savez(tmp_path / "example.npz", **feeds)
        explainer.write_bytes(compile_model(model, explainer, example=tmp_path / "example.npz"))
        (ours,), (theirs,) = explain(explainer, feeds), explain(model, feeds)
        assert ours.target.value == pytest.approx(theirs.target.value, rel=1e-5)
        np.testing.assert_allclose(ours.relevance.total, theirs.relevance.total, atol=1e-5)


@pytest.mark.parametrize(
    ("expected", "found", "difference", "of"),
    [
        ([1.0, -2.0], [1.0, -2.5], 0.5, 2.0),
        ([1.0, -np.inf], [1.5, -np.inf], 0.5, 1.0),
        ([1.0, -1e9], [1.5, -1e9], 0.5, 1.0),
        ([2.0, -1e9], [2.0, -1.5e9], 1.0, 2.0),
        ([2.0, -3.4e38], [2.0, -3.4e38], 0.0, 2.0),
        ([2.0, -np.inf], [2.0, -3.4e38], np.inf, 2.0),
        ([2.0, np.inf], [3.0, np.inf], 1.0, 2.0),
        ([2.0, np.nan], [2.0, 1.0], np.inf, 2.0),
        ([2.0, np.nan], [2.0, np.nan], 0.0, 2.0),
        ([-1e6, -2e6], [-1e6, -2.5e6], 5e5, 2e6),
        ([0.0, -1e9], [0.0, -1e9], 0.0, 0.0),
        ([1.0, 2.0], [1.0], np.inf, 2.0),
    ],
)
def test_entries_that_are_switched_off_do_not_hide_the_others(
    expected: list[float], found: list[float], difference: float, of: float
) -> None:
    """A class of −∞ or −1e9 says nothing of how far the others may be off."""
    measured = compare(np.array(expected, np.float32), np.array(found, np.float32))
    assert measured == (pytest.approx(difference), pytest.approx(of))


@pytest.mark.parametrize("off", [-np.inf, -1e9, -3.4e38])
def test_a_wrong_rewriting_next_to_a_class_that_is_switched_off(
    off: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "gelu", lambda b, x: b.op("Relu", x))
    path = fused(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "scores"
    model.graph.node.append(helper.make_node("Add", ["scores", "off"], ["y"]))
    switched = np.array([0, 0, off], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(switched, "off"))
    onnx.save(model, path)
    with pytest.raises(FidelityError, match="does not compute what the file computes"):
        explain(path, FEEDS)


def test_a_forward_pass_in_numpy_is_compared_with_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's evaluator is another implementation, of graphs that are plain already too."""
    path = save(tmp_path / "model.onnx", [helper.make_node("Erf", ["x"], ["h"])])
    (record, _) = explain(path, FEEDS, dtype="float64")
    assert record.fidelity is UNSET
    monkeypatch.setattr(math, "erf", math.tanh)
    with pytest.raises(FidelityError, match="forward pass that was explained"):
        explain(path, FEEDS, dtype="float64")


@pytest.mark.parametrize("opset", [9, 12])
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 1, 2])
def test_softmax_of_older_opsets_in_float64(
    op_type: str, axis: int | None, opset: int, tmp_path: Path
) -> None:
    """Over all axes from the second on by default, which the package's evaluator does not know."""
    scores = helper.make_node(op_type, ["x"], ["h"], **({} if axis is None else {"axis": axis}))
    path = save(tmp_path / "model.onnx", [scores])
    model = onnx.load(path)
    model.opset_import[0].version = opset
    onnx.save(model, path)
    x = FEEDS["x"].astype(np.float64)
    tail = (2,) if axis == 2 else (1, 2)
    h = x - np.log(np.exp(x).sum(axis=tail, keepdims=True))
    y = (h if op_type == "LogSoftmax" else np.exp(h)).mean(axis=1) @ WEIGHTS["v"]
    for options in ({}, {"dtype": "float64"}):
        for row, record in enumerate(explain(path, FEEDS, **options)):
            assert record.target.value == pytest.approx(y[row, 1], abs=1e-5)
            assert abs(record.ledger["residual_relative"]) < 1e-5


@pytest.mark.parametrize("p", [1, 2])
def test_norms_in_float64(p: int, tmp_path: Path) -> None:
    """Half of all sums are negative: their magnitudes are what is added up."""
    normed = helper.make_node("LpNormalization", ["x"], ["h"], axis=2, p=p)
    path = save(tmp_path / "model.onnx", [normed])
    for one, other in zip(explain(path, FEEDS), explain(path, FEEDS, dtype="float64"), strict=True):
        np.testing.assert_allclose(one.relevance.content, other.relevance.content, atol=1e-5)
        assert abs(other.ledger["residual_relative"]) < 1e-10


def test_an_open_ledger_is_compared_with_the_file(tmp_path: Path) -> None:
    """ONNX Runtime's optimiser changes what a transpose before a product with a vector computes.

    Where a later version does not, the ledger closes.
    """
    x = np.random.default_rng(0).normal(size=(1, 4, 3)).astype(np.float32)
    body = "t = Transpose <perm = [0, 2, 1]> (x)  y = MatMul(t, w)"
    model = opened(proto(body, {"x": x}, {"w": np.arange(1, 5, dtype=np.float32)}))
    sample = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    try:
        (found,) = Explainer(model.path).explain(sample, "0")
    except FidelityError:
        return
    assert abs(found.record.ledger["residual_relative"]) < 1e-5
