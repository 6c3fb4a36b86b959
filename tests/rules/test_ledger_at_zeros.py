"""Whatever an element-wise function does at zero, its ledger closes on inputs that hold zeros.

A function with f(0) ≠ 0, by its attributes or its constant operands, owes f(0) to the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from building import Array, opened, proto, walk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

SHAPE = (2, 3, 2)


@dataclass(frozen=True)
class Function:
    """One use of an element-wise operation.

    Attributes:
        body: From ``x`` to ``y``.
        weights: Its constant operands.
        opset: Of the model.
        lowest: The smallest x it has a value for.
        highest: The largest.
    """

    body: str
    weights: dict[str, float] = field(default_factory=dict)
    opset: int = 18
    lowest: float = -3.0
    highest: float = 3.0


def of(body: str, opset: int = 18, low: float = -3.0, high: float = 3.0, **w: float) -> Function:
    return Function(f"y = {body}", w, opset, low, high)


def f(name: str, opset: int = 18, low: float = -3.0, high: float = 3.0) -> Function:
    return of(f"{name}(x)", opset, low, high)


FUNCTIONS = [
    *map(
        f, "Abs Asinh Atan Celu Cos Cosh Elu Erf Exp HardSigmoid HardSwish LeakyRelu Mish".split()
    ),
    *map(f, "Relu Selu Shrink Sigmoid Sin Sinh Softplus Softsign Tanh ThresholdedRelu Neg".split()),
    *(f(name, 18, -0.875, 0.875) for name in ("Acos", "Asin", "Atanh", "Tan")),
    f("Sqrt", 18, 0.0),
    f("Gelu", 20),
    of('Gelu<approximate="tanh">(x)', 20),
    f("Swish", 24),
    of("Swish<alpha=-1.5>(x)", 24),
    *(
        of(f"HardSigmoid<alpha={a}, beta={b}>(x)")
        for a, b in ((0.5, 0.0), (0.2, 1.5), (-0.3, -0.5))
    ),
    *(of(f"Elu<alpha={a}>(x)") for a in (0.0, -2.0, 0.3)),
    *(of(f"Celu<alpha={a}>(x)") for a in (0.5, 2.0)),
    of("Selu<alpha=0.5, gamma=2.0>(x)"),
    of("LeakyRelu<alpha=-0.5>(x)"),
    *(of(f"ThresholdedRelu<alpha={a}>(x)") for a in (-1.0, 0.0, 0.7)),
    *(of(f"Shrink<lambd={a}, bias={b}>(x)") for a in (-0.5, 0.0, 0.5) for b in (0.0, 0.3, -0.4)),
    *(of("Pow(x, n)", n=n) for n in (0.0, 1.0, 2.0, 3.0)),
    *(of("Pow(x, n)", low=0.0, n=n) for n in (0.5, 1.5)),
    *(of("Clip(x, a, b)", a=a, b=b) for a, b in ((0.5, 2.0), (-2.0, -0.5), (-1.0, 1.0))),
    *(of("Clip(x, a, b)", a=a, b=b) for a, b in ((0.0, 6.0), (1.0, 0.5), (0.5, np.inf))),
    *(of("Clip(x, a)", a=a) for a in (0.5, 0.0, -0.5)),
    *(of("Clip(x, , b)", b=b) for b in (0.5, 0.0, -0.5)),
    of("Clip(x)"),
    of("Clip<min=0.5>(x)", 10),
    of("Clip<max=-0.5>(x)", 10),
    of("Clip<min=-0.5, max=0.5>(x)", 10),
    *(of(f"{name}(x, c)", c=c) for name in ("Max", "Min") for c in (-0.5, 0.0, 0.5)),
    *(of(f"{name}(c, x, x)", c=c) for name in ("Max", "Min") for c in (-0.5, 0.0, 0.5)),
    *(of("PRelu(x, c)", c=c) for c in (-0.5, 0.0, 0.5)),
    of("Sub(c, x)", c=0.5),
    of("Mean(x, c)", c=0.5),
    of("Sum(c, x, c)", c=0.5),
    of("Div(x, c)", c=0.5),
    of("Round(x)"),
    Function("n = Max(x, c)  z = Log(n)  y = Exp(z)", {"c": 0.5}),
    Function("n = Clip(x, c)  y = Reciprocal(n)", {"c": 0.5}),
    Function("n = Cosh(x)  y = Acosh(n)"),
    Function("l = Less(x, c)  y = Where(l, c, x)", {"c": 0.5}),
    Function("n = Clip(x, c)  y = Div(d, n)", {"c": 0.5, "d": 2.0}),
]


def numbers(function: Function) -> st.SearchStrategy[Array]:
    """Content with exact zeros, of both signs, among other numbers."""
    others = st.floats(function.lowest, function.highest, width=32).filter(lambda v: abs(v) > 1e-3)
    entries = st.one_of(st.sampled_from([0.0, -0.0]), others)
    return arrays.arrays(np.float32, SHAPE, elements=entries, fill=st.just(0.0))


def model_of(function: Function, x: Array) -> object:
    weights = {name: np.array(value, np.float32) for name, value in function.weights.items()}
    return opened(proto(function.body, {"x": x}, weights, opset=function.opset))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f"{f.body}{f.weights or ''}")
def test_the_ledger_closes(function: Function) -> None:
    example = np.linspace(max(function.lowest, -1.0), function.highest, 12, dtype="f4")
    engine = walk(model_of(function, example.reshape(SHAPE)), {"x": example.reshape(SHAPE)}).engine

    @settings(max_examples=25)
    @given(numbers(function))
    def holds(x: Array) -> None:
        values = engine.forward({"x": x})
        y = values[engine.planned.output]
        seed = np.random.default_rng(11).normal(size=y.shape)
        ledger = engine.propagate(values, seed).ledger
        scale = np.abs(y * seed).reshape(len(y), -1).sum(axis=1) + 1e-30
        assert (np.abs(ledger["residual"]) <= 1e-10 * scale + 1e-12).all()

    holds()


@pytest.mark.parametrize(
    "function",
    [
        of("Clip(x, a, b)", a=0.5, b=2.0),
        of("Clip(x, , b)", b=-0.5),
        of("Clip<min=0.5>(x)", 10),
        of("Pow(x, n)", n=0.0),
        of("Shrink<lambd=-0.5, bias=0.3>(x)"),
        Function("a = ReduceMax<keepdims=0>(c)  y = Clip(x, a)", {"c": 0.5}),
        Function("a = ReduceMin<keepdims=0>(c)  y = Clip(x, , a)", {"c": -0.5}),
    ],
    ids=lambda f: f"{f.body}{f.weights}",
)
def test_both_engines_at_zero(function: Function) -> None:
    """What a function makes of zero is in the ledger, in compiled graphs too."""
    x = np.array([[0.0, 1.0, -1.0], [0.0, 0.0, 0.0]], np.float32)
    model = model_of(function, x)
    sample = Sample("x", "tensors", {"x": x}, InputFacts(kind="tensors", truncated=False))
    for engine in ("onnxruntime", "numpy"):
        for explanation in Explainer(model, engine=engine).explain(sample, "0"):
            record = explanation.record
            assert abs(record.ledger["residual_relative"]) < 1e-6
            assert record.ledger["content"] == 0.0
            assert record.ledger["other"] == pytest.approx(record.target.value) != 0.0
