"""Where x = 0 the identity rule m ∘ y / x is its limit, never a division by zero."""

from __future__ import annotations

import numpy as np
import pytest
from building import real, run, wide

#: Functions that are smooth at zero: the limit is the slope there.
SMOOTH = {
    "Acos": 18,
    "Asin": 18,
    "Asinh": 18,
    "Atan": 18,
    "Atanh": 18,
    "Celu": 18,
    "Cos": 18,
    "Cosh": 18,
    "Erf": 18,
    "Exp": 18,
    "Gelu": 20,
    "HardSigmoid": 18,
    "HardSwish": 18,
    "Mish": 18,
    "Sigmoid": 18,
    "Sin": 18,
    "Sinh": 18,
    "Softplus": 18,
    "Softsign": 18,
    "Swish": 24,
    "Tan": 18,
    "Tanh": 18,
}
#: Functions with a kink at zero: the convention.
KINKED = {"Abs": 0.0, "LeakyRelu": 0.0, "Relu": 0.0, "Sqrt": 0.0, "ThresholdedRelu": 0.0}
KINKED |= {"Shrink": 0.0, "Elu": 1.0, "Selu": 1.0507009873554805 * 1.6732632423543772}


def multiplier_at_zero(body: str, opset: int = 18) -> float:
    """Of h = x + b at h = 0, read off x = −b."""
    bias = real(4)
    x = np.stack([-bias, 0.5 - bias])[None]
    found = run(f"h = Add(x, b)  {body}", x, {"b": bias}, opset=opset)
    assert np.isfinite(found.content).all() and found.residual < 1e-12
    (ratio,) = np.unique((found.multiplier / found.seed)[0, 0].round(9))
    return float(ratio)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_pass_their_slope(name: str) -> None:
    step = 2.0**-24
    x = np.full((1, 1, 1), step, np.float32)
    probe = run(f"y = {name}(x)", x, opset=SMOOTH[name])
    rise = probe.output(wide(x)) - probe.output(-wide(x))
    slope = float(rise.item()) / (2 * step)
    assert multiplier_at_zero(f"y = {name}(h)", SMOOTH[name]) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("name", KINKED)
def test_kinks_have_a_convention(name: str) -> None:
    assert multiplier_at_zero(f"y = {name}(h)") == pytest.approx(KINKED[name], abs=1e-9)


@pytest.mark.parametrize(
    ("body", "slope"),
    [
        ("s = Sigmoid(h)  y = Mul(h, s)", 0.5),
        ("y = Mul(h, h)", 0.0),
        ("t = Tanh(h)  s = Sigmoid(t)  y = Mul(s, t)", 0.5),
    ],
)
def test_self_gates_are_closed_forms(body: str, slope: float) -> None:
    assert multiplier_at_zero(body) == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("attributes", ["alpha=0.125", "beta=0.25"])
def test_hard_sigmoid_with_attributes(attributes: str) -> None:
    slope = 0.125 if "alpha" in attributes else 0.2
    found = multiplier_at_zero(f"y = HardSigmoid<{attributes}>(h)")
    assert found == pytest.approx(slope, abs=1e-6)
