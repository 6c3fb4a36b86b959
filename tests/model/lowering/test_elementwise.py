"""Activations, norms and products of ONNX Runtime against what they are lowered to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checking import compare, single

pytestmark = pytest.mark.quick

GENERATOR = np.random.default_rng(3)
X = GENERATOR.normal(size=(2, 5, 8)).astype(np.float32)
SKIP = GENERATOR.normal(size=(2, 5, 8)).astype(np.float32)
BIAS = GENERATOR.normal(size=8).astype(np.float32)
GAMMA, BETA = GENERATOR.normal(size=(2, 8)).astype(np.float32)

CASES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "gelu": ("Gelu", ["x"], {}),
    "bias gelu": ("BiasGelu", ["x", "b"], {}),
    "fast gelu": ("FastGelu", ["x"], {}),
    "fast gelu, bias": ("FastGelu", ["x", "b"], {}),
    "quick gelu": ("QuickGelu", ["x"], {"alpha": 1.5}),
    "layer norm": ("SkipLayerNormalization", ["x", "s", "g", "t"], {"epsilon": 1e-3}),
    "layer norm, bias": ("SkipLayerNormalization", ["x", "s", "g", "t", "b"], {}),
    "layer norm, no beta": ("SkipLayerNormalization", ["x", "s", "g"], {}),
    "rms norm": ("SkipSimplifiedLayerNormalization", ["x", "s", "g"], {"epsilon": 1e-3}),
    "rms norm, bias": ("SkipSimplifiedLayerNormalization", ["x", "s", "g", "b"], {}),
}
WEIGHTS = {"b": BIAS, "g": GAMMA, "t": BETA}


@pytest.mark.parametrize("opset", [14, 18, 21])
@pytest.mark.parametrize("name", CASES)
def test_elementwise(name: str, opset: int, tmp_path: Path) -> None:
    op_type, inputs, attributes = CASES[name]
    feeds = {k: v for k, v in {"x": X, "s": SKIP}.items() if k in inputs}
    weights = {k: v for k, v in WEIGHTS.items() if k in inputs}
    model = single(op_type, inputs, feeds, weights=weights, opset=opset, **attributes)
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("kind", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_the_sum_that_is_normalised(kind: str, tmp_path: Path) -> None:
    inputs = ["x", "s", "g", "t"] if kind == "SkipLayerNormalization" else ["x", "s", "g"]
    weights = {k: WEIGHTS[k] for k in inputs[2:]}
    feeds = {"x": X, "s": SKIP}
    model = single(kind, inputs, feeds, weights=weights, outputs=["y", "", "", "sum"])
    compare(model, feeds, tmp_path)


def test_rms_norm_in_the_standard_domain(tmp_path: Path) -> None:
    weights = {"g": GAMMA}
    model = single(
        "SimplifiedLayerNormalization", ["x", "g"], {"x": X}, weights=weights, domain="", axis=-1
    )
    compare(model, {"x": X}, tmp_path)


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("right", [0, 1])
def test_fused_matmul(left: int, right: int, tmp_path: Path) -> None:
    a = GENERATOR.normal(size=(2, 3, 4)).astype(np.float32)
    b = GENERATOR.normal(size=(2, 4, 5)).astype(np.float32)
    feeds = {
        "a": a.swapaxes(1, 2).copy() if left else a,
        "b": b.swapaxes(1, 2).copy() if right else b,
    }
    model = single("FusedMatMul", ["a", "b"], feeds, transA=left, transB=right, alpha=0.25)
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid", "LeakyRelu"])
def test_fused_gemm(activation: str, tmp_path: Path) -> None:
    feeds = {"x": X[0]}
    weights = {"w": GENERATOR.normal(size=(6, 8)).astype(np.float32), "c": BIAS[:6]}
    extra = {"activation_alpha": 0.3} if activation == "LeakyRelu" else {}
    model = single(
        "FusedGemm",
        ["x", "w", "c"],
        feeds,
        weights=weights,
        transB=1,
        alpha=0.5,
        activation=activation,
        **extra,
    )
    compare(model, feeds, tmp_path)
