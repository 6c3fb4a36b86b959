"""Fused mixtures of experts against what they are lowered to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checking import Array, compare, single

from palrp_onnx.model.lowering import REFUSED
from palrp_onnx.model.open import Model

pytestmark = pytest.mark.quick

EXPERTS, WIDE, INNER = 4, 32, 64
GENERATOR = np.random.default_rng(3)


def drawn(*shape: int) -> Array:
    return (GENERATOR.normal(size=shape) * 0.5).astype(np.float32)


FEEDS = {"x": drawn(2, 3, WIDE), "r": drawn(6, EXPERTS)}
INTO, OUT = drawn(EXPERTS, INNER, WIDE), drawn(EXPERTS, WIDE, INNER)
BIASES = {"b": drawn(EXPERTS, INNER), "c": drawn(EXPERTS, WIDE)}
GATED = {"w": drawn(EXPERTS, 2 * INNER, WIDE) * 2, "v": OUT}
SWIGLU = {"activation_type": "swiglu", "swiglu_fusion": 1}


@pytest.mark.parametrize("opset", [12, 17, 21])
@pytest.mark.parametrize("kind", ["relu", "gelu", "silu", "identity"])
@pytest.mark.parametrize("normalised", [0, 1])
def test_two_layers(kind: str, normalised: int, opset: int, tmp_path: Path) -> None:
    weights = {"w": INTO, "v": OUT, **BIASES}
    more = {"k": 2, "activation_type": kind, "normalize_routing_weights": normalised}
    names = ["x", "r", "w", "b", "v", "c"]
    compare(single("MoE", names, FEEDS, weights=weights, opset=opset, **more), FEEDS, tmp_path)


@pytest.mark.parametrize(
    "more",
    [{}, {"activation_alpha": 1.702, "activation_beta": 1.0}, {"swiglu_limit": 0.5, "k": 3}],
)
def test_gates_that_alternate_with_values(more: dict[str, Any], tmp_path: Path) -> None:
    model = single("MoE", ["x", "r", "w", "", "v"], FEEDS, weights=GATED, **SWIGLU, **more)
    compare(model, FEEDS, tmp_path)


def few_bits(weights: Array, bits: int, block: int) -> tuple[Array, Array]:
    """Numbers, packed, and scales of rows or of blocks of columns."""
    parts = weights.reshape(*weights.shape[:2], -1, block or weights.shape[2])
    middle = 1 << (bits - 1)
    scales = np.abs(parts).max(-1, keepdims=True) / (middle - 1)
    numbers = (np.rint(parts / scales) + middle).reshape(weights.shape).astype(np.uint8)
    if bits == 4:
        numbers = numbers[..., 0::2] | numbers[..., 1::2] << 4
    return numbers, scales[..., 0] if block else scales[..., 0, 0]


@pytest.mark.parametrize(("bits", "block"), [(4, 0), (4, 32), (8, 0)])
def test_weights_of_few_bits(bits: int, block: int, tmp_path: Path) -> None:
    (w, s), (v, t) = few_bits(INTO, bits, block), few_bits(OUT, bits, block)
    weights = {"w": w, "s": s, "v": v, "t": t, **BIASES}
    more = {"block_size": block} if block else {}
    names = ["x", "r", "w", "s", "b", "v", "t", "c"]
    model = single("QMoE", names, FEEDS, weights=weights, k=2, expert_weight_bits=bits, **more)
    compare(model, FEEDS, tmp_path, tolerance=1e-4)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "sparse mixer": ({"use_sparse_mixer": 1, "k": 2}, "sparse mixer"),
    "gates in a half": ({"activation_type": "swiglu", "swiglu_fusion": 2}, "do not alternate"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_others_are_refused(name: str, tmp_path: Path) -> None:
    more, reason = REFUSALS[name]
    model = single("MoE", ["x", "r", "w", "", "v"], FEEDS, weights=GATED, **more)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (refused,) = [n.meta[REFUSED] for n in Model.open(path).graph if REFUSED in n.meta]
    assert reason in refused
