"""Recurrent layers (LSTM, GRU, RNN): gates are constants, the signal takes all relevance.

In ``gate ∘ signal`` the gate, a function of the same operands, counts as a constant. Sums pass
relevance by the ε-rule with ε → 0, candidates and outputs by the identity rule. The sums of all
steps follow from X and the hidden states Y of the forward pass by matrix products. The cell state
of LSTM, and the way back from the last step to the first, are recurrences.

Steps beyond the length of a sequence change no state: relevance passes them unchanged, and none of
it leaves there.

Shapes: X [T, B, I], Y [T, D, B, H], last states [D, B, H], for T steps, B samples and D directions.
Each direction is computed alone: its values are [T, 1, B, features], its states [1, B, H], its
weights [1, H, features] and its biases [1, H].

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
class _Direction(Generic[T]):
    """One direction of a node.

    Attributes:
        node: The node.
        functions: Its activation functions: f of gates, g of candidates, h of cell states.
        reverse: Whether it runs from the last step to the first.
        x: The operand.
        y: Hidden state after every step.
        before: Hidden state before every step.
        cell: Cell state before the first step.
        weights: Weights of X, for every gate.
        recurrent: Weights of the hidden state, for every gate.
        biases: Biases of ``weights``, then of ``recurrent``, for every gate, if there are any.
        peepholes: Weights of the cell state in the gates i, o and f, if there are any.
        held: 1 at steps within the length of their sequence, else 0; ``None`` if all are.
        sent: Multiplier of ``y``.
        last: Multipliers of the last states, hidden and cell.
    """

    node: Node[T]
    functions: Sequence[_Function]
    reverse: bool
    x: T
    y: T
    before: T
    cell: T
    weights: Sequence[T]
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
        return self._affine(op, state, self.recurrent[gate], gate + len(self.weights))

    def sums(self, op: Language[T], gate: int) -> T:
        """The argument of the activation function of a gate, at all steps."""
        return op.add(self.from_input(op, gate), self.from_state(op, self.before, gate))

    def _affine(self, op: Language[T], x: T, weight: T, bias: int) -> T:
        product = op.matmul(x, weight, transpose_b=True)
        return op.add(product, self.biases[bias]) if self.biases else product

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
            rest = op.shift(op.scale(held, -1.0), 1.0)
            pairs = zip(found, states, strict=True)
            kept = [op.add(op.mul(held, new), op.mul(rest, old)) for new, old in pairs]
            return kept, [op.mul(held, result) for result in results]

        return op.scan(within, states, [*along, self.held], reverse=reverse)


@dataclass(frozen=True)
class _Passed(Generic[T]):
    """What one direction passes back.

    Attributes:
        sums: Multiplier of the sums whose operands take relevance, at all steps.
        weights: Weights of X in these sums.
        first: Multipliers of the states before the first step, hidden and, for LSTM, cell.
        bias: Relevance of biases; ``None`` without biases.
        offsets: Relevance of f(0) of activation functions, where it is not 0.
    """

    sums: T
    weights: T
    first: Sequence[T]
    bias: T | None
    offsets: Sequence[T]


_Cell = Callable[[Language[Any], _Direction[Any]], _Passed[Any]]


@rule("LSTM", outputs="all")
def lstm(op: Language[T], node: Node[T], m: Sequence[T | None]) -> Shares[T]:
    """c = f ∘ c₋ + i ∘ g(a), h = o ∘ tanh(c), a = W x + R h₋ + b, with constant gates i, o, f.

    m_c = m_h ∘ o ∘ tanh(c) / c + f₊ ∘ m_c₊, m_a = m_c ∘ i ∘ g(a) / a, m_x = Wᵀ m_a, and m_h is
    what arrives plus Rᵀ m_a₊, where ₊ is the step after. Ledger: b ∘ m_a under ``bias``; offsets
    f(0) of other activation functions under ``other``.
    """
    return _passed(op, node, m, 4, ("Sigmoid", "Tanh", "Tanh"), _lstm)


def _lstm(op: Language[T], layer: _Direction[T]) -> _Passed[T]:
    gate, inner, outer = layer.functions
    into, out, forget, sums = (layer.sums(op, k) for k in range(4))
    candidates = inner(op, sums)
    i, f, cells = _cell_states(op, layer, into, forget, candidates)
    if layer.peepholes:
        out = op.add(out, op.mul(layer.peepholes[1], cells))
    o = gate(op, out)
    through = op.mul(o, outer.share(op, cells))
    entering = op.mul(i, inner.share(op, sums))
    weight = layer.recurrent[3]

    def step(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
        (hidden, cell), (sent, through, entering, f) = states, entries
        m_h = op.add(sent, hidden)
        m_c = op.add(op.mul(through, m_h), cell)
        before = op.matmul(op.mul(entering, m_c), weight)
        return (before, op.mul(f, m_c)), (m_h, m_c)

    along = (layer.sent, through, entering, f)
    first, (m_h, m_c) = layer.recur(op, step, layer.last, along, reverse=not layer.reverse)
    m_a = op.mul(entering, m_c)
    offsets = [*_offset(op, outer, op.mul(o, m_h)), *_offset(op, inner, op.mul(i, m_c))]
    return _Passed(m_a, layer.weights[3], first, _biases(op, layer, 3, m_a, m_a), offsets)


def _cell_states(
    op: Language[T], layer: _Direction[T], into: T, forget: T, candidates: T
) -> tuple[T, T, T]:
    """Input gates, forget gates and cell states of all steps."""
    gate, coupled = layer.functions[0], bool(layer.node.attribute("input_forget", 0))

    def gates(op: Language[Any], into: Any, forget: Any) -> tuple[Any, Any]:
        i = gate(op, into)
        return i, op.shift(op.scale(i, -1.0), 1.0) if coupled else gate(op, forget)

    def step(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
        (cell,), (i, f, candidate) = states, entries
        if layer.peepholes:
            own, _, other = (op.mul(weight, cell) for weight in layer.peepholes)
            i, f = gates(op, op.add(i, own), op.add(f, other))
        cell = op.add(op.mul(f, cell), op.mul(i, candidate))
        return (cell,), ((i, f, cell) if layer.peepholes else (cell,))

    i, f = (into, forget) if layer.peepholes else gates(op, into, forget)
    _, found = layer.recur(op, step, [layer.cell], [i, f, candidates], reverse=layer.reverse)
    *own, cells = found
    i, f = own or (i, f)
    return i, f, cells


@rule("GRU", outputs="all")
def gru(op: Language[T], node: Node[T], m: Sequence[T | None]) -> Shares[T]:
    """h = (1 − z) ∘ g(a) + z ∘ h₋, a = W x + R (r ∘ h₋) + b, with constant gates z and r.

    m_a = m_h ∘ (1 − z) ∘ g(a) / a, m_x = Wᵀ m_a, and m_h is what arrives plus
    z₊ ∘ m_h₊ + r₊ ∘ Rᵀ m_a₊, where ₊ is the step after. With ``linear_before_reset`` a is
    W x + r ∘ (R h₋ + b_R) + b_W, and the last term Rᵀ (r₊ ∘ m_a₊). Ledger: as for LSTM.
    """
    return _passed(op, node, m, 3, ("Sigmoid", "Tanh"), _gru)


def _gru(op: Language[T], layer: _Direction[T]) -> _Passed[T]:
    gate, inner = layer.functions
    late = bool(layer.node.attribute("linear_before_reset", 0))
    z, r = (gate(op, layer.sums(op, k)) for k in range(2))
    if late:
        hidden = op.mul(r, layer.from_state(op, layer.before, 2))
    else:
        hidden = layer.from_state(op, op.mul(r, layer.before), 2)
    sums = op.add(layer.from_input(op, 2), hidden)
    new = op.shift(op.scale(z, -1.0), 1.0)
    entering, weight = op.mul(new, inner.share(op, sums)), layer.recurrent[2]

    def step(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
        (hidden,), (sent, z, r, entering) = states, entries
        m_h = op.add(sent, hidden)
        m_a = op.mul(entering, m_h)
        before = op.matmul(op.mul(r, m_a), weight) if late else op.mul(r, op.matmul(m_a, weight))
        return (op.add(before, op.mul(z, m_h)),), (m_h,)

    along = (layer.sent, z, r, entering)
    first, (m_h,) = layer.recur(op, step, layer.last[:1], along, reverse=not layer.reverse)
    m_a = op.mul(entering, m_h)
    bias = _biases(op, layer, 2, m_a, op.mul(r, m_a) if late else m_a)
    offsets = _offset(op, inner, op.mul(new, m_h))
    return _Passed(m_a, layer.weights[2], first, bias, offsets)


@rule("RNN", outputs="all")
def rnn(op: Language[T], node: Node[T], m: Sequence[T | None]) -> Shares[T]:
    """h = f(a), a = W x + R h₋ + b.

    m_a = m_h ∘ f(a) / a, m_x = Wᵀ m_a, and m_h is what arrives plus Rᵀ m_a₊, where ₊ is the step
    after. Ledger: as for LSTM.
    """
    return _passed(op, node, m, 1, ("Tanh",), _rnn)


def _rnn(op: Language[T], layer: _Direction[T]) -> _Passed[T]:
    (inner,) = layer.functions
    entering, weight = inner.share(op, layer.sums(op, 0)), layer.recurrent[0]

    def step(op: Language[Any], states: Sequence[Any], entries: Sequence[Any]) -> Any:
        (hidden,), (sent, entering) = states, entries
        m_h = op.add(sent, hidden)
        return (op.matmul(op.mul(entering, m_h), weight),), (m_h,)

    along = (layer.sent, entering)
    first, (m_h,) = layer.recur(op, step, layer.last[:1], along, reverse=not layer.reverse)
    m_a = op.mul(entering, m_h)
    bias = _biases(op, layer, 0, m_a, m_a)
    return _Passed(m_a, layer.weights[0], first, bias, _offset(op, inner, m_h))


def _biases(op: Language[T], layer: _Direction[T], gate: int, m_w: T, m_r: T) -> T | None:
    """Relevance of both biases of a gate, from the multipliers of the sums that they are in."""
    if not layer.biases:
        return None
    own, other = layer.biases[gate], layer.biases[gate + len(layer.weights)]
    return op.add(op.mul(own, m_w), op.mul(other, m_r))


def _offset(op: Language[T], function: _Function, m: T) -> list[T]:
    """Relevance of f(0), if it is not 0, from the multiplier of f."""
    offset, _ = function.at_zero()
    return [op.scale(m, offset)] if offset else []


# --- directions ----------------------------------------------------------------------------------
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
    layers = _directions(op, node, m, gates, functions)
    passed: list[_Passed[T]] = [cell(op, layer) for layer in layers]
    to_x = [op.sum(op.matmul(p.sums, p.weights), [1], keepdims=False) for p in passed]
    states = zip(*(p.first for p in passed), strict=True)
    first = [each[0] if len(each) == 1 else op.concat(each, 0) for each in states]
    sent = {0: _total(op, to_x), **{5 + k: state for k, state in enumerate(first)}}
    absorbed = {
        "bias": [p.bias for p in passed if p.bias is not None],
        "other": [relevance for p in passed for relevance in p.offsets],
    }
    return Shares(
        [sent.get(k) if node.has(k) else None for k in range(node.arity)],
        {entry: _total(op, found) for entry, found in absorbed.items() if found},
    )


def _total(op: Language[T], terms: Sequence[T]) -> T:
    total = terms[0]
    for term in terms[1:]:
        total = op.add(total, term)
    return total


def _directions(
    op: Language[T], node: Node[T], m: Sequence[T | None], gates: int, functions: Sequence[str]
) -> list[_Direction[T]]:
    """The directions of a node."""
    turns = _DIRECTIONS[node.attribute("direction", "forward")]
    count = len(turns)

    def cut(value: T | None, axis: int = 0) -> Sequence[T | None]:
        return (None,) * count if value is None else op.chunks(value, count, axis)

    def parts(index: int, number: int, axis: int) -> list[Sequence[T]]:
        """An operand, cut into its directions and these into equal pieces."""
        found = cut(node.input(index)) if node.has(index) else (None,) * count
        return [() if each is None else op.chunks(each, number, axis) for each in found]

    x = op.unsqueeze(node.input(0), [1])
    held = op.within(node.input(4), node.input(0)) if node.has(4) else None
    states = [cut(node.input(k)) if node.has(k) else (None,) * count for k in (5, 6)]
    y, sent = cut(node.output(), 1), cut(m[0], 1)
    last = [cut(m[k]) if k < len(m) else (None,) * count for k in (1, 2)]
    weights, recurrent = parts(1, gates, 1), parts(2, gates, 1)
    biases, peepholes = parts(3, 2 * gates, 1), parts(7, 3, 1)
    own = _functions(node, functions, count)
    found = []
    for k, reverse in enumerate(turns):
        after = y[k]
        assert after is not None
        nothing = op.sum(op.zeros_like(after), [0], keepdims=False)
        hidden, cell = (each[k] if each[k] is not None else nothing for each in states)
        ends = [each[k] if each[k] is not None else nothing for each in last]
        assert hidden is not None and cell is not None
        found.append(
            _Direction(
                node=node,
                functions=own[k],
                reverse=reverse,
                x=x,
                y=after,
                before=_before(op, after, hidden, held, reverse=reverse),
                cell=cell,
                weights=weights[k],
                recurrent=recurrent[k],
                biases=biases[k],
                peepholes=peepholes[k],
                held=held,
                sent=op.zeros_like(after) if (arrived := sent[k]) is None else arrived,
                last=[each for each in ends if each is not None],
            )
        )
    return found


def _before(op: Language[T], y: T, initial: T, held: T | None, *, reverse: bool) -> T:
    """The hidden state before every step: ``y`` moved by one step, after the initial state."""
    first = op.unsqueeze(initial, [0])
    if not reverse:
        return op.split_like(op.concat([first, y], 0), [y, first], 0)[0]
    if held is not None:  # y is zero beyond the length of its sequence
        y = op.add(y, op.mul(op.shift(op.scale(held, -1.0), 1.0), first))
    return op.split_like(op.concat([y, first], 0), [first, y], 0)[1]


def _functions(
    node: Node[T], usual: Sequence[str], directions: int
) -> Sequence[Sequence[_Function]]:
    """Activation functions of every direction; numbers α and β go to those that have any."""
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
        cell = index % len(usual) == 2  # clipping does not include the cell state
        found.append(_Function(name, alpha, beta, None if cell else bound))
    size = len(usual)
    return [found[k * size : (k + 1) * size] for k in range(directions)]


def _decoded(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _known(name: str) -> str:
    """The name of a function as the standard spells it."""
    for known in _CONSTANTS:
        if known.lower() == name.lower():
            return known
    raise NotImplementedError(f"the activation function {name}")
