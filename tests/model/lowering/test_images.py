"""Layers of images that ONNX Runtime fuses or computes in an operation of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from building import opened, proto, run
from checking import Array, compare, model, ms, node, saved_by_a_session, single
from onnxruntime import GraphOptimizationLevel

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

GENERATOR = np.random.default_rng(5)
IMAGE = GENERATOR.normal(size=(2, 4, 6, 5)).astype(np.float32)
WEIGHTS = {
    "w": GENERATOR.normal(size=(4, 4, 3, 3)).astype(np.float32) / 4,
    "b": GENERATOR.normal(size=4).astype(np.float32),
}


@pytest.mark.parametrize(
    ("activation", "numbers"),
    [
        ("Relu", []),
        ("Tanh", []),
        ("Sigmoid", []),
        ("LeakyRelu", [0.2]),
        ("Clip", [-0.5, 0.75]),
        ("HardSigmoid", [0.25, 0.4]),
    ],
)
@pytest.mark.parametrize("opset", [9, 18])
def test_fused_convolution(
    activation: str, numbers: list[float], opset: int, tmp_path: Path
) -> None:
    """With the sum that follows it."""
    more = {"activation_params": numbers} if numbers else {}
    fused = ms("FusedConv", "x w b x", "y", activation=activation, pads=[1, 1, 1, 1], **more)
    compare(model([fused], {"x": IMAGE}, WEIGHTS, opset), {"x": IMAGE}, tmp_path)


def test_as_a_session_fuses_it(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("Add", "c x", "s"),
        node("Relu", "s", "r"),
        node("Conv", "r w", "d", strides=[2, 1]),
        node("Clip", "d low high", "y"),
    ]
    bounds = {"low": np.float32(0.0), "high": np.float32(6.0)}
    level = GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    saved = saved_by_a_session(nodes, IMAGE, {**WEIGHTS, **bounds}, tmp_path, level)
    assert [n.op_type for n in saved.graph.node] == ["Conv", "Add", "Relu", "FusedConv"]
    compare(saved, {"x": IMAGE}, tmp_path)


def test_its_explanation_is_that_of_the_plain_graph(tmp_path: Path) -> None:
    body = "c = Conv<pads=[1, 1, 1, 1]>(x, w, b)  y = LeakyRelu<alpha=0.2>(c)"
    plain = proto(body, {"x": IMAGE}, WEIGHTS)
    more = {"activation": "LeakyRelu", "activation_params": [0.2], "pads": [1, 1, 1, 1]}
    fused = model([ms("FusedConv", "x w b", "y", **more)], {"x": IMAGE}, WEIGHTS, rows=True)
    sample = Sample("x", "tensors", {"x": IMAGE}, InputFacts(kind="tensors"))
    for engine in ("numpy", "onnxruntime"):
        one, other = (
            Explainer(opened(each), engine=engine).explain(sample, "1,2,3")
            for each in (plain, fused)
        )
        for left, right in zip(one, other, strict=True):
            for name, array in left.tensors.items():
                np.testing.assert_allclose(right.tensors[name], array, atol=1e-6)


@pytest.mark.parametrize("last", [0, 1])
def test_quantised_convolutions_with_channels_last(last: int, tmp_path: Path) -> None:
    """As a session saves them for this kind of machine."""
    weights = {
        "s": np.float32(0.05),
        "z": np.uint8(128),
        "k": GENERATOR.integers(-60, 60, (3, 4, 3, 3)).astype(np.int8),
        "scales": np.array([0.01, 0.02, 0.005], np.float32),
        "zeros": np.zeros(3, np.int8),
    }
    x = IMAGE.transpose(0, 2, 3, 1) if last else IMAGE
    more = {"channels_last": last}
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        ms("QLinearConv", "q s z k scales zeros s z", "c", pads=[1, 1, 1, 1], **more),
        ms("QLinearGlobalAveragePool", "c s z s z", "g", **more),
        node("DequantizeLinear", "g s z", "y"),
    ]
    compare(model(nodes, {"x": x}, weights), {"x": x}, tmp_path)


def test_maxima_of_quantised_images(tmp_path: Path) -> None:
    """Channels last, as a session writes them between quantised convolutions."""
    grid = {"s": np.float32(0.05), "z": np.uint8(128)}
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        ms("NhwcMaxPool", "q", "m", kernel_shape=[2, 2], strides=[2, 1], pads=[1, 0, 0, 1]),
        node("DequantizeLinear", "m s z", "y"),
    ]
    compare(model(nodes, {"x": IMAGE}, grid), {"x": IMAGE}, tmp_path)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_response_of_neighbouring_channels(size: int, tmp_path: Path) -> None:
    """The runtime has odd numbers of channels alone."""
    more = {"alpha": 0.5, "beta": 0.6, "bias": 1.5}
    compare(
        single("LRN", ["x"], {"x": IMAGE}, domain="", size=size, **more), {"x": IMAGE}, tmp_path
    )


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("op", ["LpPool", "GlobalLpPool"])
def test_norms_of_places(op: str, p: int, tmp_path: Path) -> None:
    windows = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    more = windows if op == "LpPool" else {}
    compare(single(op, ["x"], {"x": IMAGE}, domain="", p=p, **more), {"x": IMAGE}, tmp_path)


def response(x: Array, size: int) -> Array:
    """1 / (k + α/n Σ x²)^β, channel by channel."""
    result = np.empty_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
        result[:, c] = (1.5 + 0.5 / size * (near**2).sum(axis=1)) ** -0.6
    return result


def windows(x: Array, p: int) -> Array:
    """Σ |x|^(p − 1) sign(x) / y^(p − 1) over the windows that an entry is in, without overlap."""
    result = np.empty_like(x)
    for i, j in np.ndindex(3, 1):
        place = np.s_[:, :, 2 * i : 2 * i + 2, 5 * j : 5 * j + 5]
        norm = (np.abs(x[place]) ** p).sum(axis=(2, 3), keepdims=True) ** (1 / p)
        result[place] = np.abs(x[place]) ** (p - 1) * np.sign(x[place]) / norm ** (p - 1)
    return result


@pytest.mark.parametrize("size", [1, 3, 4])
def test_denominator_of_the_response_is_a_constant(size: int) -> None:
    x = IMAGE.astype(np.float64)
    found = run(f"y = LRN<size={size}, alpha=0.5, beta=0.6, bias=1.5>(x)", IMAGE)
    np.testing.assert_allclose(found.multiplier, found.seed * response(x, size), rtol=1e-6)
    assert found.residual < 1e-12


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms_share_by_powers(p: int) -> None:
    """The identity rule: Σ |x|^p is a sum of x ∘ |x|^p / x, and its root is one factor."""
    found = run(f"y = LpPool<p={p}, kernel_shape=[2, 5], strides=[2, 1]>(x)", IMAGE)
    sent = np.repeat(found.seed, 2, axis=2) * windows(IMAGE.astype(np.float64), p)
    np.testing.assert_allclose(found.multiplier, sent, rtol=1e-5)
    assert found.residual < 1e-12
    total = run(f"y = GlobalLpPool<p={p}>(x)", IMAGE)
    powers = np.abs(IMAGE.astype(np.float64)) ** (p - 1) * np.sign(IMAGE)
    np.testing.assert_allclose(
        total.multiplier, total.seed * powers / total.y ** (p - 1), rtol=1e-5
    )
    assert total.residual < 1e-12


CONTRIB: dict[str, tuple[str, dict[str, Array]]] = {
    "ExpandDims": ("x axis", {"axis": np.int32(-1)}),
    "GatherND": ("x index", {"index": np.array([[0, 1], [1, 3]])}),
    "Pad": ("x pads", {"pads": np.array([0, 0, 1, 0, 0, 0, 2, 1])}),
    "Trilu": ("x", {}),
}


@pytest.mark.parametrize("op", CONTRIB)
def test_what_the_standard_has_too(op: str, tmp_path: Path) -> None:
    inputs, weights = CONTRIB[op]
    compare(model([ms(op, inputs, "y")], {"x": IMAGE}, weights), {"x": IMAGE}, tmp_path)
