"""Kernels for whole numbers that are not exact: the ledger says what they change, and closes.

Which kernels saturate depends on the processor. Here weights are too small for that on any, and a
product that is made smaller on purpose stands in for a kernel that saturates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from checking import model, ms, node
from msgspec import structs
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx import Explainer, Model, fidelity
from palrp_onnx.compiler.file import compile_model
from palrp_onnx.errors import FidelityError
from palrp_onnx.fidelity import FLOAT, QUANTISED, Original
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.model.native import OwnProducts
from palrp_onnx.record import Attribution, Fidelity, InputFacts
from palrp_onnx.relevance.methods import METHODS
from palrp_onnx.runtime import kernels
from palrp_onnx.runtime.kernels import are_exact

Array = NDArray[Any]
GENERATOR = np.random.default_rng(5)
#: What a product is multiplied by, which float32 holds exactly.
FACTOR = 1 - 1 / 128
TARGET = 1
#: The engines: options, largest residual, relative error of an entry.
ENGINES: dict[str, tuple[dict[str, str], float, float]] = {
    "onnxruntime": ({}, 1e-5, 1e-3),
    "numpy": ({"engine": "numpy"}, 1e-5, 1e-3),
    "float64": ({"dtype": "float64"}, 1e-10, 1e-6),
}

X = GENERATOR.normal(size=(2, 4, 16)).astype(np.float32)
IMAGE = GENERATOR.normal(size=(2, 3, 6, 6)).astype(np.float32)
#: Of unsigned bytes and numbers of seven bits no two products exceed 16 bits.
W = GENERATOR.integers(-63, 64, size=(16, 3)).astype(np.int8)
KERNEL = GENERATOR.integers(-63, 64, size=(3, 3, 3, 3)).astype(np.int8)
BIAS = np.array([0.1, -0.2, 0.3], np.float32)
XS, XZ, WS, YS = np.float32(0.025), np.uint8(120), np.float32(0.02), np.float32(0.05)


READ = node("QuantizeLinear", "x xs xz", "xq")
WRITE = node("DequantizeLinear", "yq ys yz", "p")
MEASURE = node("DynamicQuantizeLinear", "x", "xq s z")
INTEGER = [
    node("Cast", "i", "f", to=TensorProto.FLOAT),
    node("Mul", "s ws", "both"),
    node("Mul", "f both", "p"),
]


def read(x: Array) -> Array:
    """Activations as ``READ`` rounds them, in float64."""
    return (np.clip(np.rint(x / XS) + XZ, 0, 255) - float(XZ)) * float(XS)


def measured(x: Array) -> Array:
    """Activations as ``MEASURE`` rounds them, every sample by itself, in float64."""
    return np.stack([_measured(sample) for sample in x])


def _measured(x: Array) -> Array:
    high, low = max(x.max(), 0.0), min(x.min(), 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * float(scale)


def written(p: Array, zero: int = 100) -> Array:
    """Results as they are rounded again, in float64."""
    return np.clip(np.rint(p / YS), -zero, 255 - zero) * float(YS)


def times(x: Array) -> Array:
    return x @ (W * float(WS))


def convolved(x: Array) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    return np.einsum("bcijuv,ocuv->boij", windows, KERNEL * float(WS))


@dataclass(frozen=True)
class Case:
    """Nodes from ``x`` to the product ``p``, and that product without what is added, exactly."""

    nodes: list[Any]
    exact: Callable[[Array], Array]
    x: Array = field(default_factory=lambda: X)


CASES: dict[str, Case] = {
    "MatMulInteger": Case(
        [MEASURE, node("MatMulInteger", "xq w z", "i"), *INTEGER], lambda x: times(measured(x))
    ),
    "MatMulIntegerToFloat": Case(
        [READ, ms("MatMulIntegerToFloat", "xq w xs ws xz _ b", "p")], lambda x: times(read(x))
    ),
    "DynamicQuantizeMatMul": Case(
        [ms("DynamicQuantizeMatMul", "x w ws _ b", "p")], lambda x: times(measured(x))
    ),
    "ConvInteger": Case(
        [MEASURE, node("ConvInteger", "xq k z", "i"), *INTEGER],
        lambda x: convolved(measured(x)),
        IMAGE,
    ),
    "QLinearMatMul": Case(
        [READ, node("QLinearMatMul", "xq xs xz w ws wz ys yz", "yq"), WRITE],
        lambda x: written(times(read(x))),
    ),
    "QLinearMatMul, no zero point": Case(
        [
            READ,
            node("QLinearMatMul", "xq xs xz w ws wz ys y0", "yq"),
            node("DequantizeLinear", "yq ys y0", "p"),
        ],
        lambda x: written(times(read(x)), 0),
    ),
    "QLinearConv": Case(
        [READ, node("QLinearConv", "xq xs xz k ws wz ys yz", "yq"), WRITE],
        lambda x: written(convolved(read(x))),
        IMAGE,
    ),
    "QGemm": Case(
        [READ, ms("QGemm", "xq xs xz w ws wz _ ys yz", "yq"), WRITE],
        lambda x: written(times(read(x))),
        X[:, 0],
    ),
    "QGemm to real numbers": Case(
        [READ, ms("QGemm", "xq xs xz w ws wz", "p")], lambda x: times(read(x)), X[:, 0]
    ),
}


def saved(case: Case, folder: Path, weights: Mapping[str, Array] | None = None) -> Path:
    """The case as a file; what it makes is averaged over all axes but samples and columns."""
    stored = {
        "xs": XS, "xz": XZ, "ws": WS, "ys": YS, "w": W, "k": KERNEL, "b": BIAS,
        "yz": np.uint8(100), "y0": np.uint8(0), "wz": np.int8(0), **(weights or {}),
    }  # fmt: skip
    axes = {2: [], 3: [1], 4: [2, 3]}[case.x.ndim]
    last = node("ReduceMean", "p", "y", axes=axes, keepdims=0) if axes else node("Neg", "p", "y")
    nodes = [*case.nodes, last]
    used = {name for each in nodes for name in each.input}
    own = {name: array for name, array in stored.items() if name in used}
    path = folder / "model.onnx"
    onnx.save(model(nodes, {"x": case.x}, own, 17, rows=True), path)
    return path


def mean(case: Case, p: Array) -> Array:
    """The output that a product makes."""
    return {2: lambda: -p, 3: lambda: p.mean(axis=1), 4: lambda: p.mean(axis=(2, 3))}[p.ndim]()


def explained(path: Path, x: Array, engine: str, **options: str) -> list[Attribution]:
    sample = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    explainer = Explainer(path, **ENGINES[engine][0], **options)  # type: ignore[arg-type]
    return [each.record for each in explainer.explain(sample, str(TARGET))]


@pytest.fixture
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product that is put back comes out smaller than it is."""
    put_back = OwnProducts._replace

    def replace(self: Any, file_node: ir.Node, result: ir.Value) -> bool:
        name = result.name
        if not put_back(self, file_node, result):
            return False
        graph: ir.Graph = self._graph
        value = next(v for n in graph for v in n.outputs if v.name == name)
        assert value is not result
        tensor = ir.tensor(np.array(FACTOR, np.float32), name=f"{name}/factor")
        factor = ir.val(tensor.name, const_value=tensor)
        graph.register_initializer(factor)
        scaled = ir.node("Mul", [value, factor])
        graph.insert_after(value.producer(), scaled)  # type: ignore[arg-type]  # it has one
        changed = scaled.outputs[0]
        changed.type, changed.shape = value.type, value.shape
        for user, index in tuple(value.uses()):
            if user is not scaled:
                user.replace_input_with(index, changed)
        value.name, changed.name = f"{name}/kernel", name
        return True

    monkeypatch.setattr(OwnProducts, "_replace", replace)


@pytest.mark.quick
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_the_difference_is_an_entry(name: str, engine: str, tmp_path: Path, smaller: None) -> None:
    """kernel = (y − y_exact) ∘ m."""
    case, (_, residual, error) = CASES[name], ENGINES[engine]
    changes = (FACTOR - 1) * mean(case, case.exact(case.x))[:, TARGET]
    records = explained(saved(case, tmp_path), case.x, engine)
    for record, change in zip(records, changes, strict=True):
        assert abs(record.ledger["residual_relative"]) < residual
        assert record.ledger["kernel"] == pytest.approx(change, rel=error, abs=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_exact_kernels_change_nothing(name: str, engine: str, tmp_path: Path) -> None:
    """What is rewritten computes what the kernels do: weights of seven bits are exact anywhere."""
    case = CASES[name]
    for record in explained(saved(case, tmp_path), case.x, engine):
        size = sum(abs(v) for k, v in record.ledger.items() if not k.startswith("residual"))
        assert abs(record.ledger["residual_relative"]) < ENGINES[engine][1]
        assert abs(record.ledger["kernel"]) < 1e-6 * size


#: Quantised attention, with an integer product inside.
ATTENTION = Case(
    [
        READ,
        ms("QAttention", "xq wide bias xs ws _ xz wz", "p", num_heads=2),
    ],
    lambda x: x,
)


def widest(columns: int) -> Array:
    """Signed bytes as large as they can be, so that kernels saturate where they do."""
    return np.where(GENERATOR.random((16, columns)) < 0.8, 127, -128).astype(np.int8)


WIDE = {
    "w": widest(3),
    "wide": widest(48),
    "bias": GENERATOR.normal(size=48).astype(np.float32),
    "k": widest(36)[:, :27].reshape(16, 3, 3, 3),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [*CASES, "QAttention"])
def test_the_value_is_that_of_the_runtime(name: str, engine: str, tmp_path: Path) -> None:
    """Where its kernels saturate and where they do not: the file agrees, the ledger closes."""
    case = CASES.get(name, ATTENTION)
    for record in explained(saved(case, tmp_path, WIDE), case.x, engine):
        fidelity = record.fidelity
        assert isinstance(fidelity, Fidelity)
        assert fidelity.difference is not None and fidelity.allowed is not None
        assert fidelity.difference < 1e-3 * fidelity.allowed
        assert abs(record.ledger["residual_relative"]) < ENGINES[engine][1]
        assert are_exact() <= (fidelity.kernels == 0.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_attention(engine: str, tmp_path: Path, smaller: None) -> None:
    """All three engines enter the same amount."""
    path = saved(ATTENTION, tmp_path, WIDE)
    amounts = [r.ledger["kernel"] for r in explained(path, X, "float64")]
    for record, amount in zip(explained(path, X, engine), amounts, strict=True):
        assert abs(record.ledger["residual_relative"]) < ENGINES[engine][1]
        assert record.ledger["kernel"] == pytest.approx(amount, rel=1e-3)
        assert abs(amount) > 1e-3 * abs(record.target.value)


def in_blocks() -> tuple[Case, dict[str, Array]]:
    """Weights of four bits, with a kernel that rounds activations to bytes, and a bias."""
    product = ms(
        "MatMulNBits", "x w4 s4 _ _ b", "p",
        K=64, N=3, bits=4, block_size=32, accuracy_level=4,
    )  # fmt: skip
    x = GENERATOR.normal(size=(2, 4, 64)).astype(np.float32)
    packed = GENERATOR.integers(0, 256, size=(3, 2, 16)).astype(np.uint8)
    scales = GENERATOR.uniform(0.01, 0.02, size=6).astype(np.float32)
    numbers = np.stack([packed & 15, packed >> 4], axis=-1).reshape(3, 2, 32) - 8.0
    weights = (numbers * scales.reshape(3, 2, 1)).reshape(3, 64)
    return Case([product], lambda a: a @ weights.T, x), {"w4": packed, "s4": scales}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_kernel_that_rounds_activations(engine: str, tmp_path: Path) -> None:
    """What it computes is the value; the record holds how far that is from the exact product."""
    case, weights = in_blocks()
    path = saved(case, tmp_path, weights)
    exact = mean(case, case.exact(case.x)) + BIAS
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (served,) = session.run(None, {"x": case.x})
    for row, record in enumerate(explained(path, case.x, engine)):
        assert record.target.value == pytest.approx(served[row, TARGET], rel=1e-5)
        change = served[row, TARGET] - exact[row, TARGET]
        assert record.ledger["kernel"] == pytest.approx(change, abs=1e-5)
        assert abs(record.ledger["residual_relative"]) < ENGINES[engine][1]
        assert isinstance(record.fidelity, Fidelity)
        assert record.fidelity.kernels == pytest.approx(np.abs(served - exact).max(), abs=1e-5)


@pytest.mark.parametrize("once", [False, True])
def test_weights_are_packed_where_values_depend_on_it(once: bool, tmp_path: Path) -> None:
    case, weights = in_blocks()
    path = saved(case, tmp_path, weights)
    sample = Sample("x", "tensors", {"x": case.x}, InputFacts(kind="tensors", truncated=False))
    record = Explainer(path, once=once).explain(sample, "1")[0].record
    assert isinstance(record.fidelity, Fidelity)
    assert record.fidelity.difference == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_closes(method: str, tmp_path: Path, smaller: None) -> None:
    """Two layers and attention between them, by every set of rules."""
    nodes = [
        READ,
        ms("QAttention", "xq wide bias xs ws _ xz wz", "h", num_heads=2),
        node("Relu", "h", "r"),
        ms("DynamicQuantizeMatMul", "r w ws _ b", "p"),
    ]
    path = saved(Case(nodes, lambda x: x), tmp_path, WIDE)
    for engine in ("onnxruntime", "numpy"):
        for record in explained(path, X, engine, method=method):
            assert abs(record.ledger["residual_relative"]) < 1e-5
            assert list(record.ledger)[-4:-2] == ["rounding", "kernel"]


def test_an_explainer_enters_what_its_machine_computes(tmp_path: Path, smaller: None) -> None:
    """The entry is part of the graph, whatever the kernels of the machine that compiled it."""
    case = CASES["MatMulInteger"]
    path = saved(case, tmp_path)
    explainer = tmp_path / "explainer.onnx"
    explainer.write_bytes(compile_model(path, explainer))
    change = ((FACTOR - 1) * mean(case, case.exact(case.x)))[0, TARGET]
    record = explained(explainer, case.x, "onnxruntime")[0]
    assert record.ledger["kernel"] == pytest.approx(change, rel=1e-3)
    assert abs(record.ledger["residual_relative"]) < 1e-5
    assert not record.warnings


def test_the_record_says_how_far_kernels_are_from_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smaller: None
) -> None:
    """Measured where kernels of this machine are not exact."""
    case = CASES["MatMulInteger"]
    path = saved(case, tmp_path)
    monkeypatch.setattr(kernels, "are_exact", lambda: False)
    exact = mean(case, case.exact(case.x))
    for engine in ENGINES:
        found = explained(path, case.x, engine)[0].fidelity
        assert isinstance(found, Fidelity)
        assert found.kernels == pytest.approx((1 - FACTOR) * np.abs(exact[0]).max(), rel=1e-3)


def test_warnings_where_machines_answer_differently() -> None:
    known = Fidelity(rewritten={}, difference=0.0, allowed=0.1, served=0.05, kernels=0.05)
    assert not fidelity.doubts(known)
    moved = structs.replace(known, kernels=0.5)
    (warning,) = fidelity.doubts(moved)
    assert (warning.code, "other processors" in warning.message) == ("kernels", True)
    assert [w.code for w in fidelity.doubts(structs.replace(known, served=0.5))] == ["served"]


def test_whether_kernels_are_exact_is_found_by_running_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One wrong sum in one combination of types is enough."""

    def saturating(op_type: str, operands: tuple[Array, ...]) -> Array:
        x, w = operands
        first = next(iter(operands)).dtype == np.uint8
        return np.array(0 if first and w.dtype == np.int8 else int(x.flat[0]) * int(w.flat[0]) * 64)

    monkeypatch.setattr(kernels, "run_one", saturating)
    are_exact.cache_clear()
    try:
        assert not are_exact()
    finally:
        are_exact.cache_clear()


def test_a_product_that_was_rewritten_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where kernels are exact, they cannot be what moved so much; elsewhere they may."""
    case = CASES["MatMulInteger"]
    path = saved(case, tmp_path)
    monkeypatch.setattr(kernels, "are_exact", lambda: True)
    output = onnxruntime.InferenceSession(path).run(None, {"x": case.x})[0]
    entries = {"content": np.array([1.0, 1.0]), "kernel": np.array([0.0, 0.03])}
    strict = Original(Model.open(path), "y")
    with pytest.raises(FidelityError, match="kernel"):
        strict.check({"x": case.x}, output, entries)
    strict.check({"x": case.x}, output, {**entries, "kernel": np.array([0.01, 0.0])})
    monkeypatch.setattr(kernels, "are_exact", lambda: False)
    Original(Model.open(path), "y").check({"x": case.x}, output, entries)


def in_a_branch(path: Path) -> Path:
    """The same model, its product in the branch of an ``If`` that most inputs take."""
    model = onnx.load(path)
    *inner, last = model.graph.node
    made = [helper.make_tensor_value_info("p", TensorProto.FLOAT, None)]
    real = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    last.input[0] = "chosen"
    branches = {
        "then_branch": helper.make_graph(inner, "then", [], made),
        "else_branch": helper.make_graph([node("MatMul", "x wr", "r")], "else", [], real),
    }
    nodes = [
        node("ReduceMax", "x", "most", keepdims=0),
        node("Greater", "most xs", "large"),
        node("If", "large", "chosen", **branches),
        last,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    stored = {"wr": W.astype(np.float32), "xs": XS}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(a), n) for n, a in stored.items()
    )
    onnx.save(model, path)
    return path


def in_opset_11(path: Path) -> Path:
    """The same model in an opset that is raised before compiling."""
    model = onnx.load(path)
    model.opset_import[0].version = 11
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("change", [in_a_branch, in_opset_11])
def test_where_the_graph_was_rewritten_more(
    change: Callable[[Path], Path], engine: str, tmp_path: Path, smaller: None
) -> None:
    """The product is found in the file."""
    case = CASES["MatMulInteger"]
    record = explained(change(saved(case, tmp_path)), case.x, engine)[0]
    expected = (FACTOR - 1) * mean(case, case.exact(case.x))[0, TARGET]
    assert record.ledger["kernel"] == pytest.approx(expected, rel=1e-3)
    assert abs(record.ledger["residual_relative"]) < ENGINES[engine][1]


def test_only_rounded_activations_loosen_the_tolerance(tmp_path: Path) -> None:
    """Weights of few bits alone change no sum; a kernel that rounds activations does."""
    case, weights = in_blocks()
    rounding = Original(Model.open(saved(case, tmp_path, weights)), "y")
    case.nodes[0].attribute.remove(
        next(a for a in case.nodes[0].attribute if a.name == "accuracy_level")
    )
    plain = Original(Model.open(saved(case, tmp_path, weights)), "y")
    assert (rounding.tolerance, plain.tolerance) == (QUANTISED, FLOAT)
    assert Original(Model.open(saved(CASES["QGemm"], tmp_path)), "y").tolerance == QUANTISED
