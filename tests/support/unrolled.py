"""Recurrent cells unrolled by hand: LRP of one sample, step by step and neuron by neuron.

Relevance itself is passed back, with a division by every sum: another form than the multipliers of
the rules. Gates are constants and signals take all (Arras et al. 2017, 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from building import Array

Function = Callable[[float], float]


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


#: Activation functions with the numbers that cases of the tests give them.
FUNCTIONS: dict[str, Function] = {
    "Affine": lambda x: 0.7 * x + 0.2,
    "Elu": lambda x: x if x > 0 else math.expm1(x),
    "HardSigmoid": lambda x: min(max(0.2 * x + 0.5, 0.0), 1.0),
    "LeakyRelu": lambda x: x if x > 0 else 0.01 * x,
    "Relu": lambda x: max(x, 0.0),
    "ScaledTanh": lambda x: 0.7 * math.tanh(0.2 * x),
    "Sigmoid": sigmoid,
    "Softplus": lambda x: math.log1p(math.exp(x)),
    "Softsign": lambda x: x / (1 + abs(x)),
    "Tanh": math.tanh,
    "ThresholdedRelu": lambda x: x if x > 0.7 else 0.0,
}


@dataclass
class Cell:
    """Weights of one direction, gates in the order of the standard.

    Attributes:
        kind: LSTM, GRU or RNN.
        w, r: Weights [gates · H, features].
        b: Biases [2 · gates · H].
        p: Peepholes [3 · H].
        functions: Activation functions.
        late: ``linear_before_reset``.
        coupled: ``input_forget``.
        clip: Bound of arguments.
    """

    kind: str
    w: Array
    r: Array
    b: Array
    p: Array
    functions: Sequence[Function]
    late: bool = False
    coupled: bool = False
    clip: float = math.inf

    @property
    def hidden(self) -> int:
        """Number of units."""
        return int(self.r.shape[1])

    def row(self, gate: int, unit: int) -> tuple[Array, Array, float, float]:
        """Weights of x and h, and both biases, of one unit of a gate."""
        k = gate * self.hidden + unit
        return self.w[k], self.r[k], float(self.b[k]), float(self.b[k + len(self.b) // 2])

    def f(self, index: int, x: float) -> float:
        """An activation function; only arguments of the first two are clipped."""
        bounded = min(max(x, -self.clip), self.clip) if index < 2 else x
        return self.functions[index](bounded)


@dataclass
class Relevance:
    """What one sample passes back.

    Attributes:
        x: Relevance of the operand [T, I].
        h, c: Relevance of the initial states [H].
        bias: Relevance of biases.
        other: Relevance of f(0).
        y: Hidden states [T, H].
        last: Last hidden and cell state [H].
    """

    x: Array
    h: Array
    c: Array
    bias: float = 0.0
    other: float = 0.0
    y: Array = field(default_factory=lambda: np.zeros(0))
    last: tuple[Array, Array] = field(default_factory=lambda: (np.zeros(0), np.zeros(0)))


def explain(
    cell: Cell, x: Array, h: Array, c: Array, m: Array, m_h: Array, m_c: Array
) -> Relevance:
    """LRP of one sample in one direction, from multipliers of its hidden and last states."""
    steps = [Step(cell, x[0], h, c)]
    for row in x[1:]:
        steps.append(Step(cell, row, steps[-1].h, steps[-1].c))
    last = steps[-1]
    found = Relevance(np.zeros(x.shape), m_h * last.h, m_c * last.c)
    found.y, found.last = np.array([s.h for s in steps]), (last.h, last.c)
    for t in reversed(range(len(steps))):
        steps[t].back(found, t, found.h + m[t] * steps[t].h)
    return found


class Step:
    """One step forward, and back.

    Attributes:
        h, c: States after it.
        gates: Gates and the sum of the candidate, for every unit.
    """

    def __init__(self, cell: Cell, x: Array, h: Array, c: Array) -> None:
        self.cell, self.x, self.before, self.cell_before = cell, x, h, c
        self.h, self.c = np.zeros(len(h)), np.zeros(len(h))
        self.gates: list[dict[str, float]] = []
        self.resets = np.ones(len(h))
        if cell.kind == "GRU":
            self.resets = np.array([cell.f(0, self.sum(1, k)) for k in range(len(h))])
        for unit in range(len(h)):
            getattr(self, cell.kind.lower())(unit)

    def sum(self, gate: int, unit: int) -> float:
        w, r, own, other = self.cell.row(gate, unit)
        return float(w @ self.x + r @ self.before) + own + other

    def lstm(self, k: int) -> None:
        d, n, c = self.cell, self.cell.hidden, self.cell_before[k]
        i = d.f(0, self.sum(0, k) + d.p[k] * c)
        f = 1 - i if d.coupled else d.f(0, self.sum(2, k) + d.p[2 * n + k] * c)
        a = self.sum(3, k)
        self.c[k] = f * c + i * d.f(1, a)
        o = d.f(0, self.sum(1, k) + d.p[n + k] * self.c[k])
        self.h[k] = o * d.f(2, self.c[k])
        self.gates.append({"i": i, "f": f, "o": o, "a": a})

    def gru(self, k: int) -> None:
        d = self.cell
        z = d.f(0, self.sum(0, k))
        w, r, own, other = d.row(2, k)
        if d.late:
            a = float(w @ self.x) + own + self.resets[k] * (float(r @ self.before) + other)
        else:
            a = float(w @ self.x) + own + float(r @ (self.resets * self.before)) + other
        self.h[k] = (1 - z) * d.f(1, a) + z * self.before[k]
        self.gates.append({"z": z, "a": a})

    def rnn(self, k: int) -> None:
        a = self.sum(0, k)
        self.h[k] = self.cell.f(0, a)
        self.gates.append({"a": a})

    # --- back ------------------------------------------------------------------------------------
    def back(self, found: Relevance, t: int, r_h: Array) -> None:
        """Pass the relevance of ``h`` and of ``c`` on to the operand, states and ledger."""
        hidden, cells = np.zeros(len(r_h)), np.zeros(len(r_h))
        for k, gates in enumerate(self.gates):
            d, kind, signal, place = self.cell, self.cell.kind, float(r_h[k]), (t, hidden)
            if kind == "LSTM":
                r_c = found.c[k] + self._through(found, 2, self.c[k], signal)
                total = self.c[k]
                cells[k] = _share(gates["f"] * self.cell_before[k], total, r_c)
                signal = _share(gates["i"] * d.f(1, gates["a"]), total, r_c)
            elif kind == "GRU":
                z = gates["z"]
                hidden[k] += _share(z * self.before[k], self.h[k], signal)
                signal = _share((1 - z) * d.f(1, gates["a"]), self.h[k], signal)
            which = 0 if kind == "RNN" else 1
            r_a = self._through(found, which, gates["a"], signal)
            self._linear(found, {"LSTM": 3, "GRU": 2, "RNN": 0}[kind], k, r_a, place)
        found.h, found.c = hidden, cells

    def _through(self, found: Relevance, function: int, x: float, r: float) -> float:
        """The identity rule; the share of f(0) is absorbed."""
        y, offset = self.cell.f(function, x), self.cell.f(function, 0.0)
        found.other += _share(offset, y, r)
        return _share(y - offset, y, r)

    def _linear(
        self, found: Relevance, gate: int, unit: int, r_a: float, place: tuple[int, Array]
    ) -> None:
        """The ε-rule with ε = 0: every term of the sum gets its share."""
        t, hidden = place
        w, r, own, other = self.cell.row(gate, unit)
        a = self.gates[unit]["a"]
        reset = self.resets[unit] if self.cell.late else 1.0
        each = np.full(len(hidden), reset) if self.cell.late else self.resets
        for j, x in enumerate(self.x):
            found.x[t, j] += x * w[j] / a * r_a
        for j, h in enumerate(self.before):
            hidden[j] += each[j] * h * r[j] / a * r_a
        found.bias += (own + reset * other) / a * r_a


def _share(part: float, whole: float, r: float) -> float:
    """The part of relevance in proportion; zero has none."""
    return part / whole * r if whole else 0.0
