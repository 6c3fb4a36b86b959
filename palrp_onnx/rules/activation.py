"""Element-wise functions of one activation: the identity rule, m_x = m ∘ y / x.

A function with f(0) ≠ 0 is its value at zero plus a function that is zero there; the constant is
absorbed like a bias. Self-gated activations that are written as several operations are products
whose second factor is recognised as a gate (see ``products.multiply``).

Shapes: x, y and m have one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from palrp_onnx.rules.registry import Node, Shares, T, rule
from palrp_onnx.tensor.language import Language

#: Operation → slope at zero, for functions with f(0) = 0.
_SLOPES: dict[str, float] = {
    "Abs": 0.0,
    "Asin": 1.0,
    "Asinh": 1.0,
    "Atan": 1.0,
    "Atanh": 1.0,
    "Celu": 1.0,
    "Elu": 1.0,
    "Erf": 2.0 / math.sqrt(math.pi),
    "Gelu": 0.5,
    "HardSwish": 0.5,
    "LeakyRelu": 0.0,
    "Mish": 0.6,
    "PRelu": 0.0,
    "Relu": 0.0,
    "Selu": 1.0507009873554805 * 1.6732632423543772,
    "Sin": 1.0,
    "Sinh": 1.0,
    "Softsign": 1.0,
    "Sqrt": 0.0,
    "Swish": 0.5,
    "Tan": 1.0,
    "Tanh": 1.0,
    "ThresholdedRelu": 0.0,
}
#: Operation → (value at zero, slope at zero).
_OFFSETS: dict[str, tuple[float, float]] = {
    "Acos": (math.pi / 2.0, -1.0),
    "Cos": (1.0, 0.0),
    "Cosh": (1.0, 0.0),
    "Exp": (1.0, 1.0),
    "Sigmoid": (0.5, 0.25),
    "Softplus": (math.log(2.0), 0.5),
}


def at_zero(name: str, alpha: float, beta: float) -> tuple[float, float]:
    """The value of a function at zero, and its slope there."""
    if name == "HardSigmoid":
        return min(max(beta, 0.0), 1.0), alpha if 0.0 < beta < 1.0 else 0.0
    if name == "Relu":
        return 0.0, 0.0
    return _OFFSETS[name] if name in _OFFSETS else (0.0, _SLOPES[name])


def _vanishing(slope: float) -> Callable[..., Sequence[object]]:
    def identity(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
        """m_x = m ∘ y / x; m times the slope where x = 0.

        Source: identity rule (AttnLRP, eq. 9). Ledger: nothing.
        """
        return op.mul(m, op.ratio(node.output(), node.input(0), slope)), *(None,) * (node.arity - 1)

    return identity


@rule("Relu")
def relu(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m where x > 0, else 0: the identity rule m ∘ y / x, which needs y alone.

    Source: identity rule (AttnLRP, eq. 9). Ledger: nothing.
    """
    return [op.gated(m, node.output())]


def _shifted(offset: float, slope: float) -> Callable[..., Shares[object]]:
    def identity(op: Language[T], node: Node[T], m: T) -> Shares[T]:
        """m_x = m ∘ (y − f(0)) / x; m times the slope where x = 0.

        Source: identity rule (AttnLRP, eq. 9) for y − f(0). Ledger: f(0) ∘ m under ``other``.
        """
        return _after_shift(op, node, m, offset, slope)

    return identity


def _after_shift(op: Language[T], node: Node[T], m: T, offset: float, slope: float) -> Shares[T]:
    rest = op.shift(node.output(), -offset)
    sent = op.mul(m, op.ratio(rest, node.input(0), slope))
    return Shares((sent, *(None,) * (node.arity - 1)), {"other": op.scale(m, offset)})


for _name, _slope in _SLOPES.items():
    if _name != "Relu":
        rule(_name)(_vanishing(_slope))
for _name, (_offset, _slope) in _OFFSETS.items():
    rule(_name)(_shifted(_offset, _slope))


@rule("HardSigmoid")
def hard_sigmoid(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    """y = max(0, min(1, αx + β)): m_x = m ∘ (y − f(0)) / x.

    Source: identity rule (AttnLRP, eq. 9) for y − f(0). Ledger: f(0) ∘ m under ``other``.
    """
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    return _after_shift(op, node, m, *at_zero("HardSigmoid", alpha, beta))


@rule("Shrink")
def shrink(op: Language[T], node: Node[T], m: T) -> Shares[T] | Sequence[T | None]:
    """y = x + β below −λ, x − β above λ, else 0: m_x = m ∘ (y − f(0)) / x.

    Source: identity rule (AttnLRP, eq. 9). Ledger: f(0) ∘ m under ``other``, where f(0) = β if
    λ < 0, else 0.
    """
    if node.attribute("lambd", 0.5) >= 0.0:
        return (op.mul(m, op.ratio(node.output(), node.input(0), 0.0)),)
    return _after_shift(op, node, m, node.attribute("bias", 0.0), 1.0)


@rule("Clip")
def clip(op: Language[T], node: Node[T], m: T) -> Shares[T] | Sequence[T | None]:
    """y = min(max(x, a), b): m_x = m ∘ (y − f(0)) / x.

    f(0) = min(max(0, a), b) is 0 unless zero is outside of the bounds. At x = 0 the multiplier is m
    where f(0) = 0, else 0. Source: identity rule (AttnLRP, eq. 9) for y − f(0). Ledger: f(0) ∘ m
    under ``other``.
    """
    low, high = (_bound(node, k, name) for k, name in ((1, "min"), (2, "max")))
    if isinstance(low, float) and isinstance(high, float):
        offset = min(max(0.0, low), high)
        if offset == 0.0:
            return quotient(op, node, m)
        return _after_shift(op, node, m, offset, 0.0)
    return _clipped_by_tensors(op, node, m)


def _bound(node: Node[T], index: int, name: str) -> float | None:
    """A constant bound, infinite where there is none; ``None`` if it is computed."""
    if node.has(index):
        return node.stored(index)
    return float(node.attribute(name, -math.inf if index == 1 else math.inf))


def _clipped_by_tensors(op: Language[T], node: Node[T], m: T) -> Shares[T]:
    x = node.input(0)
    offset = op.relu(node.input(1)) if node.has(1) else None
    if node.has(2):
        above = node.input(2)
        first = op.scale(above, -1.0) if offset is None else op.sub(offset, above)
        cut = op.relu(first)
        offset = op.scale(cut, -1.0) if offset is None else op.sub(offset, cut)
    assert offset is not None
    sent = op.mul(m, op.ratio(op.sub(node.output(), offset), x, 0.0))
    return Shares((sent, *(None,) * (node.arity - 1)), {"other": op.mul(m, offset)})


@rule("Acosh", "Log", "Reciprocal")
def quotient(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """m_x = m ∘ y / x, and m where x = 0: the function has no finite or no single value there.

    Source: identity rule (AttnLRP, eq. 9). Ledger: nothing.
    """
    return op.mul(m, op.ratio(node.output(), node.input(0), 1.0)), *(None,) * (node.arity - 1)


@rule("Pow")
def power(op: Language[T], node: Node[T], m: T) -> Shares[T] | Sequence[T | None]:
    """y = xⁿ with constant n: m_x = m ∘ xⁿ⁻¹, which is y / x in closed form.

    For 0 < n < 1 the multiplier is m ∘ y / x, and 0 at x = 0, where the slope is infinite. Source:
    identity rule (AttnLRP, eq. 9). Ledger: nothing; for n = 0 all of y = 1, under ``other``.
    """
    exponent = node.number(1)
    if exponent == 0.0:
        return Shares((op.scale(m, 0.0), None), {"other": m})
    if 0.0 < exponent < 1.0:
        return op.mul(m, op.ratio(node.output(), node.input(0), 0.0)), None
    return op.mul(m, op.power(node.input(0), exponent - 1.0)), None
