"""Recurrent layers (LSTM, GRU, RNN): gates are constants, the signal takes all relevance.

In ``gate ∘ signal`` the gate, a function of the same operands, counts as a constant. Sums pass
relevance by the ε-rule with ε → 0, candidates and outputs by the identity rule. The sums of all
steps follow from X and the hidden states Y of the forward pass by matrix products. The cell state
of LSTM, and the way back from the last step to the first, are recurrences.

Steps beyond the length of a sequence change no state: relevance passes them unchanged, and none of
it leaves there.

Shapes: X [T, B, I], Y [T, D, B, H], last states [D, B, H], for T steps, B samples and D directions.
Steps of a direction that runs from the last to the first are turned, so that values [T, D, B, H] of
all directions are in the order in which they are computed.

Source: Arras et al. 2017, "Explaining Recurrent Neural Network Predictions in Sentiment Analysis"
(LSTM); Arras et al. 2019, "Explaining and Interpreting LSTMs" (signal-take-all).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from palrp_onnx.rules.activation import at_zero
from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language, RecurrenceStep

#: Direction of a node → whether each of its directions runs from the last step to the first.
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
#: Activation function → α and β that ONNX Runtime takes where the node gives none; ``None`` where
#: the function has no such number.
_CONSTANTS: dict[str, tuple[float | None, float | None]] = {
    "Affine": (0.0, 0.0),
    "Elu": (1.0, None),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01, None),
    "Relu": (None, None),
    "ScaledTanh": (0.0, 0.0),
    "Sigmoid": (None, None),
    "Softplus": (None, None),
    "Softsign": (None, None),
    "Tanh": (None, None),
    "ThresholdedRelu": (0.0, None),
}


@dataclass(frozen=True)
class _Function:
    """An activation function.

    Attributes:
        name: Its name.
        alpha: Its α, ``None`` if it has none.
        beta: Its β, ``None`` if it has none.
        bound: Its argument is clipped at ± this number, if there is one.
    """

    name: str
    alpha: float | None
    beta: float | None
    bound: float | None

    def __call__(self, op: Language[T], x: T) -> T:
        """f(x)."""
        if self.bound is not None:
            x = op.function("Clip", x, -self.bound, self.bound)
        alpha, beta = self.alpha or 0.0, self.beta or 0.0
        if self.name == "Affine":
            return op.shift(op.scale(x, alpha), beta)
        if self.name == "ScaledTanh":
            return op.scale(op.function("Tanh", op.scale(x, beta)), alpha)
        named = {"alpha": self.alpha, "beta": self.beta}
        return op.function(self.name, x, **{k: v for k, v in named.items() if v is not None})

    def at_zero(self) -> tuple[float, float]:
        """f(0), and the slope there."""
        alpha, beta = self.alpha or 0.0, self.beta or 0.0
        if self.name == "Affine":
            return beta, alpha
        if self.name == "ScaledTanh":
            return 0.0, alpha * beta
        return at_zero(self.name, alpha, beta)

    def share(self, op: Language[T], x: T) -> T:
        """(f(x) − f(0)) / x, and the slope where x = 0: the identity rule for a multiplier of 1."""
        offset, slope = self.at_zero()
        y = self(op, x)
        return op.ratio(op.shift(y, -offset) if offset else y, x, slope)


@dataclass(frozen=True)
class _Recurrence(Generic[T]):
    """A node with all its directions; steps in the order in which they are computed.

    Attributes:
        node: The node.
        turned: For each direction, whether it runs from the last step to the first.
        functions: Activation functions f, g and h, each for every direction.
        x: The operand [T, 1, B, I], for every direction.
        before: Hidden states before every step [T, D, B, H].
        cell: Cell states before the first step [D, B, H].
        weights: Weights of X, for every gate and direction [1, H, I].
        recurrent: Weights of hidden states, for every gate [D, H, H].
        biases: Biases of ``weights``, then of ``recurrent``, for every gate [D, 1, H], or none.
        peepholes: Weights of cell states in the gates i, o and f [D, 1, H], or none.
        held: 1 at steps within the length of their sequence, else 0 [T, D, B, 1]; ``None`` if all
            are.
        sent: Multipliers of hidden states [T, D, B, H].
        last: Multipliers of the last states, hidden and cell [D, B, H].
    """

    node: Node[T]
    turned: Sequence[bool]
    functions: Sequence[Sequence[_Function]]
    x: Sequence[T]
    before: T
    cell: T
    weights: Sequence[Sequence[T]]
    recurrent: Sequence[T]
    biases: Sequence[T]
    peepholes: Sequence[T]
    held: T | None
    sent: T
    last: Sequence[T]

    def from_input(self, op: Language[T], gate: int) -> T:
        """x Wᵀ + b of a gate."""
        return self._affine(op, self.x, self.weights[gate], gate)

    def from_state(self, op: Language[T], state: T, gate: int) -> T:
        """h Rᵀ + b of a gate."""
        count = len(self.turned)
        weights = op.chunks(self.recurrent[gate], count, 0)
        return self._affine(op, op.chunks(state, count, 1), weights, gate + len(self.weights))

    def sums(self, op: Language[T], gate: int) -> T:
        """The argument of the activation function of a gate, at all steps."""
        return op.add(self.from_input(op, gate), self.from_state(op, self.before, gate))

    def _affine(self, op: Language[T], x: Sequence[T], weights: Sequence[T], bias: int) -> T:
        pairs = zip(x, weights, strict=True)
        product = _joined(op, [op.matmul(one, w, transpose_b=True) for one, w in pairs], 1)
        return op.add(product, self.biases[bias]) if self.biases else product

    def applied(self, op: Language[T], function: int, x: T) -> T:
        """An activation function of arguments [.., D, B, H]."""
        return _each(op, self.functions[function], lambda f, part: f(op, part), x)

    def share(self, op: Language[T], function: int, x: T) -> T:
        """See :meth:`_Function.share`."""
        return _each(op, self.functions[function], lambda f, part: f.share(op, part), x)

    def offset(self, op: Language[T], function: int, m: T) -> list[T]:
        """Relevance of f(0), if it is not 0, from the multiplier of f."""
        functions = self.functions[function]
        if not any(f.at_zero()[0] for f in functions):
            return []
        return [_each(op, functions, lambda f, part: op.scale(part, f.at_zero()[0]), m)]

    def recur(
        self,
        op: Language[T],
        step: RecurrenceStep,
        states: Sequence[T],
        along: Sequence[T],
        *,
        reverse: bool,
    ) -> tuple[Sequence[T], Sequence[T]]:
        """A recurrence in which steps beyond the length change no state; their results are zero."""
        if self.held is None:
            return op.scan(step, states, along, reverse=reverse)

        def within(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
            *own, held = entries
            found, results = step(op, states, own)
            rest = _rest(op, held)
            pairs = zip(found, states, strict=True)
            kept = [op.add(op.mul(held, new), op.mul(rest, old)) for new, old in pairs]
            return kept, [op.mul(held, result) for result in results]

        return op.scan(within, states, [*along, self.held], reverse=reverse)


def _each(
    op: Language[T],
    functions: Sequence[_Function],
    use: Callable[[_Function, T], T],
    x: T,
) -> T:
    """``use`` of the function of each direction, on the part [.., 1, B, H] of that direction."""
    if len(set(functions)) == 1:
        return use(functions[0], x)
    parts = op.chunks(x, len(functions), -3)
    return op.concat([use(f, part) for f, part in zip(functions, parts, strict=True)], -3)


def _joined(op: Language[T], parts: Sequence[T], axis: int) -> T:
    return parts[0] if len(parts) == 1 else op.concat(parts, axis)


def _rest(op: Language[T], a: T) -> T:
    """1 − a."""
    return op.shift(op.scale(a, -1.0), 1.0)


@dataclass(frozen=True)
class _Passed(Generic[T]):
    """What a node passes back.

    Attributes:
        gate: The sum whose operands take relevance.
        sums: Multiplier of these sums at all steps [T, D, B, H].
        hidden: The same for the part of the sums that reads hidden states.
        first: Multipliers of the states before the first step, hidden and, for LSTM, cell.
        offsets: Relevance of f(0) of activation functions, where it is not 0.
    """

    gate: int
    sums: T
    hidden: T
    first: Sequence[T]
    offsets: Sequence[T]


_Cell = Callable[[Language[Any], _Recurrence[Any]], _Passed[Any]]


@rule("LSTM", outputs="all")
def lstm(op: Language[T], node: Node[T], m: Sequence[T | None]) -> Shares[T]:
    """c = f ∘ c₋ + i ∘ g(a), h = o ∘ tanh(c), a = W x + R h₋ + b, with constant gates i, o, f.

    m_c = m_h ∘ o ∘ tanh(c) / c + f₊ ∘ m_c₊, m_a = m_c ∘ i ∘ g(a) / a, m_x = Wᵀ m_a, and m_h is
    what arrives plus Rᵀ m_a₊, where ₊ is the step after. Ledger: b ∘ m_a under ``bias``; offsets
    f(0) of other activation functions under ``other``.
    """
    return _passed(op, node, m, 4, ("Sigmoid", "Tanh", "Tanh"), _lstm)


def _lstm(op: Language[T], layer: _Recurrence[T]) -> _Passed[T]:
    into, out, forget, sums = (layer.sums(op, k) for k in range(4))
    i, f, cells = _cell_states(op, layer, into, forget, layer.applied(op, 1, sums))
    if layer.peepholes:
        out = op.add(out, op.mul(layer.peepholes[1], cells))
    o = layer.applied(op, 0, out)
    through = op.mul(o, layer.share(op, 2, cells))
    entering = op.mul(i, layer.share(op, 1, sums))
    weight = layer.recurrent[3]

    def step(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
        (hidden, cell), (sent, through, entering, f) = states, entries
        m_h = op.add(sent, hidden)
        m_c = op.add(op.mul(through, m_h), cell)
        before = op.matmul(op.mul(entering, m_c), weight)
        return (before, op.mul(f, m_c)), (m_h, m_c)

    along = (layer.sent, through, entering, f)
    first, (m_h, m_c) = layer.recur(op, step, layer.last, along, reverse=True)
    m_a = op.mul(entering, m_c)
    offsets = [*layer.offset(op, 2, op.mul(o, m_h)), *layer.offset(op, 1, op.mul(i, m_c))]
    return _Passed(3, m_a, m_a, first, offsets)


def _cell_states(
    op: Language[T], layer: _Recurrence[T], into: T, forget: T, candidates: T
) -> tuple[T, T, T]:
    """Input gates, forget gates and cell states of all steps."""
    coupled = bool(layer.node.attribute("input_forget", 0))

    def gates(op: Language[Any], into: Any, forget: Any) -> tuple[Any, Any]:
        i = layer.applied(op, 0, into)
        return i, _rest(op, i) if coupled else layer.applied(op, 0, forget)

    def step(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
        (cell,), (f, entering) = states, entries
        cell = op.add(op.mul(f, cell), entering)
        return (cell,), (cell,)

    def peeping(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
        (cell,), (into, forget, candidate) = states, entries
        own, _, other = (op.mul(weight, cell) for weight in layer.peepholes)
        i, f = gates(op, op.add(into, own), op.add(forget, other))
        cell = op.add(op.mul(f, cell), op.mul(i, candidate))
        return (cell,), (i, f, cell)

    if layer.peepholes:
        along = [into, forget, candidates]
        _, (i, f, cells) = layer.recur(op, peeping, [layer.cell], along, reverse=False)
        return i, f, cells
    i, f = gates(op, into, forget)
    along = [f, op.mul(i, candidates)]
    _, (cells,) = layer.recur(op, step, [layer.cell], along, reverse=False)
    return i, f, cells


@rule("GRU", outputs="all")
def gru(op: Language[T], node: Node[T], m: Sequence[T | None]) -> Shares[T]:
    """h = (1 − z) ∘ g(a) + z ∘ h₋, a = W x + R (r ∘ h₋) + b, with constant gates z and r.

    m_a = m_h ∘ (1 − z) ∘ g(a) / a, m_x = Wᵀ m_a, and m_h is what arrives plus
    z₊ ∘ m_h₊ + r₊ ∘ Rᵀ m_a₊, where ₊ is the step after. With ``linear_before_reset`` a is
    W x + r ∘ (R h₋ + b_R) + b_W, and the last term Rᵀ (r₊ ∘ m_a₊). Ledger: as for LSTM.
    """
    return _passed(op, node, m, 3, ("Sigmoid", "Tanh"), _gru)


def _gru(op: Language[T], layer: _Recurrence[T]) -> _Passed[T]:
    late = bool(layer.node.attribute("linear_before_reset", 0))
    z, r = (layer.applied(op, 0, layer.sums(op, k)) for k in range(2))
    if late:
        hidden = op.mul(r, layer.from_state(op, layer.before, 2))
    else:
        hidden = layer.from_state(op, op.mul(r, layer.before), 2)
    sums, new = op.add(layer.from_input(op, 2), hidden), _rest(op, z)
    entering, weight = op.mul(new, layer.share(op, 1, sums)), layer.recurrent[2]

    def step(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
        (hidden,), (sent, z, r, entering) = states, entries
        m_h = op.add(sent, hidden)
        m_a = op.mul(entering, m_h)
        before = op.matmul(op.mul(r, m_a), weight) if late else op.mul(r, op.matmul(m_a, weight))
        return (op.add(before, op.mul(z, m_h)),), (m_h,)

    along = (layer.sent, z, r, entering)
    first, (m_h,) = layer.recur(op, step, layer.last[:1], along, reverse=True)
    m_a = op.mul(entering, m_h)
    offsets = layer.offset(op, 1, op.mul(new, m_h))
    return _Passed(2, m_a, op.mul(r, m_a) if late else m_a, first, offsets)


@rule("RNN", outputs="all")
def rnn(op: Language[T], node: Node[T], m: Sequence[T | None]) -> Shares[T]:
    """h = f(a), a = W x + R h₋ + b.

    m_a = m_h ∘ f(a) / a, m_x = Wᵀ m_a, and m_h is what arrives plus Rᵀ m_a₊, where ₊ is the step
    after. Ledger: as for LSTM.
    """
    return _passed(op, node, m, 1, ("Tanh",), _rnn)


def _rnn(op: Language[T], layer: _Recurrence[T]) -> _Passed[T]:
    entering, weight = layer.share(op, 0, layer.sums(op, 0)), layer.recurrent[0]

    def step(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
        (hidden,), (sent, entering) = states, entries
        m_h = op.add(sent, hidden)
        return (op.matmul(op.mul(entering, m_h), weight),), (m_h,)

    along = (layer.sent, entering)
    first, (m_h,) = layer.recur(op, step, layer.last[:1], along, reverse=True)
    m_a = op.mul(entering, m_h)
    return _Passed(0, m_a, m_a, first, layer.offset(op, 0, m_h))


def refused(op: Language[T], node: Node[T], m: Sequence[T | None]) -> Shares[T]:
    """Sets with rules of their own for derivatives or products have none for these operations."""
    raise NotImplementedError("recurrent layers under this method; pa-lrp and cp-lrp cover them")


for _set in ("absolute", "alpha", "epsilon", "gamma", "gradient", "open", "slopes"):
    rule("GRU", "LSTM", "RNN", under=_set, outputs="all")(refused)


# --- the node ------------------------------------------------------------------------------------
def _passed(
    op: Language[T],
    node: Node[T],
    m: Sequence[T | None],
    gates: int,
    functions: Sequence[str],
    cell: _Cell,
) -> Shares[T]:
    """Shares of all directions."""
    if node.attribute("layout", 0):
        raise NotImplementedError("samples before steps (layout=1)")
    layer = _layer(op, node, m, gates, functions)
    passed: _Passed[T] = cell(op, layer)
    each = zip(
        op.chunks(passed.sums, len(layer.turned), 1),
        layer.weights[passed.gate],
        layer.turned,
        strict=True,
    )
    parts = [_turned(op, op.matmul(m_a, weight), turned) for m_a, weight, turned in each]
    sent = {0: op.sum(_joined(op, parts, 1), [1], keepdims=False)}
    sent.update((5 + k, state) for k, state in enumerate(passed.first))
    absorbed = {}
    if layer.biases:
        own, other = (layer.biases[passed.gate + k] for k in (0, gates))
        absorbed["bias"] = op.add(op.mul(own, passed.sums), op.mul(other, passed.hidden))
    for relevance in passed.offsets:
        known = absorbed.get("other")
        absorbed["other"] = relevance if known is None else op.add(known, relevance)
    shares = [sent.get(k) if node.has(k) else None for k in range(node.arity)]
    return Shares(shares, absorbed)


def _layer(
    op: Language[T], node: Node[T], m: Sequence[T | None], gates: int, functions: Sequence[str]
) -> _Recurrence[T]:
    """The values of a node, in the order in which they are computed."""
    directions = _DIRECTIONS[node.attribute("direction", "forward")]
    count = len(directions)

    def ordered(value: T) -> T:
        """[T, D, B, …] with the steps in the order in which they are computed."""
        parts = zip(op.chunks(value, count, 1), directions, strict=True)
        return _joined(op, [_turned(op, part, turned) for part, turned in parts], 1)

    def rows(index: int, number: int) -> Sequence[T]:
        """Equal pieces [D, 1, H] of an operand [D, …], if there is one."""
        if not node.has(index):
            return ()
        return [op.unsqueeze(piece, [1]) for piece in op.chunks(node.input(index), number, 1)]

    y, x = node.output(), op.unsqueeze(node.input(0), [1])
    held = None
    if node.has(4):
        within = op.within(node.input(4), node.input(0))
        held = _joined(op, [_turned(op, within, turned) for turned in directions], 1)
    nothing = op.sum(op.zeros_like(y), [0], keepdims=False)
    hidden, cell = (node.input(k) if node.has(k) else nothing for k in (5, 6))
    arrived = [*m, None, None][:3]
    weights = op.chunks(node.input(1), gates, 1)
    return _Recurrence(
        node=node,
        turned=directions,
        functions=_functions(node, functions, count),
        x=[_turned(op, x, turned) for turned in directions],
        before=_before(op, ordered(y), hidden, held),
        cell=cell,
        weights=[op.chunks(weight, count, 0) for weight in weights],
        recurrent=op.chunks(node.input(2), gates, 1),
        biases=rows(3, 2 * gates),
        peepholes=rows(7, 3),
        held=held,
        sent=op.zeros_like(y) if arrived[0] is None else ordered(arrived[0]),
        last=[nothing if each is None else each for each in arrived[1:]],
    )


def _turned(op: Language[T], value: T, turned: bool) -> T:
    return op.turn(value) if turned else value


def _before(op: Language[T], y: T, initial: T, held: T | None) -> T:
    """The hidden state before every step: ``y`` moved by one step, after the initial state.

    ``y`` is zero beyond the length of its sequence, where the state is the initial one in a
    direction that has turned steps.
    """
    first = op.unsqueeze(initial, [0])
    if held is not None:
        y = op.add(y, op.mul(_rest(op, held), first))
    return op.split_like(op.concat([first, y], 0), [y, first], 0)[0]


def _functions(
    node: Node[T], usual: Sequence[str], directions: int
) -> Sequence[Sequence[_Function]]:
    """Activation functions, each for every direction; numbers α and β go to those with any."""
    listed = [_decoded(name) for name in node.attribute("activations", ())]
    names = [_known(name) for name in listed or [*usual] * directions]
    alphas, betas = (
        iter(node.attribute(name, ())) for name in ("activation_alpha", "activation_beta")
    )
    bound = node.attribute("clip", None)
    found = []
    for index, name in enumerate(names):
        alpha, beta = _CONSTANTS[name]
        alpha = None if alpha is None else next(alphas, alpha)
        beta = None if beta is None else next(betas, beta)
        cell = index % len(usual) == 2  # the cell state is not clipped
        found.append(_Function(name, alpha, beta, None if cell else bound))
    return [found[k :: len(usual)] for k in range(len(usual))]


def _decoded(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _known(name: str) -> str:
    """The name of a function as the standard spells it."""
    for known in _CONSTANTS:
        if known.lower() == name.lower():
            return known
    raise NotImplementedError(f"the activation function {name}")
