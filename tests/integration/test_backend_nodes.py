"""A second judge: the cases that the ``onnx`` package holds for every operation of the standard.

A rule must not lose relevance on any of them: what it sends to operands and what it absorbs adds up
to what arrived. Where an operation is linear in its first operand, the multiplier is its gradient.
What it emits computes the same in ONNX Runtime. Both forward passes, and what is lowered, compute
what the case says.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from palrp_onnx.compiler.graph import OPSET
from palrp_onnx.errors import LaterOpsetError, PalrpError
from palrp_onnx.model.lowering import lowerable
from palrp_onnx.model.open import Model
from palrp_onnx.rules import NO_PATH, Shares, find_rule, supported
from palrp_onnx.runtime.forward import ReferenceForward, RuntimeForward
from palrp_onnx.runtime.recurrent import operations
from palrp_onnx.tensor.numpy import Eager
from palrp_onnx.tensor.onnx import Emit

Array = NDArray[Any]
RULED = {op for domain, op, _ in supported() if not domain}
LOWERED = {op for domain, op in lowerable() if not domain}
#: Linear in the first operand.
LINEAR = frozenset(
    "Add AveragePool BatchNormalization Cast CenterCropPad Compress Concat Conv ConvTranspose "
    "CumSum DepthToSpace Div Dropout Einsum Expand Flatten Gather GatherElements GatherND Gemm "
    "GlobalAveragePool Identity MatMul Mean Mul Neg Pad ReduceMean ReduceSum Reshape Resize "
    "ReverseSequence ScatterElements ScatterND Slice SpaceToDepth Split Squeeze Sub Sum Tile "
    "Transpose Trilu Unsqueeze Upsample Where".split()
)
#: Without cases in the package of the standard.
WITHOUT_CASES = frozenset(("GlobalLpPool", "SimplifiedLayerNormalization"))


@cache
def cases() -> dict[str, Any]:
    """Cases of one node each, by name."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    return {case.name: case for case in found if len(case.model.graph.node) == 1}


def op_of(name: str) -> str:
    return str(cases()[name].model.graph.node[0].op_type)


def named(ops: set[str]) -> list[str]:
    return [name for name in cases() if op_of(name) in ops]


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
        if self._node.op_type in ("GRU", "LSTM", "RNN") and self.outputs[0] is None:
            self.outputs[0] = hidden_states(case.model, fed)
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

    def stored(self, index: int) -> None:
        return None


def hidden_states(model: onnx.ModelProto, fed: dict[str, Any]) -> Array:
    """The output that a pass adds to recurrent nodes without it."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.graph.node[0].output[0] = "hidden"
    model.graph.output.append(onnx.helper.make_tensor_value_info("hidden", 1, None))
    evaluator = ReferenceEvaluator(model, new_ops=operations())
    return np.asarray(evaluator.run(["hidden"], {n: wide(a) for n, a in fed.items()})[0])


def wide(array: Any) -> Array:
    real = np.asarray(array).dtype.kind == "f" or "float" in str(np.asarray(array).dtype)
    return np.asarray(array, np.float64) if real else np.asarray(array)


def has_path(name: str) -> bool:
    """Whether relevance can pass: real tensors in and out, all finite, and a rule."""
    case = cases()[name]
    given, expected = case.data_sets[0]
    if not all(isinstance(a, np.ndarray | np.generic) for a in (*given, *expected)):
        return False
    node = CaseNode(case, only_first=False)
    real = [o for o in node.outputs if o is not None and o.dtype.kind == "f"]
    first = node.inputs[0] if node.inputs else None
    reals = real and first is not None and first.dtype.kind == "f"
    finite = all(np.isfinite(o).all() for o in real)
    return bool(reals) and finite and find_rule("", node.op_type, node.opset) is not None


def in_numpy(name: str) -> bool:
    """Whether NumPy has the types of the case."""
    given, expected = cases()[name].data_sets[0]
    return all(isinstance(a, np.ndarray) and a.dtype.kind in "iufb" for a in (*given, *expected))


#: Names of the cases that a rule can be tried on.
TRIED = [name for name in named(RULED) if has_path(name)]


def shares_of(name: str, *, only_first: bool) -> tuple[CaseNode, list[Any], Shares[Array]]:
    """The node, the multipliers of its outputs, and what its rule makes of them."""
    node = CaseNode(cases()[name], only_first=only_first)
    entry = find_rule("", node.op_type, node.opset)
    assert entry is not None
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


def emitted(node: CaseNode, sent: list[Array | None], shapes: dict[str, Array]) -> dict[str, Array]:
    """What the rule makes of a case as a graph: multipliers by input, absorbed by entry."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": node.opset, "com.microsoft": 1})
    view = EmittedNode(node, graph)
    entry = find_rule("", node.op_type, node.opset)
    assert entry is not None
    multipliers = [None if m is None else view.fed(f"m{k}", m) for k, m in enumerate(sent)]
    batch = view.value("batch", np.array([1]))
    op = Emit(graph, batch, {}, opset=node.opset)
    m: Any = tuple(multipliers) if entry.outputs == "all" else multipliers[0]
    shares = entry.rule(op, view, m)
    if not isinstance(shares, Shares):
        shares = Shares(shares)
    made = {str(k): v for k, v in enumerate(shares.inputs)} | dict(shares.absorbed)
    for key in shapes:
        graph.outputs.append(op.node("Identity", [made[key]], op.rank(made[key])))
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    known = {v.name for v in graph.inputs}
    found = session.run(None, {k: v for k, v in view.feeds.items() if k in known})
    return dict(zip(shapes, found, strict=True))


class EmittedNode:
    """A case as a rule sees it that emits: reals are fed, everything else is in the graph."""

    def __init__(self, node: CaseNode, graph: ir.Graph) -> None:
        self._node = node
        self._graph = graph
        self.feeds: dict[str, Array] = {}
        pairs = (("x", node.inputs), ("y", node.outputs))
        self._values = {
            f"{letter}{k}": self.value(f"{letter}{k}", array)
            for letter, arrays in pairs
            for k, array in enumerate(arrays)
            if array is not None
        }

    def value(self, name: str, array: Array) -> ir.Value:
        """A value of the graph: fed if it is real, else stored."""
        if array.dtype.kind == "f":
            return self.fed(name, array)
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value

    def fed(self, name: str, array: Array) -> ir.Value:
        """An input of the graph of which only the rank is known."""
        value = ir.val(name, ir.DataType.FLOAT, [None] * array.ndim)
        self._graph.inputs.append(value)
        self.feeds[name] = array.astype(np.float32)
        return value

    def input(self, index: int) -> ir.Value:
        return self._values[f"x{index}"]

    def output(self, index: int = 0) -> ir.Value:
        return self._values[f"y{index}"]

    def guarded_output(self) -> ir.Value:
        return self.output()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


#: Cases whose numbers are rounded to four digits.
ROUNDED = ("test_averagepool_2d_ceil_last_window_starts_on_pad",)


@pytest.mark.parametrize("name", [n for n in TRIED if n not in ROUNDED])
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


@pytest.mark.parametrize("name", [n for n in TRIED if op_of(n) in LINEAR])
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


@pytest.mark.parametrize("name", TRIED)
def test_what_is_emitted_computes_the_same(name: str) -> None:
    node, sent, shares = shares_of(name, only_first=False)
    if node.opset < OPSET:
        pytest.skip("older than what is emitted")
    if any(m is not None and not m.size for m in sent):
        pytest.skip("the case is about nothing at all")
    expected = {str(k): m for k, m in enumerate(shares.inputs) if m is not None}
    expected |= shares.absorbed
    try:
        found = emitted(node, sent, expected)
    except (NotImplementedError, LaterOpsetError) as error:
        pytest.skip(f"refused: {error}")
    for key, array in expected.items():
        size = max(1.0, float(np.abs(array).max(initial=0.0)))
        whole = np.broadcast_to(found[key], array.shape)
        np.testing.assert_allclose(whole, array, rtol=1e-3, atol=1e-4 * size, err_msg=key)


@pytest.mark.parametrize("kind", [RuntimeForward, ReferenceForward])
@pytest.mark.parametrize("name", [n for n in TRIED if in_numpy(n)])
def test_the_forward_pass_is_the_case(name: str, kind: Any, tmp_path: Path) -> None:
    shares_of(name, only_first=False)  # skips what no relevance can pass
    model, given, expected = stored(name, tmp_path)
    names = [v.name for v in model.graph.output]
    try:
        opened = Model.open(tmp_path / "model.onnx")
        feeds = dict(zip((v.name for v in model.graph.input), given, strict=True))
        found = kind(opened, names)(feeds)
    except PalrpError as error:
        pytest.skip(f"refused: {error.message}: {error.hint}")
    for key, array in zip(names, expected, strict=True):
        half = array.dtype == np.float16 or name in ROUNDED
        np.testing.assert_allclose(
            found[key].astype(np.float64),
            array.astype(np.float64),
            rtol=1e-2 if half else 1e-3,
            atol=1e-3 if half else 1e-5,
        )


def stored(name: str, folder: Path) -> tuple[onnx.ModelProto, list[Array], list[Array]]:
    """A case as a file, with what it is fed and what comes out."""
    model = onnx.ModelProto()
    model.CopyFrom(cases()[name].model)
    model.ir_version = min(model.ir_version, 10)
    onnx.save(model, folder / "model.onnx")
    given, expected = cases()[name].data_sets[0]
    return model, list(given), list(expected)


@pytest.mark.parametrize("name", [n for n in named(LOWERED) if in_numpy(n)])
def test_what_is_lowered_computes_the_same(name: str, tmp_path: Path) -> None:
    model, given, expected = stored(name, tmp_path)
    try:
        lowered = Model.open(tmp_path / "model.onnx")
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
    assert not RULED & NO_PATH.keys()
