"""Exact derivatives: the set of rules ``gradient``, for methods that use the gradient.

Multipliers are m_x = Σ m ∘ ∂y/∂x, with no halves and along every path: gates, statistics and
denominators are content here. The part that is not linear, y ∘ m − Σ x ∘ m_x, is entered under
``other``, so that the ledger of gradient × input (Shrikumar et al. 2016) closes.

For operations that are linear, or homogeneous like ReLU, a maximum or the Euclidean norm, the
default rule is the derivative already; so it is for softmax and its logarithm. As in the default
rules, rounding is passed straight through, and at a kink one of the two slopes is taken.

Shapes are those of the default rule of an operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from palrp_onnx.rules import linear, norm, products, reduction
from palrp_onnx.rules.registry import Node, Rule, Shares, T, rule
from palrp_onnx.tensor.language import Language

SET = "gradient"
#: dy/dx of an element-wise function.
Slope = Callable[[Language[Any], Node[Any]], Any]


def _absorbing_rest(op: Language[T], node: Node[T], m: T, sent: T) -> Shares[T]:
    """``sent`` to the first input; y ∘ m − x ∘ ``sent``, of equal shapes, is absorbed."""
    rest = op.sub(op.relevance(node.output(), m), op.relevance(node.input(0), sent))
    return Shares((sent, *(None,) * (node.arity - 1)), {"other": rest})


# --- products ------------------------------------------------------------------------------------
def _product(default: Rule) -> Rule:
    def product(op: Language[T], node: Node[T], m: T) -> Shares[T]:
        """m_a = m ∂y/∂a for each of n factors: the default rule for n m.

        Source: product rule. Ledger: (1 − n) y ∘ m under ``other``.
        """
        count = sum(node.active(i) for i in range(node.arity))
        if count < 2:
            return Shares(_inputs(default(op, node, m)))
        sent = _inputs(default(op, node, op.scale(m, float(count))))
        return Shares(sent, {"other": op.scale(op.relevance(node.output(), m), 1.0 - count)})

    return product


def _inputs(shares: Sequence[Any] | Shares[Any]) -> Sequence[Any]:
    return shares.inputs if isinstance(shares, Shares) else shares


multiply = rule("Mul", under=SET)(_product(products.multiply))
rule("MatMul", under=SET)(_product(products.matmul))
rule("Einsum", under=SET)(_product(products.einsum))


@rule("Gemm", under=SET)
def gemm(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = α A' B' + β C: the default rule, without its halves where A and B are activations.

    Source: product rule. Ledger: −(α A' B') ∘ m under ``other`` if both are, else as by default.
    """
    default = linear.gemm(op, node, m)
    if not (node.active(0) and node.active(1)):
        assert isinstance(default, Shares)
        return default
    left, right, *third = _inputs(default)
    product = op.relevance(node.output(), m)
    if third:
        added = op.relevance(op.scale(node.input(2), node.attribute("beta", 1.0)), m)
        product = op.sub(product, added)
    whole = (op.scale(left, 2.0), op.scale(right, 2.0), *third)
    return Shares(whole, {"other": op.scale(product, -1.0)})


@rule("Div", under=SET)
def divide(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_a = m / b, m_b = −m ∘ y / b.

    Source: quotient rule. Ledger: y ∘ m under ``other`` if both are content, 2 y ∘ m if b alone is.
    """
    share = op.div(m, node.input(1))
    left = share if node.active(0) else None
    if not node.active(1):
        return Shares((left, None))
    right = op.scale(op.mul(share, node.output()), -1.0)
    rest = op.relevance(node.output(), m)
    return Shares((left, right), {"other": rest if node.active(0) else op.scale(rest, 2.0)})


# --- element-wise functions ----------------------------------------------------------------------
def _step(op: Language[T], a: T) -> T:
    """1 where a > 0, else 0."""
    positive = op.relu(a)
    return op.ratio(positive, positive, 0.0)


def _inside(op: Language[T], a: T) -> T:
    """1 where 0 < a < 1, else 0."""
    return _step(op, op.mul(a, op.shift(op.scale(a, -1.0), 1.0)))


def _square(op: Language[T], a: T) -> T:
    return op.mul(a, a)


def _root(op: Language[T], a: T) -> T:
    """a^−½."""
    return op.power(a, -0.5)


def _sigmoid(op: Language[T], x: T) -> T:
    return op.power(op.shift(op.exp(op.scale(x, -1.0)), 1.0), -1.0)


def _falling(op: Language[T], a: T) -> T:
    """1 − a."""
    return op.shift(op.scale(a, -1.0), 1.0)


def _exponential(op: Language[T], node: Node[T], scale: float, alpha: float) -> T:
    """``scale`` where x > 0, else that of y = scale α (eˣ − 1), which is y + scale α."""
    right = _step(op, node.input(0))
    left = op.shift(node.output(), scale * alpha)
    return op.add(op.scale(right, scale), op.mul(_falling(op, right), left))


def _celu(op: Language[T], node: Node[T]) -> T:
    """1 where x > 0, else e^(x/α) = 1 + y/α."""
    below = op.relu(op.scale(node.output(), -1.0))
    return _falling(op, op.scale(below, 1.0 / node.attribute("alpha", 1.0)))


def _elu(op: Language[T], node: Node[T]) -> T:
    return _exponential(op, node, 1.0, node.attribute("alpha", 1.0))


def _selu(op: Language[T], node: Node[T]) -> T:
    alpha = node.attribute("alpha", 1.6732632423543772)
    return _exponential(op, node, node.attribute("gamma", 1.0507009873554805), alpha)


def _gelu(op: Language[T], node: Node[T]) -> T:
    """p + x p' with p = y / x: p' is the normal density, or the derivative of the tanh form."""
    x = node.input(0)
    p = op.ratio(node.output(), x, 0.5)
    if node.attribute("approximate", "none") == "none":
        density = op.scale(op.exp(op.scale(_square(op, x), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
        return op.add(p, op.mul(x, density))
    inner = op.shift(op.scale(_square(op, x), 3.0 * 0.044715), 1.0)
    rise = op.scale(op.mul(op.mul(p, _falling(op, p)), inner), 2.0 * math.sqrt(2.0 / math.pi))
    return op.add(p, op.mul(x, rise))


def _hard_swish(op: Language[T], node: Node[T]) -> T:
    """h + x h' with h = y / x, a ramp of slope 1/6."""
    x = node.input(0)
    h = op.ratio(node.output(), x, 0.5)
    return op.add(h, op.mul(x, op.scale(_inside(op, h), 1.0 / 6.0)))


def _mish(op: Language[T], node: Node[T]) -> T:
    """t + x (1 − t²) σ(x) with t = y / x."""
    x = node.input(0)
    t = op.ratio(node.output(), x, 0.6)
    return op.add(t, op.mul(op.mul(x, _falling(op, _square(op, t))), _sigmoid(op, x)))


def _swish(op: Language[T], node: Node[T]) -> T:
    """s + α x s (1 − s) with s = y / x."""
    x = node.input(0)
    s = op.ratio(node.output(), x, 0.5)
    rise = op.scale(op.mul(s, _falling(op, s)), node.attribute("alpha", 1.0))
    return op.add(s, op.mul(x, rise))


def _hard_sigmoid(op: Language[T], node: Node[T]) -> T:
    return op.scale(_inside(op, node.output()), node.attribute("alpha", 0.2))


def _shrink(op: Language[T], node: Node[T]) -> T:
    """1 where |x| > λ, else 0."""
    size = op.absolute(node.input(0))
    return _step(op, op.shift(size, -node.attribute("lambd", 0.5)))


def _hyperbolic(sign: float) -> Slope:
    def slope(op: Language[T], node: Node[T]) -> T:
        """½ (eˣ ± e⁻ˣ)."""
        x = node.input(0)
        back = op.scale(op.exp(op.scale(x, -1.0)), sign)
        return op.scale(op.add(op.exp(x), back), 0.5)

    return slope


def _of_x(formula: Callable[[Language[Any], Any], Any]) -> Slope:
    return lambda op, node: formula(op, node.input(0))


def _of_y(formula: Callable[[Language[Any], Any], Any]) -> Slope:
    return lambda op, node: formula(op, node.output())


_SLOPES: dict[str, Slope] = {
    "Acos": _of_x(lambda op, x: op.scale(_root(op, _falling(op, _square(op, x))), -1.0)),
    "Acosh": _of_x(lambda op, x: _root(op, op.shift(_square(op, x), -1.0))),
    "Asin": _of_x(lambda op, x: _root(op, _falling(op, _square(op, x)))),
    "Asinh": _of_x(lambda op, x: _root(op, op.shift(_square(op, x), 1.0))),
    "Atan": _of_x(lambda op, x: op.power(op.shift(_square(op, x), 1.0), -1.0)),
    "Atanh": _of_x(lambda op, x: op.power(_falling(op, _square(op, x)), -1.0)),
    "Celu": _celu,
    "Clip": lambda op, node: op.winners(node.input(0), node.output()),
    "Cosh": _hyperbolic(-1.0),
    "Elu": _elu,
    "Erf": _of_x(
        lambda op, x: op.scale(op.exp(op.scale(_square(op, x), -1.0)), 2.0 / math.sqrt(math.pi))
    ),
    "Exp": lambda op, node: node.output(),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Log": _of_x(lambda op, x: op.power(x, -1.0)),
    "Mish": _mish,
    "Reciprocal": _of_y(lambda op, y: op.scale(_square(op, y), -1.0)),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _of_y(lambda op, y: op.mul(y, _falling(op, y))),
    "Sinh": _hyperbolic(1.0),
    "Softplus": _of_x(_sigmoid),
    "Softsign": _of_x(lambda op, x: op.power(op.shift(op.absolute(x), 1.0), -2.0)),
    "Swish": _swish,
    "Tan": _of_y(lambda op, y: op.shift(_square(op, y), 1.0)),
    "Tanh": _of_y(lambda op, y: _falling(op, _square(op, y))),
}


def _elementwise(slope: Slope) -> Rule:
    def derivative(op: Language[T], node: Node[T], m: T) -> Shares[T]:
        """m_x = m ∘ f'(x). Source: chain rule. Ledger: y ∘ m − x ∘ m_x under ``other``."""
        return _absorbing_rest(op, node, m, op.mul(m, slope(op, node)))

    return derivative


def square_root(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """m_x = m / 2y, and 0 at zero, where there is no derivative.

    Source: chain rule. Ledger: y ∘ m − x ∘ m_x under ``other``.
    """
    return _absorbing_rest(op, node, m, op.ratio(op.scale(m, 0.5), node.output(), 0.0))


def power(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = xⁿ with constant n: m_x = n m ∘ xⁿ⁻¹, and 0 at x = 0 where n < 1.

    Source: chain rule. Ledger: y ∘ m − x ∘ m_x under ``other``.
    """
    exponent = node.number(1)
    if exponent < 1.0:
        slope = op.scale(op.ratio(node.output(), node.input(0), 0.0), exponent)
    else:
        slope = op.scale(op.power(node.input(0), exponent - 1.0), exponent)
    return _absorbing_rest(op, node, m, op.mul(m, slope))


def circular(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """Refused: the language has no sine and cosine, and y alone does not give the derivative."""
    raise NotImplementedError("the derivative of a sine or cosine of content")


#: The rules of element-wise functions.
ELEMENTWISE: dict[str, Rule] = {
    **{name: _elementwise(slope) for name, slope in _SLOPES.items()},
    "Sqrt": square_root,
    "Pow": power,
    "Cos": circular,
    "Sin": circular,
}
for _name, _rule in ELEMENTWISE.items():
    rule(_name, under=SET)(_rule)


# --- reductions and norms ------------------------------------------------------------------------
@rule("ReduceSumSquare", under=SET)
def reduce_sum_square(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = Σ x²: m_x = 2 m ∘ x. Source: chain rule. Ledger: −y ∘ m under ``other``."""
    sent = reduction.reduce_sum_square(op, node, op.scale(m, 2.0))
    return Shares(_inputs(sent), {"other": op.scale(op.relevance(node.output(), m), -1.0)})


@rule("ReduceLogSum", under=SET)
def reduce_log_sum(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = log Σ x: m_x = m / Σ x. Source: chain rule. Ledger: (y − 1) ∘ m under ``other``."""
    share = op.mul(m, op.exp(op.scale(node.output(), -1.0)))
    rest = op.sub(op.relevance(node.output(), m), m)
    return Shares(_inputs(reduction.reduce_sum(op, node, share)), {"other": rest})


def _centred(op: Language[T], a: T, axes: Sequence[int]) -> T:
    return op.sub(a, op.mean(a, axes))


def _tail(node: Node[T]) -> list[int]:
    rank = node.rank(0)
    return list(range(node.attribute("axis", -1) % rank, rank))


def _through_deviation(
    op: Language[T], node: Node[T], scaled: T, axes: Sequence[int], epsilon: float
) -> T:
    """u − mean(u) − c ∘ mean(u ∘ c) / σ² with c = x − μ and u = ``scaled`` / σ."""
    centred = _centred(op, op.wide(node.input(0)), axes)
    variance = op.shift(op.mean(_square(op, centred), axes), epsilon)
    u = op.div(scaled, op.power(variance, 0.5))
    along = op.div(op.mean(op.mul(u, centred), axes), variance)
    sent = op.sub(_centred(op, u, axes), op.mul(centred, along))
    return op.cast_like(sent, node.input(0))


@rule("LayerNormalization", under=SET, ledger={2: "norm"})
def layer_normalization(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = γ ∘ (x − μ)/σ + β: m_x = u − mean(u) − x̂ ∘ mean(u ∘ x̂), u = γ ∘ m / σ, x̂ = (x − μ)/σ.

    Shapes: x, m [.., *N], normalised over N, the axes from ``axis`` on; γ, β [*N]. Source: chain
    rule. Ledger: β ∘ m under ``norm``, y ∘ m − β ∘ m − x ∘ m_x under ``other``.
    """
    scaled = op.mul(m, node.input(1))
    sent = _through_deviation(op, node, scaled, _tail(node), node.attribute("epsilon", 1e-5))
    shares = _absorbing_rest(op, node, m, sent)
    if not node.has(2):
        return shares
    rest = op.sub(shares.absorbed["other"], op.relevance(node.input(2), m))
    return Shares((sent, None, m), {"other": rest})


@rule("InstanceNormalization", under=SET)
def instance_normalization(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """As LayerNormalization, per sample and channel over the spatial axes.

    Shapes: x, m [B, C, *S]; γ, β [C]. Source: chain rule. Ledger: as LayerNormalization.
    """
    rank = node.rank(0)
    gamma, beta = (op.unsqueeze(node.input(k), range(1, rank - 1)) for k in (1, 2))
    epsilon = node.attribute("epsilon", 1e-5)
    sent = _through_deviation(op, node, op.mul(m, gamma), list(range(2, rank)), epsilon)
    shares, offset = _absorbing_rest(op, node, m, sent), op.relevance(beta, m)
    rest = op.sub(shares.absorbed["other"], offset)
    return Shares(shares.inputs, {"norm": offset, "other": rest})


@rule("MeanVarianceNormalization", under=SET)
def mean_variance_normalization(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = (x − μ)/(σ + ε): m_x = u − mean(u) − c ∘ mean(u ∘ c) / (σ (σ + ε)), u = m / (σ + ε).

    c = x − μ. Source: chain rule; ε is the standard's. Ledger: y ∘ m − x ∘ m_x under ``other``.
    """
    axes = node.attribute("axes", (0, 2, 3))
    if 0 in axes or -node.rank(0) in axes:
        raise NotImplementedError("statistics measured over the batch")
    centred = _centred(op, op.wide(node.input(0)), axes)
    deviation = op.power(op.mean(_square(op, centred), axes), 0.5)
    whole = op.shift(deviation, norm.EPSILON)
    u = op.div(m, whole)
    along = op.ratio(op.mean(op.mul(u, centred), axes), op.mul(deviation, whole), 0.0)
    sent = op.sub(_centred(op, u, axes), op.mul(centred, along))
    return _absorbing_rest(op, node, m, op.cast_like(sent, node.input(0)))


@rule("RMSNormalization", under=SET)
def rms_normalization(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = γ ∘ x / r, r² = mean(x²) + ε: m_x = u − x ∘ mean(u ∘ x) / r² with u = γ ∘ m / r.

    Source: chain rule. Ledger: y ∘ m − x ∘ m_x under ``other``.
    """
    axes = _tail(node)
    x = op.wide(node.input(0))
    square = op.shift(op.mean(_square(op, x), axes), node.attribute("epsilon", 1e-5))
    u = op.div(op.mul(m, node.input(1)), op.power(square, 0.5))
    sent = op.sub(u, op.mul(x, op.div(op.mean(op.mul(u, x), axes), square)))
    return _absorbing_rest(op, node, m, op.cast_like(sent, node.input(0)))


@rule("LpNormalization", under=SET)
def lp_normalization(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = x / n, n = ‖x‖: m_x = u − n' ∘ Σ u ∘ y, u = m / n; n' is y, or the signs for p = 1.

    Source: chain rule. Ledger: y ∘ m − x ∘ m_x under ``other``.
    """
    axes = [node.attribute("axis", -1)]
    x, y = op.wide(node.input(0)), op.wide(node.output())
    if node.attribute("p", 2) == 1:
        length, rise = op.sum(op.absolute(x), axes), op.ratio(op.absolute(x), x, 0.0)
    else:
        length, rise = op.power(op.sum(_square(op, x), axes), 0.5), y
    u = op.ratio(m, length, 0.0)
    sent = op.sub(u, op.mul(rise, op.sum(op.mul(u, y), axes)))
    return _absorbing_rest(op, node, m, op.cast_like(sent, node.input(0)))
