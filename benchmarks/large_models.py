"""Files of large language models as onnxruntime-genai's builder writes them, with random weights.

    python benchmarks/large_models.py FOLDER NAME
    python benchmarks/large_models.py FOLDER tinyllama-4

Weights are written in chunks to a file of external data, so that little memory is needed. A name is
a shape and a type: ``-4`` has weights of four bits in blocks of 32 (``MatMulNBits``), ``-16`` and
``-32`` real ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper


@dataclass(frozen=True)
class Shape:
    """Lengths of a language model with rotated queries and keys and gated layers."""

    layers: int
    width: int
    inner: int
    words: int
    heads: int
    groups: int
    theta: float = 10000.0
    places: int = 8192

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads


SHAPES = {
    "small": Shape(3, 256, 512, 1000, 8, 2),
    "tinyllama": Shape(22, 2048, 5632, 32000, 32, 4),
    "llama3-3b": Shape(28, 3072, 8192, 128256, 24, 8, 500000.0),
    "llama2-7b": Shape(32, 4096, 11008, 32000, 32, 32),
    "llama3-8b": Shape(32, 4096, 14336, 128256, 32, 8, 500000.0),
}
_BLOCK = 32
_CHUNK = 1 << 24


class _File:
    """A graph whose initializers are external data; chunks are written when they are made."""

    def __init__(self, folder: Path, bits: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.bits = folder, bits
        self.real = TensorProto.FLOAT16 if bits == 16 else TensorProto.FLOAT
        self.kind = np.float16 if bits == 16 else np.float32
        self._random = np.random.default_rng(0)
        self._normal = self._random.standard_normal(_CHUNK, dtype=np.float32)
        steps = np.clip(np.rint(self._normal * 3) + 8, 0, 15).astype(np.uint8)
        self._bytes = steps[::2] | steps[1::2] << 4
        self._data = (folder / "model.onnx.data").open("wb")
        self._nodes: list[Any] = []
        self._stored: list[Any] = []

    def node(self, kind: str, inputs: Sequence[str], name: str, count: int = 1, **more: Any) -> str:
        """A node; the name of its first result."""
        results = [f"{name}/output_{k}" for k in range(count)]
        self._nodes.append(helper.make_node(kind, inputs, results, name=name, **more))
        return results[0]

    def add(self, node: Any) -> None:
        """A node that is made already."""
        self._nodes.append(node)

    def stored(self, name: str, kind: int, shape: Sequence[int], chunks: Iterator[Any]) -> str:
        """An initializer."""
        self._data.write(b"\0" * (-self._data.tell() % 4096))
        start = self._data.tell()
        for chunk in chunks:
            self._data.write(memoryview(np.ascontiguousarray(chunk)).cast("B"))
        tensor = TensorProto(name=name, data_type=kind, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        length = self._data.tell() - start
        for key, value in (("location", "model.onnx.data"), ("offset", start), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self._stored.append(tensor)
        return name

    def normal(self, name: str, shape: Sequence[int], scale: float, mean: float = 0.0) -> str:
        """Random numbers."""

        def chunks() -> Iterator[Any]:
            for part in self._parts(self._normal, int(np.prod(shape))):
                yield (part * np.float32(scale) + np.float32(mean)).astype(self.kind)

        return self.stored(name, self.real, shape, chunks())

    def _parts(self, source: Any, count: int) -> Iterator[Any]:
        while count:
            start = int(self._random.integers(len(source) // 2))
            part = source[start : start + count]
            count -= len(part)
            yield part

    def product(self, x: str, name: str, before: int, after: int) -> str:
        """x times a random weight."""
        weight = name.strip("/").replace("/", ".")
        if self.bits != 4:
            self.normal(f"{weight}.weight", [before, after], 0.8 * before**-0.5)
            return self.node("MatMul", [x, f"{weight}.weight"], name)
        blocks = before // _BLOCK
        packed = self._parts(self._bytes, after * before // 2)
        shape = [after, blocks, _BLOCK // 2]
        self.stored(f"{weight}.weight_Q4", TensorProto.UINT8, shape, packed)
        scale = 0.8 * before**-0.5 / 3
        self.normal(f"{weight}.weight_scales", [after, blocks], 0.1 * scale, scale)
        facts = {"N": after, "K": before, "bits": 4, "block_size": _BLOCK, "accuracy_level": 4}
        inputs = [x, f"{weight}.weight_Q4", f"{weight}.weight_scales"]
        return self.node("MatMulNBits", inputs, name, domain="com.microsoft", **facts)

    def save(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Write the graph."""
        self._data.close()
        graph = helper.make_graph(self._nodes, "main_graph", inputs, outputs, self._stored)
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        model.producer_name = "onnxruntime-genai"
        onnx.save(model, self.folder / "model.onnx")


def write(folder: Path, shape: Shape, bits: int) -> None:
    """Write one model."""
    file = _File(folder, bits)
    for name in ("one", "index"):
        number = helper.make_tensor(name, TensorProto.INT64, [1] if name == "one" else [], [1])
        file.add(helper.make_node("Constant", [], [name], value=number))
    total = file.node("ReduceSum", ["attention_mask", "one"], "/mask/ReduceSum")
    less = file.node("Sub", [total, "one"], "/mask/Sub")
    lengths = file.node("Cast", [less], "/mask/Sub/Cast", to=TensorProto.INT32)
    size = file.node("Shape", ["attention_mask"], "/mask/Shape")
    longest = file.node("Gather", [size, "index"], "/mask/Gather", axis=0)
    longest = file.node("Cast", [longest], "/mask/Gather/Cast", to=TensorProto.INT32)
    file.normal("embed_tokens.weight", [shape.words, shape.width], 0.02)
    _tables(file, shape)
    stream = file.node("Gather", ["embed_tokens.weight", "input_ids"], "/embed_tokens/Gather")
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", file.real, ["batch", "length", shape.words])]
    change = ""
    for k in range(shape.layers):
        stream, normed = _norm(file, stream, change, f"/layers.{k}/input_layernorm", shape)
        mixed = _attention(file, normed, k, shape, (lengths, longest))
        stream, normed = _norm(file, stream, mixed, f"/layers.{k}/post_layernorm", shape)
        change = _gated(file, normed, f"/layers.{k}/mlp", shape)
        for side, axis, found in (
            ("past_key_values", "past", inputs),
            ("present", "total", outputs),
        ):
            found += [
                helper.make_tensor_value_info(
                    f"{side}.{k}.{part}", file.real, ["batch", shape.groups, axis, shape.head]
                )
                for part in ("key", "value")
            ]
    _, last = _norm(file, stream, change, "/final_norm", shape)
    logits = file.product(last, "/lm_head/MatMul", shape.width, shape.words)
    file.add(helper.make_node("Identity", [logits], ["logits"]))
    file.save(inputs, outputs)


def _tables(file: _File, shape: Shape) -> None:
    turns = shape.theta ** (-np.arange(0, shape.head, 2) / shape.head)
    angles = np.arange(shape.places)[:, None] * turns
    for name, function in (("cos_cache", np.cos), ("sin_cache", np.sin)):
        chunk = function(angles).astype(file.kind)
        file.stored(name, file.real, chunk.shape, iter([chunk]))


def _norm(file: _File, stream: str, change: str, name: str, shape: Shape) -> tuple[str, str]:
    """The residual stream with a change added, and normalised."""
    weight = file.normal(name.strip("/").replace("/", ".") + ".weight", [shape.width], 0.1, 1.0)
    if not change:
        facts: dict[str, Any] = {"axis": -1, "epsilon": 1e-5, "stash_type": 1}
        return stream, file.node("SimplifiedLayerNormalization", [stream, weight], name, **facts)
    results = [f"{name}/output_0", "", "", f"{name}/output_3"]
    file.add(
        helper.make_node(
            "SkipSimplifiedLayerNormalization",
            [stream, change, weight],
            results[:1] if name == "/final_norm" else results,
            name=name,
            domain="com.microsoft",
            epsilon=1e-5,
        )
    )
    return results[3], results[0]


def _attention(file: _File, x: str, layer: int, shape: Shape, lengths: tuple[str, str]) -> str:
    name = f"/layers.{layer}/attn"
    wide = (shape.heads + 2 * shape.groups) * shape.head
    packed = file.product(x, f"{name}/qkv_proj/MatMul", shape.width, wide)
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    result = f"{name}/GroupQueryAttention/output_0"
    file.add(
        helper.make_node(
            "GroupQueryAttention",
            [packed, "", "", *past, *lengths, "cos_cache", "sin_cache"],
            [result, *(f"present.{layer}.{part}" for part in ("key", "value"))],
            name=f"{name}/GroupQueryAttention",
            domain="com.microsoft",
            num_heads=shape.heads,
            kv_num_heads=shape.groups,
            scale=shape.head**-0.5,
            local_window_size=-1,
            softcap=0.0,
            do_rotary=1,
            rotary_interleaved=0,
        )
    )
    return file.product(result, f"{name}/o_proj/MatMul", shape.width, shape.width)


def _gated(file: _File, x: str, name: str, shape: Shape) -> str:
    gate = file.product(x, f"{name}/gate_proj/MatMul", shape.width, shape.inner)
    up = file.product(x, f"{name}/up_proj/MatMul", shape.width, shape.inner)
    opened = file.node("Sigmoid", [gate], f"{name}/act_fn/Sigmoid")
    gated = file.node("Mul", [gate, opened], f"{name}/act_fn/Mul")
    inner = file.node("Mul", [gated, up], f"{name}/Mul")
    return file.product(inner, f"{name}/down_proj/MatMul", shape.inner, shape.width)


def main(folder: Path, name: str) -> None:
    """Write a model, and random tokens for it."""
    kind, _, bits = name.rpartition("-")
    shape = SHAPES[kind]
    write(folder / name, shape, int(bits))
    random = np.random.default_rng(0)
    for count in (64, 512):
        ids = random.integers(5, shape.words, (1, count))
        np.savez(folder / name / f"{count}.npz", input_ids=ids, attention_mask=np.ones_like(ids))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
