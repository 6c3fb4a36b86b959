"""Rules that tell the signs of contributions apart: the sets ``gamma``, ``alpha`` and ``stopped``.

They hold for layers with weights, y = W x + b; products of two activations, and ``Einsum``, keep
the usual rules. A contribution w x is positive where w and x have one sign, so that all that is
positive adds up to P = W⁺x⁺ + W⁻x⁻ = ½ (|W||x| + W x). R_x has one form where x > 0 and another
where x < 0: as multipliers, what W hands on and, with the sign of x, what |W| does. Nothing is
divided by x, and x = 0 gets their mean.

A bias that the graph adds in a node of its own belongs to the layer. That node passes m on and
books b ∘ m; the layer corrects the entry to what the rule gives the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from palrp_onnx.rules import linear, products, sums
from palrp_onnx.rules.registry import Node, Rule, Shares, T, rule
from palrp_onnx.tensor.language import Language


@dataclass(frozen=True)
class _Layer(Generic[T]):
    """y = W x + b.

    Attributes:
        x: The activations.
        weights: W.
        y: The result, with the bias of a node behind.
        bias: b, if there is any.
        apart: The same, if a node behind adds it.
        apply: x and W to W x.
        adjoint: A multiplier of y and W to one of x.
        operand: Index of x among the inputs.
        arity: Number of inputs.
        passes: What the third input has of the multiplier of y, as a factor.
    """

    x: T
    weights: T
    y: T
    bias: T | None
    apart: T | None
    apply: Callable[[T, T], T]
    adjoint: Callable[[T, T], T]
    operand: int
    arity: int
    passes: float = 0.0

    def shares(self, op: Language[T], m: T, sent: T, absorbed: Mapping[str, T]) -> Shares[T]:
        """``sent`` to the activations."""
        inputs: list[T | None] = [None] * self.arity
        inputs[self.operand] = sent
        if self.passes:
            inputs[2] = op.scale(m, self.passes)
        return Shares(inputs, absorbed)


_Reader = Callable[[Language[Any], Node[Any]], _Layer[Any] | None]


# --- the rules ------------------------------------------------------------------------------------
def gamma_rule(op: Language[T], layer: _Layer[T], m: T, gamma: float) -> Shares[T]:
    """γ-rule for inputs of both signs: contributions of the sign of y count 1 + γ times.

    With z = (1 + γ/2) y + γ/2 sign(y) ∘ (|W||x| + |b|), what then adds up, and s = m ∘ y / z:

        m_x = (1 + γ/2) Wᵀ s + γ/2 sign(x) ∘ |W|ᵀ (sign(y) ∘ s)
        R_b = (1 + γ/2) b ∘ s + γ/2 |b| ∘ sign(y) ∘ s

    γ = 0 is the ε-rule with ε → 0, γ → ∞ the z⁺-rule where y > 0. Where y = 0 nothing is handed on.
    Source: Montavon et al. 2019; Andéol et al. 2021 for inputs and outputs of both signs.
    """
    once, extra = 1 + gamma / 2, gamma / 2
    sizes, whole = op.absolute(layer.weights), op.absolute(layer.y)
    reach = layer.apply(op.absolute(layer.x), sizes)
    if layer.bias is not None:
        reach = op.add(reach, op.absolute(layer.bias))
    z = op.add(op.scale(whole, once), op.scale(reach, extra))
    s = op.mul(m, op.ratio(whole, z, 0.0))
    turned = op.mul(op.sign(layer.y), s)
    plain = layer.adjoint(s, layer.weights)
    signed = op.mul(op.sign(layer.x), layer.adjoint(turned, sizes))
    sent = op.add(op.scale(plain, once), op.scale(signed, extra))
    if layer.bias is None:
        return layer.shares(op, m, sent, {})
    taken = op.scale(op.mul(layer.bias, s), once)
    taken = op.add(taken, op.scale(op.mul(op.absolute(layer.bias), turned), extra))
    if layer.apart is not None:
        taken = op.sub(taken, op.mul(m, layer.apart))
    return layer.shares(op, m, sent, {"bias": taken})


def alpha_rule(op: Language[T], layer: _Layer[T], m: T) -> Shares[T]:
    """α1β0-rule (z⁺-rule for inputs of both signs): positive contributions share all of R_y.

    With s = R_y / P and R_y = y ∘ m, bias included: m_x = W⁺ᵀ s where x > 0, W⁻ᵀ s where x < 0. The
    bias gets nothing. Where nothing is positive R_y is absorbed, under ``other``. Source: Bach et
    al. 2015, eq. 60, without the bias.
    """
    positive, negative = op.relu(layer.weights), op.relu(op.scale(layer.weights, -1.0))
    total = layer.apply(op.relu(layer.x), positive)
    total = op.add(total, layer.apply(op.relu(op.scale(layer.x, -1.0)), negative))
    relevance = op.mul(m, layer.y)
    s = op.ratio(relevance, total, 0.0)
    above, below = layer.adjoint(s, positive), layer.adjoint(s, negative)
    signed = op.mul(op.sign(layer.x), op.add(above, below))
    sent = op.scale(op.add(op.sub(above, below), signed), 0.5)
    absorbed = {"other": op.mul(relevance, op.winners(total, op.zeros_like(total)))}
    if layer.apart is not None:
        absorbed["bias"] = op.scale(op.mul(m, layer.apart), -1.0)
    return layer.shares(op, m, sent, absorbed)


# --- what is a layer ------------------------------------------------------------------------------
def _layer(
    op: Language[T],
    node: Node[T],
    apply: Callable[[T, T], T],
    adjoint: Callable[[T, T], T],
    *,
    own: T | None = None,
    operand: int = 0,
) -> _Layer[T]:
    """A node with weights; without a bias of its own it may have one behind."""
    apart = node.bias() if own is None else None
    y = node.output() if apart is None else op.add(node.output(), apart)
    x, weights = node.input(operand), node.input(1 - operand)
    bias = apart if own is None else own
    return _Layer(x, weights, y, bias, apart, apply, adjoint, operand, node.arity)


def _weighed(node: Node[T]) -> int | None:
    """Which of two factors is activations, if the other is weights."""
    return next((k for k in (0, 1) if node.active(k) and node.weighs(1 - k)), None)


def _matmul(op: Language[T], node: Node[T]) -> _Layer[T] | None:
    """x W or W x."""
    operand = _weighed(node)
    if operand is None:
        return None
    if node.rank(0) < 2 or node.rank(1) < 2:
        raise NotImplementedError("weights of one axis")
    if operand == 0:
        return _layer(op, node, op.matmul, lambda m, w: op.matmul(m, w, transpose_b=True))
    return _layer(
        op,
        node,
        lambda x, w: op.matmul(w, x),
        lambda m, w: op.matmul(w, m, transpose_a=True),
        operand=1,
    )


def _gemm(op: Language[T], node: Node[T]) -> _Layer[T] | None:
    """α A' B' + β C: C is the bias where it is weights, else it has its share of m as usual."""
    operand = _weighed(node)
    if operand is None:
        return None
    flips = [bool(node.attribute(name, 0)) for name in ("transA", "transB")]

    def apply(x: T, w: T) -> T:
        a, b = (x, w) if operand == 0 else (w, x)
        return op.matmul(a, b, transpose_a=flips[0], transpose_b=flips[1])

    def adjoint(m: T, w: T) -> T:
        if operand == 0:
            sent = op.matmul(m, w, transpose_b=not flips[1])
        else:
            sent = op.matmul(w, m, transpose_a=not flips[0])
        return op.transpose(sent, [1, 0]) if flips[operand] else sent

    beta = node.attribute("beta", 1.0)
    third = op.scale(node.input(2), beta) if node.has(2) else None
    own = third if node.has(2) and node.weighs(2) else None
    layer = _layer(op, node, apply, adjoint, own=own, operand=operand)
    layer = replace(layer, weights=op.scale(layer.weights, node.attribute("alpha", 1.0)))
    if third is None or own is not None:
        return layer
    return replace(layer, y=op.sub(layer.y, third), passes=beta)


def _convolution(op: Language[T], node: Node[T]) -> _Layer[T] | None:
    """A convolution, or a transposed one: each is the other's adjoint."""
    if _weighed(node) != 0:
        return None
    x, y, moves = node.input(0), node.output(), linear.window(node)

    def down(a: T, w: T, like: T) -> T:
        return op.conv(a, w, like, moves)

    def up(a: T, w: T, like: T) -> T:
        return op.conv_adjoint(a, w, like, moves)

    there, back = (down, up) if node.op_type == "Conv" else (up, down)
    own = op.unsqueeze(node.input(2), range(1, node.rank(1) - 1)) if node.has(2) else None
    return _layer(op, node, lambda x, w: there(x, w, y), lambda m, w: back(m, w, x), own=own)


# --- the sets -------------------------------------------------------------------------------------
_LAYERS: dict[str, tuple[_Reader, Rule, str]] = {
    "MatMul": (_matmul, products.matmul, "gamma"),
    "Gemm": (_gemm, linear.gemm, "gamma"),
    "Conv": (_convolution, linear.convolution, "gamma_conv"),
    "ConvTranspose": (_convolution, linear.transposed_convolution, "gamma_conv"),
}


def _register(op_type: str, read: _Reader, usual: Rule, parameter: str) -> None:
    @rule(op_type, under="gamma")
    def gamma(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
        """The γ-rule for layers with weights."""
        layer = read(op, node)
        if layer is None:
            return usual(op, node, m)
        return gamma_rule(op, layer, m, node.parameter(parameter))

    @rule(op_type, under="alpha")
    def alpha(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
        """The α1-rule for layers with weights."""
        layer = read(op, node)
        return usual(op, node, m) if layer is None else alpha_rule(op, layer, m)


for _op_type, _entry in _LAYERS.items():
    _register(_op_type, *_entry)


@rule("Add", under="alpha")
def add(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """Two activations share in proportion to the sizes of what they carry in sum, sample by sample.

    With A = a ∘ m and B = b ∘ m, R = A + B: R_a = A · |ΣA| / (|ΣA| + |ΣB|) · ΣR / ΣA, likewise R_b;
    so ΣR_a + ΣR_b = ΣR. Source: Chefer et al. 2021 (residual normalisation), as PA-LRP's code.
    """
    if not (node.active(0) and node.active(1)):
        return sums.add(op, node, m)
    sample = node.samples()
    rest = [axis for axis in range(-max(node.rank(0), node.rank(1)), 0) if axis != sample]
    totals = [op.sum(op.relevance(node.input(k), m), rest) for k in (0, 1)]
    sizes = [op.absolute(total) for total in totals]
    both = op.ratio(op.add(*totals), op.add(*sizes), 0.0)
    shares = (op.mul(op.sign(total), both) for total in totals)
    return [op.mul(m, op.cast_like(share, m)) for share in shares]


@rule("Softmax", under="stopped")
def softmax(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """No relevance passes attention scores: what reaches probabilities stays, under ``softmax``.

    Source: PA-LRP's code for vision transformers.
    """
    return Shares((None,), {"softmax": op.relevance(node.guarded_output(), m)})
