"""Layers around gates, and weights in tables of 16 numbers, as ONNX Runtime computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checking import Array, compare, model, ms

GENERATOR = np.random.default_rng(11)


def real(*shape: int) -> Array:
    return GENERATOR.normal(size=shape).astype(np.float32)


X = real(2, 3, 8)
LAYERS: dict[str, tuple[list[str], dict[str, Array], dict[str, object]]] = {
    "GatedRMSNorm": (["x", "w", "g"], {"w": real(8), "g": real(2, 3, 8)}, {"epsilon": 0.25}),
    "GatedRMSNorm of heads": (
        ["x", "w", "g"],
        {"w": real(4), "g": real(2, 3, 8)},
        {"activation": "sigmoid"},
    ),
    "GatedAdd": (["x", "z", "g"], {"z": real(2, 3, 8), "g": real(2, 3, 1)}, {}),
    "ScaledSiLU": (["x"], {}, {"alpha": 1.5}),
    "ScaledSiLU by an input": (["x", "s"], {"s": np.float32(0.5)}, {}),
    "LinearAttentionGate": (["x", "w", "d"], {"w": real(8), "d": -abs(real(8))}, {}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_around_gates(name: str, tmp_path: Path) -> None:
    inputs, weights, attributes = LAYERS[name]
    node = ms(name.split()[0], " ".join(inputs), "y", **attributes)
    compare(model([node], {"x": X}, weights), {"x": X}, tmp_path)


@pytest.mark.parametrize("kind", [0, 1])
def test_weights_in_tables(kind: int, tmp_path: Path) -> None:
    """Every one of the 16 numbers occurs."""
    rows, columns, size = 4, 32, 16
    weights = {
        "w": GENERATOR.permutation(np.repeat(np.arange(16), 8) * 17).astype(np.uint8)[:64],
        "largest": abs(real(rows * columns // size)) + 0.5,
    }
    x = real(2, 3, columns)
    node = ms("MatMulBnb4", "x w largest", "y", K=columns, N=rows, block_size=size, quant_type=kind)
    compare(model([node], {"x": x}, weights), {"x": x}, tmp_path)
