"""Attention, in every form that runs in one operation, against what it is lowered to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.lowering.checking import compare, single

Array = NDArray[Any]
GENERATOR = np.random.default_rng(21)
BATCH, TOKENS, HEADS, WIDTH = 2, 5, 4, 24


def real(*shape: int) -> Array:
    return GENERATOR.normal(size=shape).astype(np.float32)


X = real(BATCH, TOKENS, WIDTH)
PACKED = {"w": real(WIDTH, 3 * WIDTH) / 4, "b": real(3 * WIDTH)}
#: Right and left padding, a hole, and a row of which nothing is left.
MASKS: dict[str, Array] = {
    "lengths": np.array([5, 3], np.int32),
    "right": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32),
    "left": np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], np.int32),
    "hole": np.array([[1, 1, 0, 1, 1], [1, 0, 1, 0, 1]], np.int32),
    "nothing": np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.int32),
    "pairs": GENERATOR.integers(0, 2, size=(BATCH, TOKENS, TOKENS)).astype(np.int32),
}


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("mask", [None, *MASKS])
def test_attention(mask: str | None, unidirectional: int, tmp_path: Path) -> None:
    feeds = {"x": X, **({"m": MASKS[mask]} if mask else {})}
    inputs = ["x", "w", "b", "m" if mask else ""]
    model = single(
        "Attention",
        inputs,
        feeds,
        weights=PACKED,
        num_heads=HEADS,
        unidirectional=unidirectional,
    )
    compare(model, feeds, tmp_path)


def test_attention_with_a_bias_and_a_scale(tmp_path: Path) -> None:
    feeds = {"x": X, "r": real(1, HEADS, TOKENS, TOKENS), "m": MASKS["right"]}
    model = single(
        "Attention",
        ["x", "w", "b", "m", "", "r"],
        feeds,
        weights=PACKED,
        num_heads=HEADS,
        scale=0.3,
        mask_filter_value=-50.0,
    )
    compare(model, feeds, tmp_path)


def test_attention_of_other_widths(tmp_path: Path) -> None:
    sizes = [16, 16, 32]
    weights = {"w": real(WIDTH, 64) / 4, "b": real(64)}
    model = single(
        "Attention",
        ["x", "w", "b"],
        {"x": X},
        weights=weights,
        num_heads=HEADS,
        qkv_hidden_sizes=sizes,
    )
    compare(model, {"x": X}, tmp_path)


def test_attention_with_a_cache(tmp_path: Path) -> None:
    """It is left empty; what is given out is what the next run would be given."""
    feeds = {"x": X, "p": real(2, BATCH, HEADS, 0, WIDTH // HEADS)}
    model = single(
        "Attention",
        ["x", "w", "b", "", "p"],
        feeds,
        weights=PACKED,
        outputs=["y", "present"],
        num_heads=HEADS,
        unidirectional=1,
    )
    compare(model, feeds, tmp_path)


QUERY, KEY, VALUE = (real(BATCH, n, WIDTH) for n in (TOKENS, 7, 7))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mask", [None, "lengths", "right"])
def test_multi_head(mask: str | None, bias: bool, tmp_path: Path) -> None:
    masks = {
        "lengths": np.array([7, 4], np.int32),
        "right": np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32),
    }
    feeds = {"q": QUERY, "k": KEY, "v": VALUE, **({"m": masks[mask]} if mask else {})}
    inputs = ["q", "k", "v", "b" if bias else "", "m" if mask else ""]
    weights = {"b": PACKED["b"]} if bias else {}
    model = single("MultiHeadAttention", inputs, feeds, weights=weights, num_heads=HEADS)
    compare(model, feeds, tmp_path)


def test_multi_head_over_ready_keys(tmp_path: Path) -> None:
    shape = (BATCH, HEADS, 7, WIDTH // HEADS)
    feeds = {"q": QUERY, "k": real(*shape), "v": real(*shape)}
    model = single("MultiHeadAttention", ["q", "k", "v"], feeds, num_heads=HEADS)
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("unidirectional", [0, 1])
def test_multi_head_with_a_bias_on_scores(unidirectional: int, tmp_path: Path) -> None:
    feeds = {"q": QUERY, "k": QUERY * 2, "v": QUERY - 1, "r": real(1, HEADS, TOKENS, TOKENS)}
    model = single(
        "MultiHeadAttention",
        ["q", "k", "v", "", "", "r"],
        feeds,
        num_heads=HEADS,
        unidirectional=unidirectional,
    )
    compare(model, feeds, tmp_path)


GROUPS, HEAD = 2, 16
ANGLES = np.outer(np.arange(32), 0.5 ** np.arange(HEAD // 2))
CACHES = {"cos": np.cos(ANGLES).astype(np.float32), "sin": np.sin(ANGLES).astype(np.float32)}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"rotary_interleaved": 1},
        {"local_window_size": 2},
        {"softcap": 5.0},
        {"smooth_softmax": 1},
        {"scale": 0.2},
    ],
    ids=str,
)
def test_grouped(packed: bool, rotary: int, more: dict[str, Any], tmp_path: Path) -> None:
    q, k, v = (real(BATCH, TOKENS, n * HEAD) for n in (HEADS, GROUPS, GROUPS))
    given = {"q": np.concatenate([q, k, v], -1)} if packed else {"q": q, "k": k, "v": v}
    past = np.zeros((BATCH, GROUPS, 0, HEAD), np.float32)
    feeds = {
        **given,
        "pk": past,
        "pv": past,
        "len": np.array([TOKENS - 1] * BATCH, np.int32),
        "total": np.array(TOKENS, np.int32),
    }
    inputs = ["q", *([""] * 2 if packed else "kv"), "pk", "pv", "len", "total"]
    weights = CACHES if rotary else {}
    model = single(
        "GroupQueryAttention",
        [*inputs, *weights],
        feeds,
        weights=weights,
        outputs=["y", "present_k", "present_v"],
        num_heads=HEADS,
        kv_num_heads=GROUPS,
        do_rotary=rotary,
        **more,
    )
    compare(model, feeds, tmp_path)


def test_grouped_with_a_sink_and_padding(tmp_path: Path) -> None:
    past = np.zeros((BATCH, GROUPS, 0, HEAD), np.float32)
    q, k, v = (real(BATCH, TOKENS, n * HEAD) for n in (HEADS, GROUPS, GROUPS))
    feeds = {
        **dict(zip("qkv", (q, k, v), strict=True)),
        "pk": past,
        "pv": past,
        "len": np.array([TOKENS - 1, TOKENS - 3], np.int32),
        "total": np.array(TOKENS, np.int32),
    }
    names = ["q", "k", "v", "pk", "pv", "len", "total", "cos", "sin", "", "", "sink"]
    model = single(
        "GroupQueryAttention",
        names,
        feeds,
        weights={**CACHES, "sink": real(HEADS)},
        outputs=["y", "present_k", "present_v"],
        num_heads=HEADS,
        kv_num_heads=GROUPS,
        do_rotary=1,
    )
    compare(model, feeds, tmp_path, names=["y"], rows=[slice(0, 5), slice(0, 3)])


STANDARD = {
    "plain": ([], {}),
    "causal": ([], {"is_causal": 1}),
    "scale": ([], {"scale": 0.2}),
    "softcap": ([], {"softcap": 3.0}),
    "real mask": (["a"], {}),
    "truth mask": (["t"], {}),
    "both": (["a"], {"is_causal": 1}),
}
TERMS = {
    "a": real(TOKENS, TOKENS),
    "t": np.tril(np.ones((BATCH, 1, TOKENS, TOKENS), bool)),
}


@pytest.mark.parametrize("name", STANDARD)
@pytest.mark.parametrize("groups", [HEADS, GROUPS])
@pytest.mark.parametrize("rank", [3, 4])
def test_standard(name: str, groups: int, rank: int, tmp_path: Path) -> None:
    terms, attributes = STANDARD[name]
    q, k, v = (real(BATCH, n, TOKENS, HEAD) for n in (HEADS, groups, groups))
    if rank == 3:
        q, k, v = (x.transpose(0, 2, 1, 3).reshape(BATCH, TOKENS, -1) for x in (q, k, v))
        attributes = {**attributes, "q_num_heads": HEADS, "kv_num_heads": groups}
    feeds = {"q": q, "k": k, "v": v, **{t: TERMS[t] for t in terms}}
    model = single("Attention", ["q", "k", "v", *terms], feeds, domain="", opset=23, **attributes)
    if rank == 4:  # the number of heads is a fixed axis wherever files are written
        for value, count in zip(model.graph.input, (HEADS, groups, groups), strict=False):
            value.type.tensor_type.shape.dim[1].dim_value = count
    compare(model, feeds, tmp_path)


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
def test_standard_rotations(interleaved: int, fed: bool, tmp_path: Path) -> None:
    x = real(BATCH, HEADS, TOKENS, HEAD)
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
    )
    compare(model, feeds, tmp_path)


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
        feeds["mask"] = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], np.int32)
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
