"""A second judge: the cases that the ``onnx`` package holds for every operation of the standard.

A rule must not lose relevance on any of them: what it sends to operands and what it absorbs adds up
to what arrived. Where an operation is linear in its first operand, the multiplier is its gradient.
What is lowered must compute, in ONNX Runtime, what the case says.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from palrp_onnx.errors import PalrpError
from palrp_onnx.forward import RuntimeForward
from palrp_onnx.graph.lowering import lowerable
from palrp_onnx.graph.model import Model
from palrp_onnx.rules import NO_PATH, Shares, find_rule, supported
from palrp_onnx.tensor.eager import Eager

Array = NDArray[Any]
RULED = {op for domain, op, _ in supported() if not domain}
LOWERED = {op for domain, op in lowerable() if not domain}
#: Linear in the first operand.
LINEAR = frozenset(
    "Add AveragePool BatchNormalization Cast Concat Conv ConvTranspose CumSum Div Dropout Einsum "
    "Expand Flatten Gather GatherElements GatherND Gemm GlobalAveragePool Identity MatMul Mean "
    "Mul Neg Pad ReduceMean ReduceSum Reshape Resize ScatterND Slice Split Squeeze Sub Sum Tile "
    "Transpose Trilu Unsqueeze".split()
)
#: Which the standard does not hold, so that there are no cases.
WITHOUT_CASES = frozenset(("SimplifiedLayerNormalization",))


@cache
def cases() -> dict[str, Any]:
    """Cases of one node each, by name."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    return {case.name: case for case in found if len(case.model.graph.node) == 1}


def named(ops: set[str]) -> list[str]:
    return [n for n, case in cases().items() if case.model.graph.node[0].op_type in ops]


class CaseNode:
    """One case, as a rule sees a node: :class:`palrp_onnx.rules.Node`."""

    def __init__(self, case: Any, *, only_first: bool) -> None:
        self._node: onnx.NodeProto = case.model.graph.node[0]
        given, expected = case.data_sets[0]
        names = [v.name for v in case.model.graph.input]
        fed = dict(zip(names, given, strict=True))
        self.inputs = [wide(fed[n]) if n else None for n in self._node.input]
        made = dict(zip([v.name for v in case.model.graph.output], expected, strict=True))
        self.outputs = [wide(made[n]) if n else None for n in self._node.output]
        self.op_type = self._node.op_type
        self.opset = next(i.version for i in case.model.opset_import if not i.domain)
        self.arity = len(self.inputs)
        self._only_first = only_first
        self._attributes = {
            a.name: onnx.helper.get_attribute_value(a) for a in self._node.attribute
        }

    def input(self, index: int) -> Array:
        value = self.inputs[index]
        assert value is not None
        return value

    def output(self, index: int = 0) -> Array:
        value = self.outputs[index]
        assert value is not None
        return value

    def guarded_output(self) -> Array:
        return self.output()

    def only_guards(self) -> bool:
        return False

    def has(self, index: int) -> bool:
        return index < self.arity and self.inputs[index] is not None

    def rank(self, index: int) -> int:
        return self.input(index).ndim

    def active(self, index: int) -> bool:
        return self.input(index).dtype.kind == "f" and (index == 0 or not self._only_first)

    def attribute(self, name: str, default: Any) -> Any:
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def integers(self, index: int) -> tuple[int, ...]:
        return tuple(int(v) for v in self.input(index).ravel())

    def reals(self, index: int) -> tuple[float, ...]:
        return tuple(float(v) for v in self.input(index).ravel())

    def number(self, index: int) -> float:
        if self.input(index).size != 1:
            raise NotImplementedError(f"input {index} is not a single number")
        return float(self.input(index).ravel()[0])


def wide(array: Any) -> Array:
    if not isinstance(array, np.ndarray | np.generic):
        pytest.skip("no tensor")
    real = np.asarray(array).dtype.kind == "f" or "float" in str(np.asarray(array).dtype)
    return np.asarray(array, np.float64) if real else np.asarray(array)


def shares_of(name: str, *, only_first: bool) -> tuple[CaseNode, list[Any], Shares[Array]]:
    """The node, the multipliers of its outputs, and what its rule makes of them."""
    node = CaseNode(cases()[name], only_first=only_first)
    real = [o for o in node.outputs if o is not None and o.dtype.kind == "f"]
    if not real or not node.inputs or node.inputs[0] is None or node.input(0).dtype.kind != "f":
        pytest.skip("no real path")
    if not all(np.isfinite(o).all() for o in real):
        pytest.skip("the case is about what is not finite")
    entry = find_rule("", node.op_type, node.opset)
    if entry is None:
        pytest.skip("no rule at this opset")
    generator = np.random.default_rng(1)
    sent = [
        generator.normal(size=o.shape) if o is not None and o.dtype.kind == "f" else None
        for o in node.outputs
    ]
    if entry.outputs == "first":
        sent = [sent[0], *[None] * (len(sent) - 1)]
    m: Any = tuple(sent) if entry.outputs == "all" else sent[0]
    op = Eager(1, np.dtype(np.float64))
    try:
        with np.errstate(all="ignore"):
            shares = entry.rule(op, node, m)
    except NotImplementedError as error:
        pytest.skip(f"refused: {error}")
    return node, sent, shares if isinstance(shares, Shares) else Shares(shares)


#: At x = 0 the identity rule m ∘ y / x has no value; a cut whose bounds are the wrong way round,
#: or that leaves zero out, loses what stands there.
AT_ZERO = ("test_clip_min_greater_than_max",)


@pytest.mark.parametrize("name", [n for n in named(RULED) if n not in AT_ZERO])
def test_nothing_is_lost(name: str) -> None:
    node, sent, shares = shares_of(name, only_first=False)
    arrived = sum(
        float((o * m).sum()) for o, m in zip(node.outputs, sent, strict=True) if m is not None
    )
    left = [float(np.sum(r)) for r in shares.absorbed.values()]
    size = sum(abs(v) for v in left) + abs(arrived)
    for value, m in zip(node.inputs, shares.inputs, strict=True):
        if m is not None and value is not None and value.dtype.kind == "f":
            relevance = np.where(m == 0, 0.0, value * m)  # nothing arrives where m is zero
            left.append(float(relevance.sum()))
            size += float(np.abs(relevance).sum())
    assert sum(left) == pytest.approx(arrived, abs=2e-6 * size + 1e-9)


@pytest.mark.parametrize("name", named(RULED & LINEAR))
def test_the_multiplier_is_the_gradient(name: str) -> None:
    node, sent, shares = shares_of(name, only_first=True)
    first = shares.inputs[0]
    if first is None:
        pytest.skip("nothing goes to the first operand")
    step = np.random.default_rng(2).normal(size=node.input(0).shape)
    found = float((first * step).sum())
    case = cases()[name]
    try:
        there, back = (list(run(case, node, sign * step)) for sign in (1.0, -1.0))
    except Exception as error:  # the evaluator's own limits
        pytest.skip(f"onnx.reference: {type(error).__name__}")
    change = [
        float(((a - b) / 2 * m).sum())
        for a, b, m in zip(there, back, sent, strict=True)
        if m is not None
    ]
    size = sum(float(np.abs(m).sum()) for m in sent if m is not None)
    assert found == pytest.approx(sum(change), abs=1e-5 * size)


def run(case: Any, node: CaseNode, change: Array) -> Iterator[Array]:
    """The case's outputs with its first operand changed, in float64."""
    inputs = {n: v for n, v in zip(case.model.graph.node[0].input, node.inputs, strict=True) if n}
    first = case.model.graph.node[0].input[0]
    evaluator = ReferenceEvaluator(case.model)
    with np.errstate(all="ignore"):
        values = evaluator.run(None, {**inputs, first: inputs[first] + change})
    yield from (np.asarray(v, np.float64) for v in values)


@pytest.mark.parametrize("name", named(LOWERED))
def test_what_is_lowered_computes_the_same(name: str, tmp_path: Path) -> None:
    case = cases()[name]
    path = tmp_path / "model.onnx"
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.ir_version = min(model.ir_version, 10)
    onnx.save(model, path)
    given, expected = case.data_sets[0]
    if any(
        not isinstance(v, np.ndarray) or v.dtype.kind not in "iufb" for v in (*given, *expected)
    ):
        pytest.skip("types that NumPy does not have")
    try:
        lowered = Model.open(path)
    except PalrpError as error:
        pytest.skip(f"cannot be opened: {error.message}")
    if not lowered.lowered:
        pytest.skip(
            "left as it is: " + str([n.meta.get("refused", "primitive") for n in lowered.graph])
        )
    names = [v.name for v in model.graph.output]
    left = {s.name for s in lowered.inputs}
    inputs = zip((v.name for v in model.graph.input), given, strict=True)
    feeds = {n: v for n, v in inputs if n in left}
    if len(feeds) < len(given):
        pytest.skip("the case is about a cache that is not empty")
    try:
        found = RuntimeForward(lowered, names)(feeds)
    except PalrpError as error:
        pytest.skip(f"the runtime does not take it: {error.hint}")
    for key, array in zip(names, expected, strict=True):
        np.testing.assert_allclose(
            found[key].astype(np.float64), array.astype(np.float64), rtol=1e-3, atol=1e-5
        )


def test_every_operation_has_cases() -> None:
    with_cases = {case.model.graph.node[0].op_type for case in cases().values()}
    assert (RULED | LOWERED) - with_cases <= WITHOUT_CASES
    assert not RULED & NO_PATH
