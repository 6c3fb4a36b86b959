"""LSTM, GRU and RNN in NumPy, in any form that ONNX Runtime runs.

The onnx package's evaluator has them for one direction, the usual functions and whole sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from palrp_onnx.types import Array

Function = Callable[[Array], Array]
#: Function → the default of α and of β, ``None`` where it has none, and the function.
_FUNCTIONS: dict[str, tuple[float | None, float | None, Callable[..., Array]]] = {
    "affine": (0.0, 0.0, lambda x, a, b: a * x + b),
    "elu": (1.0, None, lambda x, a, b: np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x)),
    "hardsigmoid": (0.2, 0.5, lambda x, a, b: np.clip(a * x + b, 0, 1)),
    "leakyrelu": (0.01, None, lambda x, a, b: np.where(x < 0, a * x, x)),
    "relu": (None, None, lambda x, a, b: np.maximum(x, 0)),
    "scaledtanh": (0.0, 0.0, lambda x, a, b: a * np.tanh(b * x)),
    "sigmoid": (None, None, lambda x, a, b: (1 + np.tanh(x / 2)) / 2),
    "softplus": (None, None, lambda x, a, b: np.logaddexp(x, 0)),
    "softsign": (None, None, lambda x, a, b: x / (1 + np.abs(x))),
    "tanh": (None, None, lambda x, a, b: np.tanh(x)),
    "thresholdedrelu": (0.0, None, lambda x, a, b: np.where(x > a, x, 0)),
}


@dataclass
class _OneWay:
    """One direction: weights of every gate, its functions, and states that a step changes.

    Attributes:
        w, r: Weights [gates, hidden, features].
        bias_w, bias_r: Biases [gates, hidden].
        peepholes: Weights of the cell state in gates i, o and f [3, hidden].
        functions: Activation functions, f, g and h.
        clip: Bound of the argument of f and g.
        attributes: Attributes of the node.
    """

    w: Array
    r: Array
    bias_w: Array
    bias_r: Array
    peepholes: Array
    functions: Sequence[Function]
    clip: float
    attributes: dict[str, Any]

    def sums(self, x: Array, h: Array, gate: int) -> Array:
        return self.from_x(x, gate) + self.from_h(h, gate)

    def from_x(self, x: Array, gate: int) -> Array:
        return np.asarray(x @ self.w[gate].T + self.bias_w[gate])

    def from_h(self, h: Array, gate: int) -> Array:
        return np.asarray(h @ self.r[gate].T + self.bias_r[gate])

    def applied(self, function: int, x: Array) -> Array:
        return self.functions[function](np.clip(x, -self.clip, self.clip))


def _lstm(d: _OneWay, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    into, out, forget, new = (d.sums(x, h, k) for k in range(4))
    i = d.applied(0, into + d.peepholes[0] * c)
    f = 1 - i if d.attributes.get("input_forget") else d.applied(0, forget + d.peepholes[2] * c)
    c = f * c + i * d.applied(1, new)
    return d.applied(0, out + d.peepholes[1] * c) * d.functions[2](c), c


def _gru(d: _OneWay, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    z, r = (d.applied(0, d.sums(x, h, k)) for k in range(2))
    late = d.attributes.get("linear_before_reset")
    hidden = r * d.from_h(h, 2) if late else d.from_h(r * h, 2)
    return (1 - z) * d.applied(1, d.from_x(x, 2) + hidden) + z * h, c


def _rnn(d: _OneWay, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    return d.applied(0, d.sums(x, h, 0)), c


_Cell = Callable[[_OneWay, Array, Array, Array], tuple[Array, Array]]


def _run(
    cell: _Cell,
    gates: int,
    usual: Sequence[str],
    operands: Sequence[Any],
    attributes: dict[str, Any],
) -> tuple[Array, Array, Array]:
    """Hidden states of all steps, and the last hidden and cell states."""
    filled: list[Any] = [*operands, *[None] * (8 - len(operands))]
    x, w, r, b, lengths, initial_h, initial_c, p = filled
    steps, samples, _ = x.shape
    count, hidden = w.shape[0], r.shape[2]
    zeros = np.zeros((count, samples, hidden), x.dtype)
    lengths = np.full(samples, steps) if lengths is None else lengths
    biases = np.zeros((count, 2 * gates * hidden), x.dtype) if b is None else b
    peepholes = np.zeros((count, 3 * hidden), x.dtype) if p is None else p
    functions = list(_functions(attributes, [*usual] * count))
    y = np.zeros((steps, count, samples, hidden), x.dtype)
    states = [np.array(zeros if s is None else s) for s in (initial_h, initial_c)]
    for k in range(count):
        both = biases[k].reshape(2, gates, hidden)
        direction = _OneWay(
            w[k].reshape(gates, hidden, -1),
            r[k].reshape(gates, hidden, -1),
            both[0],
            both[1],
            peepholes[k].reshape(3, hidden),
            functions[k * len(usual) : (k + 1) * len(usual)],
            attributes.get("clip") or np.inf,
            attributes,
        )
        backwards = k == 1 or attributes.get("direction") == "reverse"
        for t in range(steps)[:: -1 if backwards else 1]:
            h, c = cell(direction, x[t], states[0][k], states[1][k])
            held = (t < lengths)[:, None]
            y[t, k] = np.where(held, h, 0)
            states[0][k] = np.where(held, h, states[0][k])
            states[1][k] = np.where(held, c, states[1][k])
    return y, states[0], states[1]


def _functions(attributes: dict[str, Any], usual: Sequence[str]) -> Iterator[Function]:
    """Activation functions; numbers α and β go, in order, to those that have any."""
    alphas, betas = (
        iter(attributes.get(name) or ()) for name in ("activation_alpha", "activation_beta")
    )
    for name in attributes.get("activations") or usual:
        *defaults, function = _FUNCTIONS[name.lower()]
        a, b = (
            0.0 if default is None else float(np.float32(next(numbers, default)))
            for default, numbers in zip(defaults, (alphas, betas), strict=True)
        )
        yield partial(function, a=a, b=b)


def operations() -> list[type]:
    """The three operations for the onnx package's evaluator."""
    from onnx.reference.op_run import OpRun

    class LSTM(OpRun):
        def _run(self, *operands: Any, **attributes: Any) -> tuple[Array, ...]:
            return _run(_lstm, 4, ("sigmoid", "tanh", "tanh"), operands, attributes)

    class GRU(OpRun):
        def _run(self, *operands: Any, **attributes: Any) -> tuple[Array, ...]:
            return _run(_gru, 3, ("sigmoid", "tanh"), operands, attributes)[:2]

    class RNN(OpRun):
        def _run(self, *operands: Any, **attributes: Any) -> tuple[Array, ...]:
            return _run(_rnn, 1, ("tanh",), operands, attributes)[:2]

    return [LSTM, GRU, RNN]
