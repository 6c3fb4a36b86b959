"""One little encoder with a decoder: as two files, and as one file with both inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers  # type: ignore[import-untyped]

WORDS, WIDTH, PLACES = 20, 8, 16
START, END = 2, 1
GENERATOR = np.random.default_rng(5)
WEIGHTS: dict[str, Any] = {
    name: (GENERATOR.normal(size=shape) * 0.6).astype(np.float32)
    for name, shape in {
        "words": (WORDS, WIDTH),
        "places": (PLACES, WIDTH),
        **{f"w{k}": (WIDTH, WIDTH) for k in range(9)},
        "head": (WIDTH, WORDS),
    }.items()
} | {
    "zero": np.array([0]),
    "one": np.array([1]),
    "first": np.array(1),
    "unit": np.array(1),
    "nil": np.array(0),
    "low": np.float32(-1e9),
    "nothing": np.float32(0),
}
SOURCE = np.array([[5, 9, 13, 7, 1], [3, 8, 1, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
PRODUCED = np.array([[2, 4, 6], [2, 11, 5]])


def embedded(ids: str, mark: str) -> str:
    """Words and learned positions; ``mark`` makes names different."""
    return f"""
    e{mark} = Gather(words, {ids})
    shape{mark} = Shape({ids})
    size{mark} = Gather(shape{mark}, one)
    p{mark} = Slice(places, zero, size{mark}, zero)
    x{mark} = Add(e{mark}, p{mark})
    """


def attention(query: str, keys: str, weights: str, bias: str, mark: str) -> str:
    """One head; ``weights`` are the numbers of three matrices."""
    q, k, v = weights
    return f"""
    q{mark} = MatMul({query}, w{q})
    k{mark} = MatMul({keys}, w{k})
    v{mark} = MatMul({keys}, w{v})
    t{mark} = Transpose<perm=[0,2,1]>(k{mark})
    s{mark} = MatMul(q{mark}, t{mark})
    b{mark} = Add(s{mark}, {bias})
    a{mark} = Softmax<axis=-1>(b{mark})
    o{mark} = MatMul(a{mark}, v{mark})
    r{mark} = Add({query}, o{mark})
    """


def hidden(mask: str, mark: str) -> str:
    """Very negative numbers where the mask is zero [B, 1, T]."""
    return f"""
    open{mark} = Cast<to=9>({mask})
    row{mark} = Where(open{mark}, nothing, low)
    bias{mark} = Unsqueeze(row{mark}, one)
    """


def encoder_body(ids: str, mask: str, mark: str = "") -> str:
    return (
        embedded(ids, mark)
        + hidden(mask, mark)
        + attention(f"x{mark}", f"x{mark}", "012", f"bias{mark}", mark)
    )


def decoder_body(ids: str, mask: str, states: str) -> str:
    return f"""
    {embedded(ids, "")}
    length = Squeeze(size)
    counted = Range(nil, length, unit)
    rows = Unsqueeze(counted, one)
    later = Greater(counted, rows)
    causal = Where(later, low, nothing)
    {attention("x", "x", "345", "causal", "")}
    {hidden(mask, "_c")}
    {attention("r", states, "678", "bias_c", "_c")}
    y = MatMul(r_c, head)
    """


def save(path: Path, body: str, inputs: dict[str, tuple[int, Any]], output: str) -> Path:
    nodes = onnx.parser.parse_graph(f"g () => () {{ {body} }}").node
    read = {name for node in nodes for name in node.input}
    last = [WORDS if output == "y" else WIDTH]
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", "tokens", *last])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in WEIGHTS.items() if n in read],
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


WHOLE = TensorProto.INT64
READ = ["batch", "tokens"]
OWN = ["batch", "produced"]


def write_encoder(path: Path) -> Path:
    return save(
        path, encoder_body("ids", "kept"), {"ids": (WHOLE, READ), "kept": (WHOLE, READ)}, "r"
    )


def write_decoder(path: Path) -> Path:
    """Names of its inputs are those of the encoder's, and one is misleading."""
    # The exporter calls the length of the source by another name here, and "tokens" its own.
    own, read = ["n", "tokens"], ["n", "source"]
    inputs = {
        "kept": (WHOLE, read),
        "ids": (WHOLE, own),
        "input_3": (TensorProto.FLOAT, [*read, WIDTH]),
    }
    return save(path, decoder_body("ids", "kept", "input_3"), inputs, "y")


def write_pair(folder: Path) -> Path:
    """Both files, with a tokenizer and settings of generation."""
    folder.mkdir(parents=True, exist_ok=True)
    write_encoder(folder / "encoder_model.onnx")
    write_decoder(folder / "decoder_model.onnx")
    tokenizer = Tokenizer(models.WordLevel({f"w{k}": k for k in range(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"decoder_start_token_id": START, "eos_token_id": END}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


def write_one(path: Path) -> Path:
    body = encoder_body("ids", "kept", "_e") + decoder_body("decoder_ids", "kept", "r_e")
    inputs = {"ids": (WHOLE, READ), "kept": (WHOLE, READ), "decoder_ids": (WHOLE, OWN)}
    return save(path, body, inputs, "y")


def feeds(*, rows: slice = slice(None)) -> dict[str, Any]:
    """Arrays for both inputs and the mask."""
    return {"ids": SOURCE[rows], "kept": MASK[rows], "decoder_ids": PRODUCED[rows]}
