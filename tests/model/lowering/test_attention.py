"""Attention, in every form that runs in one operation, against what it is lowered to."""

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
from palrp_onnx.runtime.forward import RuntimeForward

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
    "no length": np.array([5, 0], np.int32),
    "ends and starts": np.array([5, 4, 0, 2], np.int32),
    "packed lengths": np.array([5, 3, 0, 5, 10, 0, 5, 10], np.int32),
    "right": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32),
    "left": np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], np.int32),
    "hole": np.array([[1, 1, 0, 1, 1], [1, 0, 1, 0, 1]], np.int32),
    "nothing": np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.int32),
    "pairs": GENERATOR.integers(0, 2, size=(BATCH, TOKENS, TOKENS)).astype(np.int32),
}


LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize("low", [-10000.0, LOWEST])
@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("mask", [None, *MASKS])
def test_attention(mask: str | None, unidirectional: int, low: float, tmp_path: Path) -> None:
    feeds = {"x": X, **({"m": MASKS[mask]} if mask else {})}
    inputs = ["x", "w", "b", "m" if mask else ""]
    model = single(
        "Attention",
        inputs,
        feeds,
        weights=PACKED,
        num_heads=HEADS,
        unidirectional=unidirectional,
        mask_filter_value=low,
    )
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("mask", [[3], [5, 2], [3, 0, 5, 0, 5]], ids=str)
def test_attention_over_one_sample(mask: list[int], tmp_path: Path) -> None:
    """Lengths, ends with starts, and lengths with those of packed tokens are distinguished."""
    feeds = {"x": X[:1], "m": np.array(mask, np.int32)}
    model = single("Attention", ["x", "w", "b", "m"], feeds, weights=PACKED, num_heads=HEADS)
    compare(model, feeds, tmp_path)


def formula(q: Array, k: Array, v: Array, keep: Array | None = None) -> Array:
    """Heads [B, N, T, H] that attend where ``keep`` is true: [B, T, N·H]."""
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores = scores if keep is None else np.where(keep, scores, scores - 10000)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    output: Array = weights / weights.sum(-1, keepdims=True) @ v
    return output.transpose(0, 2, 1, 3).reshape(output.shape[0], output.shape[2], -1)


def heads_of(x: Array) -> Array:
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)


def computed(model: onnx.ModelProto, feeds: dict[str, Array], folder: Path) -> Array:
    """What the lowered graph makes of an operation for which the processor has no kernel."""
    onnx.save(model, folder / "model.onnx")
    lowered = Model.open(folder / "model.onnx")
    assert lowered.lowered, [n.meta for n in lowered.graph]
    return RuntimeForward(lowered, ["y"])(feeds)["y"]


def refused(model: onnx.ModelProto, folder: Path) -> str:
    """Why the only node of a model stays."""
    onnx.save(model, folder / "model.onnx")
    (node,) = Model.open(folder / "model.onnx").graph
    return str(node.meta[REFUSED])


@pytest.mark.parametrize("earlier", [0, 3])
def test_attention_with_a_mask_of_four_axes(earlier: int, tmp_path: Path) -> None:
    """A mask of the longest text is cut to the rows and columns of the tokens."""
    mask = GENERATOR.integers(0, 2, size=(BATCH, 1, 12, 12)).astype(np.int32)
    mask[..., 0] = 1
    past = real(2, BATCH, HEADS, earlier, WIDTH // HEADS)
    feeds = {"x": X, "m": mask}
    model = single(
        "Attention",
        ["x", "w", "b", "m", "p"],
        feeds,
        weights={**PACKED, "p": past},
        num_heads=HEADS,
    )
    q, k, v = (heads_of(x) for x in np.split(X @ PACKED["w"] + PACKED["b"], 3, -1))
    k, v = (np.concatenate(each, 2) for each in ((past[0], k), (past[1], v)))
    keep = mask[:, :, earlier : earlier + TOKENS, : earlier + TOKENS] > 0
    found = computed(model, feeds, tmp_path)
    np.testing.assert_allclose(found, formula(q, k, v, keep), rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("mask", [None, "lengths", "ends and starts", "right", "pairs"])
def test_attention_after_stored_tokens(
    mask: str | None, unidirectional: int, tmp_path: Path
) -> None:
    masks = {
        "lengths": np.array([8, 6], np.int32),
        "ends and starts": np.array([8, 6, 0, 1], np.int32),
        "right": np.array([[1] * 8, [0] * 2 + [1] * 4 + [0] * 2], np.int32),
        "pairs": GENERATOR.integers(0, 2, size=(BATCH, TOKENS, 8)).astype(np.int32),
    }
    feeds = {"x": X, **({"m": masks[mask]} if mask else {})}
    model = single(
        "Attention",
        ["x", "w", "b", "m" if mask else "", "p"],
        feeds,
        weights={**PACKED, "p": real(2, BATCH, HEADS, 3, WIDTH // HEADS)},
        outputs=["y", "present"],
        num_heads=HEADS,
        unidirectional=unidirectional,
    )
    compare(model, feeds, tmp_path)


QUERY, KEY, VALUE = (real(BATCH, n, WIDTH) for n in (TOKENS, 7, 7))


KEY_MASKS = {
    "lengths": np.array([7, 4], np.int32),
    "packed lengths": np.array([7, 4, 0, 5, 10, 0, 7, 14], np.int32),
    "right": np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32),
    "nothing": np.array([[1] * 7, [0] * 7], np.int32),
    "pairs": GENERATOR.integers(0, 2, size=(BATCH, TOKENS, 7)).astype(np.int32),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mask", [None, *KEY_MASKS])
def test_multi_head(mask: str | None, bias: bool, tmp_path: Path) -> None:
    feeds = {"q": QUERY, "k": KEY, "v": VALUE, **({"m": KEY_MASKS[mask]} if mask else {})}
    inputs = ["q", "k", "v", "b" if bias else "", "m" if mask else ""]
    weights = {"b": PACKED["b"]} if bias else {}
    model = single("MultiHeadAttention", inputs, feeds, weights=weights, num_heads=HEADS)
    compare(model, feeds, tmp_path)


def test_multi_head_of_other_widths(tmp_path: Path) -> None:
    feeds = {"q": QUERY, "k": KEY, "v": real(BATCH, 7, 32)}
    weights = {"b": real(2 * WIDTH + 32)}
    names = ["q", "k", "v", "b"]
    model = single("MultiHeadAttention", names, feeds, weights=weights, num_heads=HEADS)
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("given", [[], ["b"], ["", "m"]], ids=str)
def test_multi_head_over_ready_keys(given: list[str], tmp_path: Path) -> None:
    shape = (BATCH, HEADS, 7, WIDTH // HEADS)
    feeds = {"q": QUERY, "k": real(*shape), "v": real(*shape)}
    feeds |= {"m": KEY_MASKS["right"]} if "m" in given else {}
    weights = {"b": PACKED["b"]} if "b" in given else {}
    names = ["q", "k", "v", *given]
    model = single("MultiHeadAttention", names, feeds, weights=weights, num_heads=HEADS)
    compare(model, feeds, tmp_path)


def test_multi_head_whose_scores_are_read(tmp_path: Path) -> None:
    feeds = {"q": QUERY, "k": KEY, "v": VALUE, "m": KEY_MASKS["right"]}
    model = single(
        "MultiHeadAttention",
        ["q", "k", "v", "", "m"],
        feeds,
        outputs=["y", "", "", "scores"],
        num_heads=HEADS,
        mask_filter_value=-50.0,
    )
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("earlier", [0, 3])
def test_multi_head_with_a_cache(
    earlier: int, unidirectional: int, bias: bool, tmp_path: Path
) -> None:
    """A cache that is an input is left empty; a stored one comes before the keys."""
    caches = {name: real(BATCH, HEADS, earlier, WIDTH // HEADS) for name in ("pk", "pv")}
    mask = np.array([[1] * (earlier + TOKENS), [0] + [1] * (earlier + TOKENS - 1)], np.int32)
    feeds = {"q": QUERY, "k": QUERY * 2, "v": QUERY - 1, "m": mask, **({} if earlier else caches)}
    weights = {**(caches if earlier else {}), **({"b": PACKED["b"]} if bias else {})}
    model = single(
        "MultiHeadAttention",
        ["q", "k", "v", "b" if bias else "", "m", "", "pk", "pv"],
        feeds,
        weights=weights,
        outputs=["y", "present_k", "present_v"],
        num_heads=HEADS,
        unidirectional=unidirectional,
    )
    compare(model, feeds, tmp_path)


def test_multi_head_packed(tmp_path: Path) -> None:
    packed = real(BATCH, TOKENS, HEADS, 3, WIDTH // HEADS)
    q, k, v = (packed[..., each, :].transpose(0, 2, 1, 3) for each in range(3))
    model = single("MultiHeadAttention", ["q"], {"q": packed}, num_heads=HEADS)
    found = computed(model, {"q": packed}, tmp_path)
    np.testing.assert_allclose(found, formula(q, k, v), rtol=1e-4, atol=1e-5)


def test_multi_head_with_packed_keys(tmp_path: Path) -> None:
    packed = real(BATCH, 7, HEADS, 2, WIDTH // HEADS)
    k, v = (packed[..., each, :].transpose(0, 2, 1, 3) for each in range(2))
    feeds = {"q": QUERY, "k": packed, "m": KEY_MASKS["right"]}
    model = single("MultiHeadAttention", ["q", "k", "", "", "m"], feeds, num_heads=HEADS)
    keep = KEY_MASKS["right"][:, None, None] > 0
    found = computed(model, feeds, tmp_path)
    np.testing.assert_allclose(found, formula(heads_of(QUERY), k, v, keep), rtol=1e-4, atol=1e-5)


def test_multi_head_packed_with_a_bias_is_refused(tmp_path: Path) -> None:
    feeds = {"q": QUERY, "k": real(BATCH, 7, HEADS, 2, WIDTH // HEADS)}
    weights = {"b": PACKED["b"]}
    names = ["q", "k", "", "b"]
    model = single("MultiHeadAttention", names, feeds, weights=weights, num_heads=HEADS)
    assert "bias" in refused(model, tmp_path)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_decoder_over_ready_keys(mask: bool, bias: bool, tmp_path: Path) -> None:
    shape = (BATCH, HEADS, 7, WIDTH // HEADS)
    feeds = {"q": QUERY[:, :1], "k": real(*shape), "v": real(*shape)}
    feeds |= {"m": KEY_MASKS["right"]} if mask else {}
    names = ["q", "k", "v", "m" if mask else "", *[""] * 6, *(["b"] if bias else [])]
    model = single(
        "DecoderMaskedMultiHeadAttention",
        names,
        feeds,
        weights={"b": PACKED["b"]} if bias else {},
        outputs=["y", "", "", "scores"],
        num_heads=HEADS,
        output_qk=1,
        mask_filter_value=-50.0,
    )
    compare(model, feeds, tmp_path)


def test_decoder_over_its_own_cache_is_refused(tmp_path: Path) -> None:
    feeds = dict.fromkeys("qkv", QUERY[:, :1])
    model = single("DecoderMaskedMultiHeadAttention", [*"qkv"], feeds, num_heads=HEADS)
    assert "cache" in refused(model, tmp_path)


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


def grouped(
    more: dict[str, Array], inputs: list[str], lengths: list[int], **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A node with an empty cache; ``inputs`` come after the total length."""
    past = np.zeros((BATCH, GROUPS, 0, HEAD), np.float32)
    q, k, v = (real(BATCH, TOKENS, n * HEAD) for n in (HEADS, GROUPS, GROUPS))
    feeds = {
        **dict(zip("qkv", (q, k, v), strict=True)),
        "pk": past,
        "pv": past,
        "len": np.array(lengths, np.int32) - 1,
        "total": np.array(TOKENS, np.int32),
        **{name: array for name, array in more.items() if name not in WEIGHTS},
    }
    model = single(
        "GroupQueryAttention",
        ["q", "k", "v", "pk", "pv", "len", "total", *inputs],
        feeds,
        weights={name: array for name, array in more.items() if name in WEIGHTS},
        outputs=["y", "present_k", "present_v"],
        num_heads=HEADS,
        kv_num_heads=GROUPS,
        **attributes,
    )
    return model, feeds


WEIGHTS = ("cos", "sin", "sink")


@pytest.mark.parametrize(
    "attributes",
    [{}, {"local_window_size": 1}, {"smooth_softmax": 1}, {"causal": 0}],
    ids=str,
)
def test_grouped_with_padding(attributes: dict[str, Any], tmp_path: Path) -> None:
    """Keys end where a sample does, for queries in its padding too."""
    model, feeds = grouped({}, [], [TOKENS, TOKENS - 2], **attributes)
    compare(model, feeds, tmp_path)


def test_grouped_with_a_sink_and_padding(tmp_path: Path) -> None:
    names = ["cos", "sin", "", "", "sink"]
    more = {**CACHES, "sink": real(HEADS)}
    model, feeds = grouped(more, names, [TOKENS, TOKENS - 2], do_rotary=1)
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("heads", [1, HEADS])
@pytest.mark.parametrize("attributes", [{}, {"softcap": 2.0}, {"local_window_size": 2}], ids=str)
def test_grouped_with_a_bias_on_scores(
    heads: int, attributes: dict[str, Any], tmp_path: Path
) -> None:
    names = ["", "", "", "r"]
    model, feeds = grouped({"r": real(BATCH, heads, TOKENS, TOKENS)}, names, [5, 5], **attributes)
    compare(model, feeds, tmp_path)


def test_grouped_with_positions(tmp_path: Path) -> None:
    """Only the very first is read: where the prompts of all samples begin."""
    more = {**CACHES, "at": np.array([[3, 4, 9, 6, 7], [2, 0, 1, 2, 3]])}
    model, feeds = grouped(more, ["cos", "sin", "at"], [5, 5], do_rotary=1)
    compare(model, feeds, tmp_path)


def test_grouped_with_a_cache_of_fixed_length_is_refused(tmp_path: Path) -> None:
    model, _ = grouped({}, [], [5, 5])
    for value in model.graph.input[3:5]:
        value.type.tensor_type.shape.dim[2].dim_value = 8
    assert "fixed" in refused(model, tmp_path)


STANDARD: dict[str, tuple[list[str], dict[str, Any]]] = {
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


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_standard_scores(mode: int, softcap: float, tmp_path: Path) -> None:
    q, k, v = (real(BATCH, TOKENS, n * HEAD) for n in (HEADS, GROUPS, GROUPS))
    feeds = {"q": q, "k": k, "v": v, "a": TERMS["a"]}
    model = single(
        "Attention",
        ["q", "k", "v", "a"],
        feeds,
        outputs=["y", "", "", "scores"],
        domain="",
        opset=24,
        q_num_heads=HEADS,
        kv_num_heads=GROUPS,
        softcap=softcap,
        qk_matmul_output_mode=mode,
    )
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_standard_where_nothing_is_left(kind: type, tmp_path: Path) -> None:
    """A query that may attend to no key gets zeros."""
    keep = np.ones((BATCH, 1, TOKENS, TOKENS), bool)
    keep[1, 0, 2] = False
    mask = keep if kind is bool else np.where(keep, 0, -np.inf).astype(np.float32)
    q, k, v = (real(BATCH, TOKENS, HEADS * HEAD) for _ in range(3))
    feeds = {"q": q, "k": k, "v": v, "m": mask}
    model = single(
        "Attention",
        ["q", "k", "v", "m"],
        feeds,
        domain="",
        opset=23,
        q_num_heads=HEADS,
        kv_num_heads=HEADS,
    )
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("earlier", [0, 3])
def test_standard_with_a_cache(earlier: int, causal: int, tmp_path: Path) -> None:
    caches = {name: real(BATCH, GROUPS, earlier, HEAD) for name in ("pk", "pv")}
    q, k, v = (real(BATCH, TOKENS, n * HEAD) for n in (HEADS, GROUPS, GROUPS))
    feeds = {"q": q, "k": k, "v": v, **({} if earlier else caches)}
    model = single(
        "Attention",
        ["q", "k", "v", "", "pk", "pv"],
        feeds,
        weights=caches if earlier else {},
        outputs=["y", "present_k", "present_v"],
        domain="",
        opset=23,
        is_causal=causal,
        q_num_heads=HEADS,
        kv_num_heads=GROUPS,
    )
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("keys", [[5, 5, 3], [5, 5, 0], [9, 9, 6], [9, 3, 9]], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_standard_with_key_lengths(
    keys: list[int], causal: int, masked: bool, tmp_path: Path
) -> None:
    """Causal queries are the last tokens before the padding."""
    length, *counts = keys
    q, k, v = (real(BATCH, n, HEADS * HEAD) for n in (TOKENS, length, length))
    feeds = {"q": q, "k": k, "v": v, "n": np.array(counts, np.int64)}
    feeds |= {"a": real(TOKENS, length)} if masked else {}
    model = single(
        "Attention",
        ["q", "k", "v", "a" if masked else "", "", "", "n"],
        feeds,
        domain="",
        opset=24,
        is_causal=causal,
        q_num_heads=HEADS,
        kv_num_heads=HEADS,
    )
    compare(model, feeds, tmp_path)


@pytest.mark.parametrize("left", [-1, 0, 2])
@pytest.mark.parametrize("right", [-1, 0, 1])
def test_a_window_around_every_query(left: int, right: int, tmp_path: Path) -> None:
    """Opset 25; the runtime has no kernel for it yet."""
    generator = np.random.default_rng(0)
    feeds = {n: generator.normal(size=(2, 5, 8)).astype(np.float32) for n in "qkv"}
    model = single(
        "Attention",
        list("qkv"),
        feeds,
        domain="",
        opset=23,
        q_num_heads=2,
        kv_num_heads=2,
        left_window_size=left,
        right_window_size=right,
    )
    onnx.save(model, tmp_path / "model.onnx")
    found = RuntimeForward(Model.open(tmp_path / "model.onnx"), ["y"])(feeds)["y"]
    q, k, v = (feeds[n].reshape(2, 5, 2, 4).transpose(0, 2, 1, 3) for n in "qkv")
    scores = q @ k.transpose(0, 1, 3, 2) / 2.0
    ahead = np.arange(5)[None] - np.arange(5)[:, None]
    seen = (ahead >= -left if left >= 0 else True) & (ahead <= right if right >= 0 else True)
    powers = np.exp(scores) * seen
    expected = powers / powers.sum(axis=-1, keepdims=True) @ v
    expected = expected.transpose(0, 2, 1, 3).reshape(2, 5, 8)
    np.testing.assert_allclose(found, expected, atol=1e-5)
