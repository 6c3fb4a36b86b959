"""Tables that are looked up in one operation, against what they are lowered to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checking import compare, single
from numpy.typing import NDArray

from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import RuntimeForward

Array = NDArray[Any]
GENERATOR = np.random.default_rng(23)


def real(*shape: int) -> Array:
    return GENERATOR.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_embeddings(segments: bool, fed: bool, masked: bool, tmp_path: Path) -> None:
    feeds: dict[str, Array] = {"ids": GENERATOR.integers(0, 9, (2, 5)).astype(np.int32)}
    weights = {"words": real(9, 6), "places": real(8, 6), "g": real(6), "t": real(6)}
    inputs = ["ids", "", "words", "places", "", "g", "t", "", ""]
    if segments:
        feeds["kinds"] = np.array([[0, 0, 1, 1, 1]] * 2, np.int32)
        weights["table"] = real(2, 6)
        inputs[1], inputs[4] = "kinds", "table"
    if masked:
        feeds["mask"] = np.array([[1, 1, 1, 1, 1], [0, 2, 1, -1, 0]], np.int32)
        inputs[7] = "mask"
    if fed:
        feeds["at"] = np.array([[0, 1, 2, 3, 4], [7, 0, 1, 2, 3]], np.int32)
        inputs[8] = "at"
    model = single(
        "EmbedLayerNormalization",
        inputs,
        feeds,
        weights=weights,
        outputs=["y", "lengths", "sum"],
        epsilon=1e-5,
    )
    model.graph.output[1].type.tensor_type.elem_type = 6  # int32
    compare(model, feeds, tmp_path)


def computed(model: onnx.ModelProto, feeds: dict[str, Array], folder: Path) -> Array:
    """What the lowered graph makes of an operation for which the processor has no kernel."""
    onnx.save(model, folder / "model.onnx")
    lowered = Model.open(folder / "model.onnx")
    assert lowered.lowered, [n.meta for n in lowered.graph]
    return RuntimeForward(lowered, ["y"])(feeds)["y"]


def bucket(distance: int, count: int, furthest: int, both_ways: bool) -> int:
    """Where T5 puts a distance, key minus query."""
    start = 0
    if both_ways:
        count //= 2
        start = count if distance > 0 else 0
    distance = abs(distance)
    exact = count // 2
    if distance < exact:
        return start + distance
    share = np.log(distance / exact) / np.log(furthest / exact)
    return start + min(exact + int(share * (count - exact)), count - 1)


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("tokens", [1, 4, 50])
def test_distances(both_ways: bool, tokens: int, tmp_path: Path) -> None:
    """The table is stored head by head, although its shape is [buckets, heads]."""
    count, heads, furthest = 12, 3, 20
    table, length = real(count, heads), np.array([tokens], np.int64)
    feeds = {"query": length, "key": length}
    model = single(
        "RelativePositionBias",
        ["table", "query", "key"],
        feeds,
        weights={"table": table},
        max_distance=furthest,
        is_bidirectional=int(both_ways),
    )
    found = computed(model, feeds, tmp_path)
    assert found.shape == (1, heads, tokens, tokens)
    rows = table.reshape(heads, count)
    for i in range(tokens):
        for j in range(tokens):
            place = bucket(j - i, count, furthest, both_ways)
            np.testing.assert_array_equal(found[0, :, i, j], rows[:, place])


def test_gated_distances(tmp_path: Path) -> None:
    batch, tokens, heads, head, inner = 2, 5, 3, 4, 8
    query, relative = real(batch, tokens, heads * head), real(1, heads, tokens, tokens)
    weights = {
        "qb": real(heads * head),
        "w": real(head, inner),
        "b": real(inner),
        "a": real(1, heads, 1, 1),
    }
    feeds = {"q": query, "r": relative}
    names = ["q", "qb", "r", "w", "b", "a"]
    model = single("GatedRelativePositionBias", names, feeds, weights=weights, num_heads=heads)
    q = (query + weights["qb"]).reshape(batch, tokens, heads, head).transpose(0, 2, 1, 3)
    scores = (q @ weights["w"] + weights["b"]).reshape(batch, heads, tokens, 2, inner // 2)
    gates = 1 / (1 + np.exp(-scores.sum(-1, keepdims=True)))
    gate = gates[..., 0, :] * (gates[..., 1, :] * weights["a"] - 1) + 2
    np.testing.assert_allclose(computed(model, feeds, tmp_path), gate * relative, rtol=1e-5)
