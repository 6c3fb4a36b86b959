"""Every rule in one table: a line is an operation, a small graph and a second derivation of it.

``x`` is the content, ``y`` the output. The second derivation of ``GRADIENT`` cases is the central
difference of the forward pass (linear operations, where the multiplier is the gradient, and
choices, whose gradient goes to the winner). The others state the law again: from ``x``, ``y``, the
multiplier ``m`` of the output and the weights to the multiplier of ``x``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from building import OPSET, Array, Walk, floats, ints, real, run, wide
from unrolled import FUNCTIONS, Cell, explain

Weights = Mapping[str, Array]
Law = Callable[[Array, Array, Array, Weights], Array]

FAR = 2**63 - 1
TOKENS = (2, 3, 4)
IMAGE = (2, 4, 5, 6)


@dataclass(frozen=True, eq=False)
class Case:
    """One line of the table.

    Attributes:
        op: The operation whose rule is on trial.
        body: The graph.
        law: Multiplier of x; ``None`` for the gradient.
        x: Shape of the content.
        weights: Initializers by name.
        opset: Opset of the model.
        low, high: Range of the content.
        free: Axes of the content without a fixed length.
        dtype: float32 for an operation that only ONNX Runtime knows.
    """

    op: str
    body: str
    law: Law | None = None
    x: tuple[int, ...] = TOKENS
    weights: dict[str, Array] = field(default_factory=dict)
    opset: int = OPSET
    low: float = -1.5
    high: float = 1.5
    free: tuple[int, ...] = (0,)
    dtype: str = "float64"

    @property
    def feed(self) -> Array:
        """The content."""
        return real(*self.x, seed=3, low=self.low, high=self.high)

    def __str__(self) -> str:
        return f"{self.op}-{self.opset}-{self.body}".replace(" ", "")


def walked(case: Case, **options: str) -> Walk:
    """One walk back through the case, in float64 where NumPy has the operation."""
    options = {"dtype": case.dtype, **options}
    return run(case.body, case.feed, case.weights, opset=case.opset, free=case.free, **options)


@cache
def usual(case: Case) -> Walk:
    """The walk of the usual method, taken once."""
    return walked(case)


def of(op: str, body: str, law: Law | None = None, **more: Any) -> Case:
    """A line; arrays among ``more`` are weights."""
    weights = {k: more.pop(k) for k in list(more) if isinstance(more[k], np.ndarray)}
    return Case(op, body, law, weights=weights, **more)


def identity(function: Callable[[float], float]) -> Law:
    """m ∘ (f(x) − f(0)) / x, entry by entry, f(0) = 0 where f has no value there."""

    def law(x: Array, y: Array, m: Array, weights: Weights) -> Array:
        try:
            offset = function(0.0)
        except (ValueError, ZeroDivisionError):
            offset = 0.0
        values = [(function(v) - offset) / v for v in x.ravel().tolist()]
        return m * np.array(values).reshape(x.shape)

    return law


def same(op: str, function: Callable[[float], float], **more: Any) -> Case:
    """A one-operation case of the identity rule."""
    attributes = more.pop("attributes", "")
    return of(op, f"y = {op}{attributes}(x)", identity(function), **more)


def quotient(x: Array, y: Array, m: Array, weights: Weights) -> Array:
    """m ∘ y / x."""
    return m * y / x


def softmax(axis: int) -> Law:
    """Row by row through the Jacobian: m J with J = diag(s) − s sᵀ."""

    def law(x: Array, y: Array, m: Array, weights: Weights) -> Array:
        rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
        sent = np.moveaxis(m, axis, -1).reshape(rows.shape)
        result = np.empty_like(rows)
        for k, (row, seed) in enumerate(zip(rows, sent, strict=True)):
            s = np.exp(row) / sum(math.exp(v) for v in row)
            result[k] = seed @ (np.diag(s) - np.outer(s, s))
        return np.moveaxis(result.reshape(np.moveaxis(x, axis, -1).shape), -1, axis)

    return law


def softmax_of_tail(axis: int) -> Law:
    """The same over all axes from one on, as one row."""

    def law(x: Array, y: Array, m: Array, weights: Weights) -> Array:
        rows = (-1, math.prod(x.shape[axis:]))
        found = softmax(-1)(x.reshape(rows), y, m.reshape(rows), weights)
        return found.reshape(x.shape)

    return law


def log_sum_exp(axes: tuple[int, ...]) -> Law:
    """m times the softmax over all ``axes``, one row after another."""

    def law(x: Array, y: Array, m: Array, weights: Weights) -> Array:
        total = np.zeros(m.shape)
        for k in np.ndindex(*x.shape):
            total[tuple(0 if a in axes else i for a, i in enumerate(k))] += math.exp(x[k])
        return m * np.exp(x) / total

    return law


def log_sum(x: Array, y: Array, m: Array, weights: Weights) -> Array:
    """log Σ / Σ over the last axis, the sum by hand."""
    result = np.empty_like(x)
    for k in np.ndindex(*x.shape[:-1]):
        total = sum(x[k].tolist())
        result[k] = m[k] * math.log(total) / total
    return result


def unit_length(p: int) -> Law:
    """m / ‖x‖, row by row."""

    def law(x: Array, y: Array, m: Array, weights: Weights) -> Array:
        result = np.empty_like(x)
        for k in np.ndindex(*x.shape[:-1]):
            result[k] = m[k] / sum(abs(v) ** p for v in x[k].tolist()) ** (1 / p)
        return result

    return law


def log_softmax(x: Array, y: Array, m: Array, weights: Weights) -> Array:
    """Row by row through the Jacobian I − 1 sᵀ."""
    result = np.empty_like(x)
    for k in np.ndindex(*x.shape[:-1]):
        s = np.exp(x[k]) / np.exp(x[k]).sum()
        result[k] = m[k] @ (np.eye(len(s)) - np.outer(np.ones(len(s)), s))
    return result


def layer_norm(axes: int, epsilon: float = 1e-5) -> Law:
    """Through the Jacobian diag(γ/σ) (I − 1/n) with σ a constant; ``axes`` of them at the end."""

    def law(x: Array, y: Array, m: Array, weights: Weights) -> Array:
        result = np.empty_like(x)
        gamma = wide(weights["g"]).ravel()
        for k in np.ndindex(*x.shape[: x.ndim - axes]):
            row = x[k].ravel()
            n = len(row)
            deviation = math.sqrt(sum((v - sum(row) / n) ** 2 for v in row) / n + epsilon)
            jacobian = np.diag(gamma / deviation) @ (np.eye(n) - np.ones((n, n)) / n)
            result[k] = (m[k].ravel() @ jacobian).reshape(x[k].shape)
        return result

    return law


def instance_norm(epsilon: float) -> Law:
    """A layer norm of every sample and channel, scaled by one γ."""

    def law(x: Array, y: Array, m: Array, weights: Weights) -> Array:
        result = np.empty_like(x)
        for b, c in np.ndindex(*x.shape[:2]):
            flat = layer_norm(1, epsilon)(
                x[b, c].reshape(1, -1),
                y,
                m[b, c].reshape(1, -1),
                {"g": np.full(x[b, c].size, weights.get("g", np.ones(x.shape[1]))[c])},
            )
            result[b, c] = flat.reshape(x[b, c].shape)
        return result

    return law


def rms_norm(epsilon: float) -> Law:
    """m ∘ γ / √(mean(x²) + ε), row by row."""

    def law(x: Array, y: Array, m: Array, weights: Weights) -> Array:
        result = np.empty_like(x)
        for k in np.ndindex(*x.shape[:-1]):
            root = math.sqrt(sum(v * v for v in x[k]) / x.shape[-1] + epsilon)
            result[k] = m[k] * wide(weights["g"]) / root
        return result

    return law


def erf_gelu(v: float) -> float:
    return 0.5 * v * (1 + math.erf(v / math.sqrt(2)))


def tanh_gelu(v: float) -> float:
    return 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))


def selu(v: float) -> float:
    scale, alpha = (float(np.float32(c)) for c in (1.0507009873554805, 1.6732632423543772))
    return scale * (v if v > 0 else alpha * (math.exp(v) - 1))


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def softplus(v: float) -> float:
    return math.log(1 + math.exp(v))


W4 = real(4)
KERNEL = real(4, 4, 3, 2)
DOUBLED, ROI = floats(1, 1, 2, 3), floats()
PLACES = ints([[0, 0], [0, 2]], [[1, 1], [1, -1]])
IDENTITY_CASES = [
    same("Abs", abs),
    same("Acos", math.acos, low=-0.9, high=0.9),
    same("Acosh", math.acosh, low=1.1, high=3.0),
    same("Asin", math.asin, low=-0.9, high=0.9),
    same("Asinh", math.asinh),
    same("Atan", math.atan),
    same("Atanh", math.atanh, low=-0.9, high=0.9),
    same("Celu", lambda v: v if v > 0 else 0.5 * (math.exp(v / 0.5) - 1), attributes="<alpha=0.5>"),
    same("Elu", lambda v: v if v > 0 else 0.25 * (math.exp(v) - 1), attributes="<alpha=0.25>"),
    same("Erf", math.erf),
    same("Gelu", erf_gelu, opset=20),
    same("Gelu", tanh_gelu, opset=20, attributes='<approximate="tanh">'),
    same("HardSwish", lambda v: v * max(0, min(1, v / 6 + 0.5)), low=-4, high=4),
    same("LeakyRelu", lambda v: v if v > 0 else 0.25 * v, attributes="<alpha=0.25>"),
    same("Mish", lambda v: v * math.tanh(softplus(v))),
    of("PRelu", "y = PRelu(x, w)", lambda x, y, m, w: m * np.where(x > 0, 1, wide(w["w"])), w=W4),
    same("Relu", lambda v: max(v, 0)),
    same("Selu", selu),
    same(
        "Shrink",
        lambda v: 0.0 if abs(v) <= 0.5 else v - math.copysign(0.25, v),
        attributes="<lambd=0.5, bias=0.25>",
    ),
    same("Sin", math.sin),
    same("Sinh", math.sinh),
    same("Softsign", lambda v: v / (1 + abs(v))),
    same("Sqrt", math.sqrt, low=0.1),
    same("Swish", lambda v: v * sigmoid(2 * v), attributes="<alpha=2.0>", opset=24),
    same("Tan", math.tan, low=-1, high=1),
    same("Tanh", math.tanh),
    same("ThresholdedRelu", lambda v: v if v > 0.5 else 0, attributes="<alpha=0.5>"),
    same("Cos", math.cos),
    same("Cosh", math.cosh),
    same("Exp", math.exp),
    same("HardSigmoid", lambda v: max(0, min(1, v / 4 + 0.5)), attributes="<alpha=0.25>"),
    same("Sigmoid", sigmoid),
    same("Softplus", softplus),
    same("Reciprocal", lambda v: 1 / v),
    same("Log", math.log, low=0.1),
    of(
        "Clip",
        "y = Clip(x, a, b)",
        quotient,
        a=np.array(-0.5, np.float32),
        b=np.array(0.75, np.float32),
    ),
    of("Pow", "y = Pow(x, n)", lambda x, y, m, w: m * x * x, n=floats(3)),
    of("Pow", "y = Pow(x, n)", lambda x, y, m, w: m * x, n=ints(2)),
    of("Pow", "y = Pow(x, n)", lambda x, y, m, w: m / np.sqrt(x), n=floats(0.5), low=0.1),
    of("Div", "y = Div(w, x)", quotient, w=W4),
]

NORM_CASES = [
    of("LayerNormalization", "y = LayerNormalization(x, g, b)", layer_norm(1), g=W4, b=real(4)),
    of("LayerNormalization", "y = LayerNormalization(x, g)", layer_norm(1), g=W4),
    of(
        "LayerNormalization",
        "y = LayerNormalization<axis=1, epsilon=0.25>(x, g, b)",
        layer_norm(2, 0.25),
        g=real(3, 4),
        b=real(3, 4),
    ),
    of(
        "InstanceNormalization",
        "y = InstanceNormalization(x, g, b)",
        instance_norm(1e-5),
        x=IMAGE,
        g=W4,
        b=real(4, seed=8),
    ),
    of(
        "RMSNormalization",
        "y = RMSNormalization<epsilon=0.25>(x, g)",
        rms_norm(0.25),
        opset=23,
        g=W4,
    ),
    of("Round", "y = Round(x)", lambda x, y, m, weights: m, low=-4.0, high=4.0),
    of("Softmax", "y = Softmax(x)", softmax(-1)),
    of("Softmax", "y = Softmax<axis=1>(x)", softmax(1)),
    of("Softmax", "y = Softmax<axis=2>(x)", softmax(-1), opset=11),
    of("Softmax", "y = Softmax(x)", softmax_of_tail(1), opset=11, dtype="float32"),
    of("LogSoftmax", "y = LogSoftmax(x)", log_softmax),
    of("LogSoftmax", "y = LogSoftmax<axis=-1>(x)", log_softmax, opset=11),
    of("LpNormalization", "y = LpNormalization(x)", unit_length(2)),
    of("LpNormalization", "y = LpNormalization<p=1, axis=2>(x)", unit_length(1), dtype="float32"),
    of(
        "MeanVarianceNormalization",
        "y = MeanVarianceNormalization<axes=[2, 3]>(x)",
        instance_norm(0.0),
        x=IMAGE,
        dtype="float32",
    ),
    of("ReduceL1", "y = ReduceL1(x, a)", lambda x, y, m, w: m * np.sign(x), a=ints(1)),
    of("ReduceL1", "y = ReduceL1<axes=[1]>(x)", lambda x, y, m, w: m * np.sign(x), opset=13),
    of("ReduceSumSquare", "y = ReduceSumSquare(x, a)", lambda x, y, m, w: m * x, a=ints(1, 2)),
    of("ReduceLogSumExp", "y = ReduceLogSumExp(x, a)", log_sum_exp((1,)), a=ints(1)),
    of("ReduceLogSumExp", "y = ReduceLogSumExp(x, a)", log_sum_exp((1, 2)), a=ints(-1, 1)),
    of(
        "ReduceLogSumExp",
        "y = ReduceLogSumExp<keepdims=0>(x, a)",
        lambda x, y, m, w: log_sum_exp((2,))(x, y, m[..., None], w),
        a=ints(-1),
    ),
    of("ReduceLogSum", "y = ReduceLogSum(x, a)", log_sum, a=ints(-1), low=0.1),
]


def unrolled(kind: str, functions: str) -> Law:
    """Step by step through the cell of every sample, with constant gates."""

    def law(x: Array, y: Array, m: Array, weights: Weights) -> Array:
        w, r, b = (weights[name][0] for name in "wrb")
        peepholes = np.zeros(3 * r.shape[1])
        cell = Cell(kind, w, r, b, peepholes, [FUNCTIONS[n] for n in functions.split()])
        zeros = np.zeros(r.shape[1])
        return np.array(
            [
                explain(cell, one, zeros, zeros, sent[:, 0], zeros, zeros).x / one
                for one, sent in zip(x, m, strict=True)
            ]
        )

    return law


RECURRENT_CASES = [
    of(
        kind,
        f"t = Transpose<perm=[1, 0, 2]>(x)  u = {kind}<hidden_size=3>(t, w, r, b)  "
        "y = Transpose<perm=[2, 0, 1, 3]>(u)",
        unrolled(kind, functions),
        w=real(1, 3 * gates, 4),
        r=real(1, 3 * gates, 3, seed=8),
        b=real(1, 6 * gates, seed=9),
    )
    for kind, gates, functions in (
        ("GRU", 3, "Sigmoid Tanh"),
        ("LSTM", 4, "Sigmoid Tanh Tanh"),
        ("RNN", 1, "Tanh"),
    )
]

GRADIENT_CASES = [
    of("Add", "y = Add(x, w)", w=W4),
    of(
        "ConvTranspose",
        "y = ConvTranspose<strides=[2,1], pads=[1,0,0,1], output_padding=[1,0]>(x, w, b)",
        x=IMAGE,
        w=real(4, 3, 3, 2),
        b=real(3, seed=8),
    ),
    of(
        "ConvTranspose",
        "y = ConvTranspose<dilations=[1,2]>(x, w)",
        x=IMAGE,
        w=real(4, 3, 2, 2),
    ),
    *[
        of(
            "ConvTranspose",
            f"y = ConvTranspose<{how}, strides=[2,1]>(x, w)",
            x=IMAGE,
            w=KERNEL,
            dtype="float32",
        )
        for how in (
            'auto_pad="SAME_UPPER"',
            'auto_pad="SAME_LOWER"',
            'auto_pad="VALID"',
            "output_shape=[10, 6]",
            "output_shape=[11, 6], output_padding=[1, 0]",
        )
    ],
    of(
        "ConvTranspose",
        "y = ConvTranspose<strides=[2], dilations=[2], pads=[1, 2]>(x, w)",
        x=(2, 3, 6),
        w=real(3, 2, 3),
    ),
    of(
        "ConvTranspose",
        "h = Reshape(x, s)  y = ConvTranspose<strides=[2,1,2], pads=[1,0,1,0,0,1]>(h, w)",
        x=(2, 6, 6),
        s=ints(0, 2, 3, 2, 3),
        w=real(2, 3, 3, 2, 2),
    ),
    *[
        of(
            "Conv",
            f'y = Conv<auto_pad="{how}", strides=[2, 1]>(x, w)',
            x=(2, 4, 6, 5),
            w=KERNEL,
        )
        for how in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ],
    of("Resize", 'y = Resize<mode="linear">(x, , , s)', x=IMAGE, s=ints(2, 4, 8, 9)),
    of("Resize", 'y = Resize<mode="linear">(x, r, f)', x=IMAGE, opset=11, r=ROI, f=DOUBLED),
    of("Resize", "y = Resize(x, , f)", x=(2, 3, 4, 2), f=floats(1, 2, 1.5, 1)),
    of("Resize", 'y = Resize<mode="linear">(x, , , s)', x=(2, 3, 4), s=ints(2, 3, 7)),
    of(
        "Resize",
        'h = Reshape(x, d)  y = Resize<mode="linear">(h, , , s)',
        x=(2, 6, 6),
        d=ints(0, 2, 3, 2, 3),
        s=ints(2, 2, 4, 3, 5),
    ),
    of("Resize", "y = Resize<axes=[3, -2]>(x, , , s)", x=IMAGE, s=ints(9, 8), dtype="float32"),
    of(
        "Resize",
        'y = Resize<mode="nearest", nearest_mode="ceil", '
        'coordinate_transformation_mode="asymmetric">(x, , , s)',
        x=IMAGE,
        s=ints(2, 4, 3, 9),
    ),
    of(
        "Resize",
        'y = Resize<mode="linear", coordinate_transformation_mode="pytorch_half_pixel">(x, , f)',
        x=IMAGE,
        f=floats(1, 1, 0.6, 0.5),
    ),
    of(
        "Resize",
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , , s)',
        x=IMAGE,
        s=ints(2, 4, 3, 11),
    ),
    of("Resize", 'y = Resize<mode="nearest">(x, , f)', x=IMAGE, f=floats(1, 1, 2, 1.5)),
    of(
        "Resize",
        'y = Resize<mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1>(x, , , s)',
        x=IMAGE,
        s=ints(2, 4, 10, 12),
    ),
    of("Add", "y = Add(w, x)", x=(2, 1, 4), w=real(5, 4)),
    of("Add", "a = Neg(x)  b = Add(x, a)  y = Add(b, x)"),
    of("Sub", "y = Sub(x, w)", w=W4),
    of("Sub", "y = Sub(w, x)", x=(2, 1, 4), w=real(5, 1)),
    of("Neg", "y = Neg(x)"),
    of("Sum", "y = Sum(x, w, x)", w=W4),
    of("Mean", "y = Mean(x, w, x)", w=W4),
    of("Mod", "y = Mod<fmod=1>(x, w)", w=W4),
    of("Mul", "y = Mul(x, w)", w=W4),
    of("Mul", "y = Mul(w, x)", x=(2, 1, 4), w=real(1, 1)),
    of("Div", "y = Div(x, w)", w=W4),
    of("Identity", "y = Identity(x)"),
    of("Cast", "y = Cast<to=1>(x)"),
    of("Dropout", "y = Dropout(x)"),
    of("Reshape", "y = Reshape(x, s)", s=ints(0, 2, -1)),
    of("Flatten", "y = Flatten(x)"),
    of("Flatten", "h = Flatten<axis=-1>(x)  y = Reshape(h, s)", s=ints(-1, 12)),
    of("Squeeze", "y = Squeeze(x, s)", x=(2, 1, 4), s=ints(-2)),
    of("Squeeze", "y = Squeeze<axes=[1]>(x)", x=(2, 1, 4), opset=11),
    of("Unsqueeze", "y = Unsqueeze(x, s)", s=ints(1, -1)),
    of("Unsqueeze", "y = Unsqueeze<axes=[1]>(x)", opset=11),
    of("Transpose", "y = Transpose<perm=[0, 2, 1]>(x)"),
    of("Transpose", "h = Transpose(x)  y = Transpose<perm=[2, 0, 1]>(h)"),
    of("Transpose", "y = Transpose<perm=[0, 3, 1, 2]>(x)", x=IMAGE),
    of("Concat", "y = Concat<axis=-1>(x, w, x)", w=real(2, 3, 2), free=()),
    of("Concat", "a = Neg(x)  y = Concat<axis=1>(a, x)"),
    of("Split", "a, y = Split<axis=-1, num_outputs=2>(x)"),
    of("Split", "a, b = Split<axis=1>(x, s)  y = Concat<axis=1>(b, a)", s=ints(2, 1)),
    of("Split", "a, b, c = Split<axis=2>(x, s)  y = Concat<axis=2>(c, a)", s=ints(1, 1, 2)),
    of("Split", "y, a = Split<axis=2, split=[1, 3]>(x)", opset=11),
    of("Slice", "y = Slice(x, a, b)", a=ints(0, 1, 0), b=ints(2, 3, 2)),
    of("Slice", "y = Slice(x, a, b, c)", a=ints(-2), b=ints(FAR), c=ints(-1)),
    of("Slice", "y = Slice(x, a, b, c, d)", a=ints(-1), b=ints(-FAR), c=ints(2), d=ints(-2)),
    of("Slice", "y = Slice(x, a, b, c, d)", a=ints(FAR), b=ints(0), c=ints(1), d=ints(-1)),
    of(
        "Slice",
        "y = Slice(x, a, b, c, d)",
        x=(2, 7, 6),
        a=ints(5, 1),
        b=ints(-6, FAR),
        c=ints(1, -1),
        d=ints(-2, 3),
    ),
    of("Slice", "y = Slice(x, a, b, c)", a=ints(1), b=ints(2), c=ints(1), opset=10),
    of("Expand", "y = Expand(x, s)", x=(2, 1, 4), s=ints(2, 5, 4)),
    of("Expand", "y = Expand(x, s)", x=(2, 1, 4), s=ints(5, 1)),
    of("Expand", "h = Expand(x, s)  y = Transpose<perm=[1, 0, 2, 3]>(h)", s=ints(3, 1, 1, 1)),
    of("Tile", "y = Tile(x, s)", s=ints(1, 3, 2)),
    of("Pad", "y = Pad(x, s)", s=ints(0, 1, 2, 0, 3, 0)),
    of("Pad", "y = Pad(x, s, v, a)", s=ints(1, 2, 0, 1), v=np.zeros((), np.float32), a=ints(-1, 1)),
    of("Pad", "y = Pad(x, s)", s=ints(0, 1, 2, 0, 3, 0), opset=11),
    of(
        "Pad",
        "y = Pad(x, s, v, a)",
        s=ints(1, 2, 0, 1),
        v=np.array(-0.7, np.float32),
        a=ints(-1, 1),
    ),
    *[
        of("Pad", f'y = Pad<mode="{mode}">(x, s)', s=pads, opset=19)
        for mode in ("reflect", "edge", "wrap")
        for pads in (ints(0, 1, 2, 0, 2, 3), ints(0, 1, -1, 0, -1, 2))
    ],
    of("Pad", 'y = Pad<mode="reflect">(x, s, , a)', s=ints(1, 2), a=ints(-1)),
    of("Pad", "y = Pad<pads=[0, 1, 0, 0, 1, 2]>(x)", opset=10),
    of("DepthToSpace", "y = DepthToSpace<blocksize=2>(x)", x=(2, 8, 2, 3)),
    of("DepthToSpace", 'y = DepthToSpace<blocksize=2, mode="CRD">(x)', x=(2, 8, 2, 3)),
    of("SpaceToDepth", "y = SpaceToDepth<blocksize=2>(x)", x=(2, 3, 4, 6)),
    of(
        "ReverseSequence",
        "y = ReverseSequence<batch_axis=0, time_axis=1>(x, n)",
        n=ints(2, 3),
        free=(),
    ),
    of(
        "Compress",
        "y = Compress<axis=1>(x, c)",
        c=np.array([True, False, True]),
    ),
    of("CenterCropPad", "y = CenterCropPad<axes=[1, 2]>(x, s)", s=ints(5, 2)),
    of("Gather", "y = Gather<axis=1>(x, i)", i=ints(2, 0, 2, -1)),
    of("Gather", "y = Gather<axis=-1>(x, i)", i=ints([0, 3], [3, 1])),
    of("Gather", "y = Gather<axis=1>(x, i)", i=np.array(-1)),
    of(
        "GatherElements",
        "y = GatherElements<axis=2>(x, i)",
        i=ints(*[[[0, -1], [2, 2], [1, -2]]] * 2),
        free=(),
    ),
    of(
        "GatherElements",
        "y = GatherElements<axis=1>(x, i)",
        i=ints(*[[[0, 1, 2, 0], [0, 2, 0, -1]]] * 2),
        free=(),
    ),
    of("TopK", "y, i = TopK(x, k)", k=ints(2)),
    of(
        "TopK",
        "h, i = TopK<axis=1, largest=0, sorted=0>(x, k)  y = ReduceSum(h, a)",
        k=ints(2),
        a=ints(1),
    ),
    of("TopK", "y, i = TopK<axis=-1, largest=0>(x, k)", k=ints(4), opset=11),
    of("TopK", "y, i = TopK<axis=1>(x, k)", k=ints(1), opset=10),
    of("TopK", "y, i = TopK<axis=1, k=2>(x)", opset=9),
    of("GatherND", "y = GatherND(x, i)", i=ints([[0, 1], [0, 1]], [[1, 2], [1, -1]]), free=()),
    of("GatherND", "y = GatherND(x, i)", i=ints([0, 1, 1], [1, 2, -1]), free=()),
    of(
        "GatherND",
        "y = GatherND<batch_dims=1>(x, i)",
        i=ints([[1], [1], [0]], [[2], [-1], [0]]),
        free=(),
    ),
    of("GatherND", "y = GatherND<batch_dims=2>(x, i)", i=ints(*[[[1], [3], [-1]]] * 2), free=()),
    of(
        "ScatterElements",
        "y = ScatterElements<axis=1>(x, i, w)",
        i=ints(*[[[2, 0, 1, 2]]] * 2),
        w=real(2, 1, 4),
        free=(),
    ),
    of(
        "ScatterElements",
        "y = ScatterElements<axis=-1>(w, i, x)",
        x=(2, 3, 2),
        i=ints(*[[[0, -1], [2, 1], [3, 0]]] * 2),
        w=real(2, 3, 4),
        free=(),
    ),
    of(
        "ScatterElements",
        'y = ScatterElements<axis=1, reduction="add">(x, i, w)',
        i=ints(*[[[2, 0, 1, 2], [2, 0, 0, -1]]] * 2),
        w=real(2, 2, 4),
        free=(),
    ),
    of(
        "ScatterElements",
        'y = ScatterElements<axis=-1, reduction="add">(w, i, x)',
        x=(2, 3, 2),
        i=ints(*[[[0, 0], [2, -2], [3, 0]]] * 2),
        w=real(2, 3, 4),
        free=(),
    ),
    of(
        "ScatterND",
        'y = ScatterND<reduction="add">(x, i, w)',
        i=ints([[0, 0], [0, 0]], [[1, 1], [1, -1]]),
        w=real(2, 2, 4),
        free=(),
    ),
    of(
        "ScatterND",
        's = Gather<axis=1>(x, k)  y = ScatterND<reduction="add">(x, i, s)',
        i=ints([[0, 0], [0, 0]], [[1, 1], [1, -1]]),
        k=ints(0, 1),
        free=(),
    ),
    of("ScatterND", "y = ScatterND(x, i, w)", i=PLACES, w=real(2, 2, 4), free=()),
    of("ScatterND", "y = ScatterND(w, i, x)", x=(2, 2, 4), i=PLACES, w=real(2, 3, 4), free=()),
    of(
        "ScatterND",
        "s = Gather<axis=1>(x, k)  a = Neg(x)  y = ScatterND(a, i, s)",
        i=PLACES,
        k=ints(0, 1),
        free=(),
    ),
    of("Trilu", "y = Trilu(x)", x=(2, 4, 4)),
    of("Trilu", "y = Trilu<upper=0>(x, k)", x=(2, 4, 5), k=np.array(-1)),
    of("Trilu", "y = Trilu<upper=1>(x, k)", x=(2, 5, 4), k=np.array(2)),
    of("MatMul", "y = MatMul(x, w)", w=real(4, 5)),
    of("MatMul", "y = MatMul(w, x)", w=real(5, 3)),
    of("MatMul", "y = MatMul(x, w)", w=real(4)),
    of("MatMul", "y = MatMul(w, x)", w=real(3)),
    of("MatMul", "y = MatMul(x, w)", x=(2, 4), w=real(4, 5)),
    of("MatMul", "y = MatMul(x, w)", x=(2, 1, 3, 4), w=real(5, 4, 2)),
    of("MatMul", "y = MatMul(w, x)", x=(2, 1, 3, 4), w=real(5, 2, 3)),
    of("Gemm", "y = Gemm(x, w, b)", x=(2, 4), w=real(4, 5), b=real(5)),
    of("Gemm", "y = Gemm<transB=1>(x, w, b)", x=(2, 4), w=real(5, 4), b=real(1, 5)),
    of(
        "Gemm",
        "y = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b)",
        x=(2, 4),
        w=real(5, 4),
        b=real(2, 5),
        free=(),
    ),
    of(
        "Gemm",
        "h = Transpose(x)  y = Gemm<alpha=0.5, transA=1>(h, w, b)",
        x=(2, 4),
        w=real(4, 5),
        b=real(1),
    ),
    of("Gemm", "y = Gemm(x, w)", x=(2, 4), w=real(4, 5)),
    of("Gemm", "y = Gemm<transB=1, alpha=0.5>(x, w)", x=(2, 4), w=real(5, 4)),
    of(
        "Gemm",
        "h = Transpose(x)  y = Gemm<transA=1, transB=1>(h, w, b)",
        x=(2, 4),
        w=real(5, 4),
        b=real(5),
    ),
    of(
        "Gemm",
        "h = Gemm<transB=1>(w, x, b)  y = Transpose(h)",
        x=(2, 4),
        w=real(5, 4),
        b=real(5, 1),
    ),
    of(
        "Gemm",
        "a = Transpose(x)  h = Gemm<transA=1, alpha=2.0>(w, a, b)  y = Transpose(h)",
        x=(2, 4),
        w=real(4, 5),
        b=real(1),
    ),
    of(
        "Gemm",
        "h = Gemm<transA=1, transB=1, alpha=2.0>(w, x, b)  y = Transpose(h)",
        x=(2, 4),
        w=real(4, 5),
        b=real(1),
    ),
    of(
        "Gemm",
        "h = Neg(x)  y = Gemm<beta=0.5>(v, w, h)",
        x=(2, 5),
        v=real(2, 3),
        w=real(3, 5),
        free=(),
    ),
    of("MaxPool", "y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x)", x=IMAGE),
    of("MaxPool", "y = MaxPool<kernel_shape=[3, 2], pads=[1, 1, 1, 1]>(x)", x=IMAGE),
    of("MaxPool", "y = MaxPool<kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1>(x)", x=IMAGE),
    of("MaxPool", "y = MaxPool<kernel_shape=[2], dilations=[2]>(x)", x=(2, 4, 7)),
    of("Conv", "y = Conv(x, w, b)", x=(2, 4, 7), w=real(5, 4, 3), b=real(5)),
    of("Conv", "y = Conv<strides=[2], pads=[1, 1]>(x, w)", x=(2, 4, 8), w=real(5, 4, 3)),
    of("Conv", "y = Conv<strides=[2], pads=[1, 2]>(x, w)", x=(2, 4, 8), w=real(5, 4, 3)),
    of(
        "Conv",
        "y = Conv<dilations=[2], group=2, strides=[3], pads=[0, 1]>(x, w)",
        x=(2, 4, 9),
        w=real(6, 2, 3),
    ),
    of("Conv", "y = Conv(x, w, b)", x=IMAGE, w=real(3, 4, 2, 3), b=real(3)),
    of("Conv", 'y = Conv<auto_pad="VALID">(x, w)', x=IMAGE, w=real(3, 4, 2, 3)),
    of(
        "Conv",
        "y = Conv<strides=[2, 1], pads=[1, 0, 0, 2], dilations=[1, 2]>(x, w)",
        x=IMAGE,
        w=real(3, 4, 3, 2),
    ),
    of("Conv", "y = Conv<group=4, pads=[1, 1, 1, 1]>(x, w)", x=IMAGE, w=real(4, 1, 3, 3)),
    of("Conv", "y = Conv<group=2, strides=[2, 2]>(x, w)", x=IMAGE, w=real(6, 2, 2, 2)),
    of("Conv", "y = Conv<strides=[3, 3]>(x, w)", x=(2, 3, 8, 7), w=real(2, 3, 3, 3)),
    of(
        "BatchNormalization",
        "y = BatchNormalization<epsilon=0.25>(x, g, b, u, v)",
        x=IMAGE,
        g=W4,
        b=real(4, seed=8),
        u=real(4, seed=9),
        v=real(4, low=0.5),
    ),
    of(
        "BatchNormalization",
        "y = BatchNormalization(x, g, b, u, v)",
        x=(2, 4),
        g=W4,
        b=W4,
        u=W4,
        v=real(4, low=0.5),
    ),
    of("Einsum", 'y = Einsum<equation="bij,jk->bik">(x, w)', w=real(4, 5)),
    of("Einsum", 'y = Einsum<equation="hij, b j k -> bhik">(w, x)', w=real(5, 2, 3)),
    of("Einsum", 'y = Einsum<equation="bij,k->bi">(x, w)', w=real(5)),
    of("Einsum", 'y = Einsum<equation="bij->bji">(x)'),
    of("Einsum", 'y = Einsum<equation="...ij,...jk->...ik">(x, w)', w=real(2, 4, 5)),
    of("Einsum", 'y = Einsum<equation="...j,jk->...k">(x, w)', w=real(4, 5)),
    of("Einsum", 'y = Einsum<equation="bij,jk,k->bi">(x, w, v)', w=real(4, 5), v=real(5)),
    of("ReduceSum", "y = ReduceSum(x, a)", a=ints(-1)),
    of("ReduceSum", "y = ReduceSum<keepdims=0>(x, a)", a=ints(1, -1)),
    of("ReduceSum", "y = ReduceSum<keepdims=0>(x, a)", a=ints(1), opset=13),
    of("ReduceSum", "y = ReduceSum<keepdims=0, axes=[-2]>(x)", opset=11),
    of("ReduceSum", "y = ReduceSum<noop_with_empty_axes=1>(x)"),
    of("ReduceMean", "y = ReduceMean(x, a)", a=ints(-1)),
    of("ReduceMean", "y = ReduceMean<keepdims=0>(x, a)", a=ints(1, 2)),
    of("ReduceMean", "y = ReduceMean<axes=[1], keepdims=0>(x)", opset=13),
    of("ReduceMean", "y = ReduceMean<axes=[-1, -2]>(x)", opset=17),
    of("GlobalAveragePool", "y = GlobalAveragePool(x)", x=IMAGE),
    of("GlobalMaxPool", "y = GlobalMaxPool(x)", x=IMAGE),
    *[
        of("AveragePool", f"y = AveragePool<{how}>(x)", x=IMAGE, opset=19)
        for how in (
            "kernel_shape=[3, 2], strides=[2, 1]",
            "kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]",
            "kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1",
            "kernel_shape=[2, 2], strides=[2, 4], ceil_mode=1",
            "kernel_shape=[2, 3], dilations=[2, 1]",
            'kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"',
            'kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_LOWER"',
        )
    ],
    of("AveragePool", "y = AveragePool<kernel_shape=[2]>(x)", x=(2, 3, 5)),
    of("AveragePool", "y = AveragePool<kernel_shape=[2, 2, 2]>(x)", x=(2, 1, 3, 2, 4)),
    *[
        of("MaxPool", f"y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], {how}>(x)", x=IMAGE)
        for how in (
            'auto_pad="SAME_UPPER"',
            'auto_pad="VALID"',
            "dilations=[2, 1]",
        )
    ],
    of("CumSum", "y = CumSum(x, a)", a=np.array(1)),
    of("CumSum", "y = CumSum<exclusive=1>(x, a)", a=np.array(-1)),
    of("CumSum", "y = CumSum<reverse=1>(x, a)", a=np.array(1)),
    of("CumSum", "y = CumSum<exclusive=1, reverse=1>(x, a)", a=np.array(2)),
    of("Where", "y = Where(c, x, w)", c=np.array([True, False, True, False]), w=W4),
    of("Where", "a = Neg(x)  y = Where(c, a, x)", c=np.array([True, False, True, False])),
    of("Where", "y = Where(c, w, x)", x=(2, 1, 4), c=np.array([[True], [False]]), w=W4),
    of("Max", "y = Max(x, w)", w=real(4, seed=9)),
    of("Max", "a = Neg(x)  y = Max(x, a, w)", w=real(1, seed=9)),
    of("Min", "y = Min(w, x)", w=real(4, seed=9)),
    of("ReduceMax", "y = ReduceMax(x, a)", a=ints(-1)),
    of("ReduceMax", "y = ReduceMax<keepdims=0, axes=[1]>(x)", opset=13),
    of("ReduceMin", "y = ReduceMin<keepdims=0>(x, a)", a=ints(1, 2)),
    of("ReduceL2", "y = ReduceL2<keepdims=0>(x, a)", a=ints(-1)),
    of("ReduceL2", "y = ReduceL2<axes=[1, 2]>(x)", opset=13),
]

STATED_CASES = [*IDENTITY_CASES, *NORM_CASES, *RECURRENT_CASES]
CASES = [*STATED_CASES, *GRADIENT_CASES]
