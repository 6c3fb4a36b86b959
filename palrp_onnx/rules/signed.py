"""Rules that distinguish the signs of contributions: the sets ``gamma``, ``alpha``, ``stopped``.

They apply to layers with weights, y = W x + b; products of two activations, and ``Einsum``, have
the default rules. A contribution w x is positive where w and x have one sign, so that positive
contributions add up to P = W⁺x⁺ + W⁻x⁻ = ½ (|W||x| + W x). R_x has one form where x > 0 and another
where x < 0. As multipliers these are a term with Wᵀ plus sign(x) times a term with |W|ᵀ, so that
nothing is divided by x, and x = 0 gets the mean of both forms.

A bias that the graph adds with a separate ``Add`` belongs to the layer. The ``Add`` passes m on and
enters b ∘ m; the layer corrects that entry to what its rule gives the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from palrp_onnx.rules import linear, products, sums
from palrp_onnx.rules.registry import Node, Rule, Shares, T, rule
from palrp_onnx.tensor.language import Language


@dataclass(frozen=True)
class WeightedLayer(Generic[T]):
    """y = W x + b.

    Attributes:
        x: The activations.
        weights: W.
        y: The result, with the bias.
        bias: b, if there is any.
        added_bias: b, if a following ``Add`` adds it.
        apply: (x, W) → W x.
        adjoint: (multiplier of y, W) → multiplier of x.
        operand: Index of x among the inputs.
        arity: Number of inputs.
        third: Factor of m in the multiplier of the third input; 0 where it receives none.
    """

    x: T
    weights: T
    y: T
    bias: T | None
    added_bias: T | None
    apply: Callable[[T, T], T]
    adjoint: Callable[[T, T], T]
    operand: int
    arity: int
    third: float = 0.0

    def shares(self, op: Language[T], m: T, sent: T, absorbed: Mapping[str, T]) -> Shares[T]:
        """The multiplier ``sent`` for the activations, and that of the third input."""
        inputs: list[T | None] = [None] * self.arity
        inputs[self.operand] = sent
        if self.third:
            inputs[2] = op.scale(m, self.third)
        return Shares(inputs, absorbed)


#: How the layer of a node is read; ``None`` if it has no weights.
Reader = Callable[[Language[Any], Node[Any]], WeightedLayer[Any] | None]


# --- the rules ------------------------------------------------------------------------------------
def gamma_rule(
    op: Language[T], layer: WeightedLayer[T], m: T, gamma: float, kept: float = 1.0
) -> Shares[T]:
    """γ-rule for inputs of both signs: contributions with the sign of y are weighted by 1 + γ.

    With their weighted sum z = (1 + γ/2) y + γ/2 sign(y) ∘ (|W||x| + |b|) and s = m ∘ y / z:

        m_x = (1 + γ/2) Wᵀ s + γ/2 sign(x) ∘ |W|ᵀ (sign(y) ∘ s)
        R_b = (1 + γ/2) b ∘ s + γ/2 |b| ∘ sign(y) ∘ s

    γ = 0 is the ε-rule with ε → 0, γ → ∞ the z⁺-rule where y > 0. Where y = 0 nothing is passed on.
    Of R_b the bias keeps the share ``kept``; the rest is handed to the inputs in proportion to
    |w x|: m_x has in addition sign(x) ∘ |W|ᵀ ((1 − kept) R_b / |W||x|).

    Shapes: as in the default rule of the layer. Source: Montavon et al. 2019; Andéol et al. 2021
    for inputs and outputs of both signs. Ledger: what the bias keeps
    under ``bias``.
    """
    once, extra = 1 + gamma / 2, gamma / 2
    sizes, whole = op.absolute(layer.weights), op.absolute(layer.y)
    of_inputs = reach = layer.apply(op.absolute(layer.x), sizes)
    if layer.bias is not None:
        reach = op.add(reach, op.absolute(layer.bias))
    z = op.add(op.scale(whole, once), op.scale(reach, extra))
    s = op.mul(m, op.ratio(whole, z, 0.0))
    with_sign = op.mul(op.sign(layer.y), s)
    plain = layer.adjoint(s, layer.weights)
    signed = op.mul(op.sign(layer.x), layer.adjoint(with_sign, sizes))
    sent = op.add(op.scale(plain, once), op.scale(signed, extra))
    if layer.bias is None:
        return layer.shares(op, m, sent, {})
    taken = op.scale(op.mul(layer.bias, s), once)
    taken = op.add(taken, op.scale(op.mul(op.absolute(layer.bias), with_sign), extra))
    if kept < 1.0:
        handed = op.ratio(op.scale(taken, 1.0 - kept), of_inputs, 0.0)
        extra_sent = op.mul(op.sign(layer.x), layer.adjoint(handed, sizes))
        sent, taken = op.add(sent, extra_sent), op.sub(taken, op.mul(handed, of_inputs))
    if layer.added_bias is not None:
        taken = op.sub(taken, op.mul(m, layer.added_bias))
    return layer.shares(op, m, sent, {"bias": taken})


def alpha_rule(op: Language[T], layer: WeightedLayer[T], m: T) -> Shares[T]:
    """α1β0-rule (z⁺-rule for inputs of both signs): positive contributions share all of R_y.

    With s = R_y / P and R_y = y ∘ m, bias included: m_x = W⁺ᵀ s where x > 0, W⁻ᵀ s where x < 0. The
    bias gets nothing. Shapes: as in the default rule of the layer. Source: Bach et al. 2015, eq. 60
    with α = 1, β = 0, without the bias. Ledger: R_y where no contribution is positive, under
    ``other``; under ``bias`` −b ∘ m where a following ``Add`` entered b ∘ m.
    """
    positive, negative = op.relu(layer.weights), op.relu(op.scale(layer.weights, -1.0))
    total = layer.apply(op.relu(layer.x), positive)
    total = op.add(total, layer.apply(op.relu(op.scale(layer.x, -1.0)), negative))
    relevance = op.mul(m, layer.y)
    sent = of_positive(op, layer, op.ratio(relevance, total, 0.0))
    absorbed = {"other": op.mul(relevance, op.winners(total, op.zeros_like(total)))}
    if layer.added_bias is not None:
        absorbed["bias"] = op.scale(op.mul(m, layer.added_bias), -1.0)
    return layer.shares(op, m, sent, absorbed)


def of_positive(op: Language[T], layer: WeightedLayer[T], s: T) -> T:
    """Multiplier of x by the positive contributions alone: W⁺ᵀ s where x > 0, W⁻ᵀ s where x < 0."""
    positive, negative = op.relu(layer.weights), op.relu(op.scale(layer.weights, -1.0))
    above, below = layer.adjoint(s, positive), layer.adjoint(s, negative)
    signed = op.mul(op.sign(layer.x), op.add(above, below))
    return op.scale(op.add(op.sub(above, below), signed), 0.5)


# --- reading layers -------------------------------------------------------------------------------
def _layer(
    op: Language[T],
    node: Node[T],
    apply: Callable[[T, T], T],
    adjoint: Callable[[T, T], T],
    *,
    own: T | None = None,
    operand: int = 0,
) -> WeightedLayer[T]:
    """A node with weights; its bias is its ``own``, or that of a following ``Add``."""
    added = node.bias() if own is None else None
    y = node.output() if added is None else op.add(node.output(), added)
    x, weights = node.input(operand), node.input(1 - operand)
    bias = added if own is None else own
    return WeightedLayer(x, weights, y, bias, added, apply, adjoint, operand, node.arity)


def _activations(node: Node[T]) -> int | None:
    """Index of the factor that is activations, if the other is weights."""
    return next((k for k in (0, 1) if node.active(k) and node.is_weight(1 - k)), None)


def _matmul(op: Language[T], node: Node[T]) -> WeightedLayer[T] | None:
    """x W or W x."""
    operand = _activations(node)
    if operand is None:
        return None
    if node.rank(0) < 2 or node.rank(1) < 2:
        raise NotImplementedError("weights of one axis")
    return (_left, _right)[operand](op, node)


def _left(op: Language[T], node: Node[T]) -> WeightedLayer[T]:
    return _layer(op, node, op.matmul, lambda m, w: op.matmul(m, w, transpose_b=True))


def _right(op: Language[T], node: Node[T]) -> WeightedLayer[T]:
    return _layer(
        op,
        node,
        lambda x, w: op.matmul(w, x),
        lambda m, w: op.matmul(w, m, transpose_a=True),
        operand=1,
    )


def sides(op: Language[T], node: Node[T]) -> tuple[WeightedLayer[T], WeightedLayer[T]]:
    """Both factors of a matrix product, each with the other one as its weights."""
    return _left(op, node), _right(op, node)


def _gemm(op: Language[T], node: Node[T]) -> WeightedLayer[T] | None:
    """α A' B' + β C: C is the bias if it is a parameter, else it receives β m as by default."""
    operand = _activations(node)
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
    own = third if node.has(2) and node.is_weight(2) else None
    layer = _layer(op, node, apply, adjoint, own=own, operand=operand)
    layer = replace(layer, weights=op.scale(layer.weights, node.attribute("alpha", 1.0)))
    if third is None or own is not None:
        return layer
    return replace(layer, y=op.sub(layer.y, third), third=beta)


def _convolution(op: Language[T], node: Node[T]) -> WeightedLayer[T] | None:
    """A convolution, or a transposed one: each is the other's adjoint."""
    if _activations(node) != 0:
        return None
    x, y, window = node.input(0), node.output(), linear.window(node)

    def down(a: T, w: T, like: T) -> T:
        return op.conv(a, w, like, window)

    def up(a: T, w: T, like: T) -> T:
        return op.conv_adjoint(a, w, like, window)

    forward, backward = (down, up) if node.op_type == "Conv" else (up, down)
    own = op.unsqueeze(node.input(2), range(1, node.rank(1) - 1)) if node.has(2) else None
    return _layer(op, node, lambda x, w: forward(x, w, y), lambda m, w: backward(m, w, x), own=own)


# --- the sets -------------------------------------------------------------------------------------
#: Operation → how its layer is read, its default rule, and its parameter γ.
LAYERS: dict[str, tuple[Reader, Rule, str]] = {
    "MatMul": (_matmul, products.matmul, "gamma"),
    "Gemm": (_gemm, linear.gemm, "gamma"),
    "Conv": (_convolution, linear.convolution, "gamma_conv"),
    "ConvTranspose": (_convolution, linear.transposed_convolution, "gamma_conv"),
}


def _register(op_type: str, read: Reader, default: Rule, parameter: str) -> None:
    @rule(op_type, under="gamma")
    def gamma(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
        """:func:`gamma_rule` for layers with weights, else the default rule."""
        layer = read(op, node)
        if layer is None:
            return default(op, node, m)
        return gamma_rule(op, layer, m, node.parameter(parameter))

    @rule(op_type, under="alpha")
    def alpha(op: Language[T], node: Node[T], m: T) -> Sequence[T | None] | Shares[T]:
        """:func:`alpha_rule` for layers with weights, else the default rule."""
        layer = read(op, node)
        return default(op, node, m) if layer is None else alpha_rule(op, layer, m)


for _op_type, _entry in LAYERS.items():
    _register(_op_type, *_entry)


@rule("Add", under="alpha")
def add(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """Two activations share in proportion to the magnitudes of their sums, sample by sample.

    With A = a ∘ m and B = b ∘ m, R = A + B: R_a = A · |ΣA| / (|ΣA| + |ΣB|) · ΣR / ΣA, likewise R_b;
    so ΣR_a + ΣR_b = ΣR. Shapes: a, b and m are broadcast to one shape. Source: Chefer et al. 2021
    (residual normalisation), as PA-LRP's code has it. Ledger: nothing.
    """
    if not (node.active(0) and node.active(1)):
        return sums.add(op, node, m)
    batch = node.batch_axis()
    rest = [axis for axis in range(-max(node.rank(0), node.rank(1)), 0) if axis != batch]
    totals = [op.sum(op.relevance(node.input(k), m), rest) for k in (0, 1)]
    sizes = [op.absolute(total) for total in totals]
    both = op.ratio(op.add(*totals), op.add(*sizes), 0.0)
    shares = (op.mul(op.sign(total), both) for total in totals)
    return [op.mul(m, op.cast_like(share, m)) for share in shares]


@rule("Softmax", under="stopped")
def softmax(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """No multiplier for the scores.

    Shapes: s and m have one shape. Source: PA-LRP's code for vision transformers. Ledger: all
    relevance that reaches the probabilities, s ∘ m, under ``softmax``.
    """
    return Shares((None,), {"softmax": op.relevance(node.guarded_output(), m)})
