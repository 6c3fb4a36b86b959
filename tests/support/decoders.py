"""One little decoder, with no cache and with caches of several kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers  # type: ignore[import-untyped]

GENERATOR = np.random.default_rng(9)
WORDS, WIDTH = 20, 8
WEIGHTS: dict[str, Any] = {
    name: GENERATOR.normal(size=shape).astype(np.float32)
    for name, shape in {
        "table": (WORDS, WIDTH),
        "places": (16, WIDTH),
        "wq": (WIDTH, WIDTH),
        "wk": (WIDTH, WIDTH),
        "wv": (WIDTH, WIDTH),
        "head": (WIDTH, WORDS),
    }.items()
} | {
    "one": np.array(1),
    "zero": np.array(0),
    "low": np.float32(-1e9),
    "nothing": np.float32(0),
    "heads": np.array([0, 0, 2, WIDTH // 2]),
    "merged": np.array([0, 0, WIDTH]),
}
IDS = {"ids": GENERATOR.integers(0, WORDS, size=(2, 5))}
#: Positions from a count of earlier tokens, one layer of causal attention with two heads.
BODY = """
    size = Shape(ids)
    own = Gather(size, one)
    total = Add(earlier, own)
    counted = Range(earlier, total, one)
    p = Gather(places, counted)
    e = Gather(table, ids)
    x = Add(e, p)
    q0 = MatMul(x, wq)
    k0 = MatMul(x, wk)
    v0 = MatMul(x, wv)
    q1 = Reshape(q0, heads)
    k1 = Reshape(k0, heads)
    v1 = Reshape(v0, heads)
    q = Transpose<perm=[0,2,1,3]>(q1)
    k2 = Transpose<perm=[0,2,1,3]>(k1)
    v2 = Transpose<perm=[0,2,1,3]>(v1)
    JOIN
    kt = Transpose<perm=[0,1,3,2]>(k)
    s = MatMul(q, kt)
    keys = Range(zero, total, one)
    rows = Unsqueeze(counted, one_axis)
    later = Greater(keys, rows)
    mask = Where(later, low, nothing)
    t = Add(s, mask)
    a = Softmax<axis=-1>(t)
    o0 = MatMul(a, v)
    o1 = Transpose<perm=[0,2,1,3]>(o0)
    o = Reshape(o1, merged)
    r = Add(x, o)
    y = MatMul(r, head)
"""
PAST = ("batch", 2, "past", WIDTH // 2)
REAL = TensorProto.FLOAT


def save(path: Path, body: str, inputs: dict[str, tuple[int, Any]], *more: onnx.NodeProto) -> Path:
    nodes = [*more, *onnx.parser.parse_graph(f"g () => () {{ {body} }}").node]
    weights = {**WEIGHTS, "one_axis": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "decoder",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", REAL, ["batch", "tokens", WORDS])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


WORDS_IN = {"ids": (TensorProto.INT64, ("batch", "tokens"))}
CACHES = {"past_k": (REAL, PAST), "past_v": (REAL, PAST)}
JOINED = "k = Concat<axis=2>(past_k, k2)\n v = Concat<axis=-2>(past_v, v2)"
MEASURED = "shape = Shape(past_k)\n two = Constant<value_int=2>()\n earlier = Gather(shape, two)"


def plain(folder: Path) -> Path:
    body = BODY.replace("JOIN", "k = Identity(k2)\n v = Identity(v2)")
    return save(folder / "plain.onnx", f"earlier = Identity(zero)\n {body}", WORDS_IN)


def cached(folder: Path) -> Path:
    body = f"{MEASURED}\n {BODY.replace('JOIN', JOINED)}"
    return save(folder / "cached.onnx", body, {**WORDS_IN, **CACHES})


def packed(folder: Path) -> Path:
    """Keys and values in one cache."""
    separated = "past_k = Gather<axis=0>(past, zero)\n past_v = Gather<axis=0>(past, one)"
    body = f"{separated}\n {MEASURED}\n {BODY.replace('JOIN', JOINED)}"
    return save(folder / "packed.onnx", body, {**WORDS_IN, "past": (REAL, (2, *PAST))})


def merged(folder: Path) -> Path:
    """Two graphs in one file, with an input that selects one."""

    def branch(name: str, body: str) -> onnx.GraphProto:
        text = "\n".join(line for line in body.splitlines() if line.strip())
        nodes = onnx.parser.parse_graph(f"g () => () {{ {text} }}").node
        outputs = [helper.make_tensor_value_info(f"{v}_{name}", REAL, None) for v in "kv"]
        return helper.make_graph(nodes, name, [], outputs)

    choice = helper.make_node(
        "If",
        ["use_cache"],
        ["k", "v"],
        then_branch=branch(
            "t", "k_t = Concat<axis=2>(past_k, k2)\n v_t = Concat<axis=2>(past_v, v2)"
        ),
        else_branch=branch("e", "k_e = Identity(k2)\n v_e = Identity(v2)"),
    )
    before, after = BODY.split("JOIN")
    nodes = onnx.parser.parse_graph(f"g () => () {{ earlier = Identity(zero)\n {before} }}").node
    switch = {"use_cache": (TensorProto.BOOL, (1,))}
    inputs = {**WORDS_IN, **CACHES, **switch}
    return save(folder / "merged.onnx", after, inputs, *nodes, choice)


VOCABULARY = [f"w{k}" for k in range(WORDS)]


def write_with_tokenizer(folder: Path) -> Path:
    """The decoder with a cache, its tokenizer, and a prompt of the words 3, 7 and 1."""
    tokenizer = Tokenizer(
        models.WordLevel({w: k for k, w in enumerate(VOCABULARY)}, unk_token="w0")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "prompt.txt").write_text("w3 w7 w1")
    return cached(folder).rename(folder / "decoder.onnx")
