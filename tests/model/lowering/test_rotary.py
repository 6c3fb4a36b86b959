"""Rotations in one operation, against what they are lowered to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checking import compare, single
from numpy.typing import NDArray

from palrp_onnx.model.lowering import REFUSED
from palrp_onnx.model.open import Model

pytestmark = pytest.mark.quick

Array = NDArray[Any]
GENERATOR = np.random.default_rng(22)
BATCH, TOKENS, HEADS, HEAD = 2, 5, 4, 16
ANGLES = np.outer(np.arange(32), 0.5 ** np.arange(HEAD // 2))
CACHES = {"cos": np.cos(ANGLES).astype(np.float32), "sin": np.sin(ANGLES).astype(np.float32)}


def real(*shape: int) -> Array:
    return GENERATOR.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("rank", [3, 4])
def test_rotations(interleaved: int, offset: bool, rank: int, tmp_path: Path) -> None:
    x = real(BATCH, HEADS, TOKENS, HEAD)
    if rank == 3:
        x = x.transpose(0, 2, 1, 3).reshape(BATCH, TOKENS, -1)
    places = np.array([3]) if offset else np.array([[0, 1, 2, 3, 4], [9, 3, 3, 0, 20]])
    feeds = {"x": x, "p": places}
    model = single(
        "RotaryEmbedding",
        ["x", "p", "cos", "sin"],
        feeds,
        weights=CACHES,
        interleaved=interleaved,
    )
    compare(model, feeds, tmp_path)


def test_rotations_of_a_part(tmp_path: Path) -> None:
    feeds = {"x": real(BATCH, TOKENS, HEADS * 24), "p": np.array([[0, 1, 2, 3, 4]] * 2)}
    model = single(
        "RotaryEmbedding",
        ["x", "p", "cos", "sin"],
        feeds,
        weights=CACHES,
        num_heads=HEADS,
        rotary_embedding_dim=HEAD,
    )
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("rank", [3, 4])
def test_standard_rotations(interleaved: int, fed: bool, rank: int, tmp_path: Path) -> None:
    x = real(BATCH, HEADS, TOKENS, HEAD)
    if rank == 3:
        x = x.transpose(0, 2, 1, 3).reshape(BATCH, TOKENS, -1)
    places = np.array([[0, 1, 2, 3, 4], [9, 3, 3, 0, 20]])
    feeds, inputs = {"x": x}, ["x", "cos", "sin"]
    weights = CACHES if fed else {name: table[places] for name, table in CACHES.items()}
    if fed:
        feeds, inputs = {"x": x, "p": places}, [*inputs, "p"]
    model = single(
        "RotaryEmbedding",
        inputs,
        feeds,
        weights=weights,
        domain="",
        opset=23,
        interleaved=interleaved,
        num_heads=HEADS if rank == 3 else 0,
    )
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_standard_rotations_of_a_part(interleaved: int, tmp_path: Path) -> None:
    feeds = {"x": real(BATCH, TOKENS, HEADS * 24), "p": np.array([[0, 1, 2, 3, 4]] * 2)}
    model = single(
        "RotaryEmbedding",
        ["x", "cos", "sin", "p"],
        feeds,
        weights=CACHES,
        domain="",
        opset=23,
        interleaved=interleaved,
        num_heads=HEADS,
        rotary_embedding_dim=HEAD,
    )
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("attributes", [{"scale": 2.0}, {"is_packed_batching": 1}], ids=str)
def test_refused(attributes: dict[str, Any], tmp_path: Path) -> None:
    """The kernel leaves the scale out, whatever it is."""
    feeds = {"x": real(BATCH, HEADS, TOKENS, HEAD), "p": np.array([[0, 1, 2, 3, 4]] * 2)}
    model = single("RotaryEmbedding", ["x", "p", "cos", "sin"], feeds, weights=CACHES, **attributes)
    onnx.save(model, tmp_path / "model.onnx")
    (node,) = Model.open(tmp_path / "model.onnx").graph
    assert node.meta[REFUSED]
