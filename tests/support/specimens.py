"""Small healthy models, as the seeds of damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18


def _weights(**shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(0)
    return [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def _numbers(**values: list[int]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in values.items()]


def _model(
    body: str, initializers: list[onnx.TensorProto], imports: tuple[str, ...] = ()
) -> onnx.ModelProto:
    graph = onnx.parser.parse_graph(f"g () => () {{ {body} }}")
    graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"]))
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2]))
    graph.initializer.extend(initializers)
    opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(d, 1) for d in imports)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def attention() -> onnx.ModelProto:
    """Embedding, learned positions, one attention layer, two classes."""
    body = """
        words = Gather(table, ids)
        shape = Shape(ids)
        length = Gather(shape, one)
        places = Slice(position, zero, length, zero)
        x = Add(words, places)
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        kt = Transpose<perm = [0, 2, 1]>(k)
        scores = MatMul(q, kt)
        a = Softmax<axis = -1>(scores)
        v = MatMul(a, x)
        n = LayerNormalization(v, gain, bias)
        f = Tanh(n)
        p = ReduceMean<keepdims = 0>(f, one)
        y = MatMul(p, classes)
    """
    weights = _weights(
        table=(9, 4), position=(16, 4), wq=(4, 4), wk=(4, 4), gain=(4,), bias=(4,), classes=(4, 2)
    )
    return _model(body, [*weights, *_numbers(one=[1], zero=[0])])


def branches() -> onnx.ModelProto:
    """An ``If`` whose branches are subgraphs, and a quantised weight."""
    body = """
        x = Gather(table, ids)
        shape = Shape(ids)
        length = Gather(shape, one)
        long = Greater(length, one)
        h = If(long) <
            then_branch = then () => (float[b, t, 4] t1) { t1 = Relu(x) },
            else_branch = other () => (float[b, t, 4] e1) { e1 = Identity(x) }
        >
        w = DequantizeLinear(w8, scale, point)
        m = MatMul(h, w)
        y = ReduceMean<keepdims = 0>(m, one)
    """
    quantised = [
        numpy_helper.from_array(np.arange(8, dtype=np.int8).reshape(4, 2), "w8"),
        numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.int8), "point"),
    ]
    return _model(body, [*_weights(table=(9, 4)), *_numbers(one=[1]), *quantised])


def fused() -> onnx.ModelProto:
    """Operations outside of the standard, a function and a constant."""
    body = """
        x = Gather(table, ids)
        n = com.microsoft.BiasGelu(x, bias)
        d = own.double(n)
        c = Constant<value_float = 0.5>()
        s = Mul(d, c)
        p = ReduceMean<keepdims = 0>(s, one)
        y = com.microsoft.FusedMatMul<alpha = 2.0>(p, classes)
    """
    model = _model(
        body,
        [*_weights(table=(9, 4), bias=(4,), classes=(4, 2)), *_numbers(one=[1])],
        ("com.microsoft", "own"),
    )
    body_nodes = [helper.make_node("Add", ["a", "a"], ["b"])]
    imports = [helper.make_opsetid("", OPSET)]
    model.functions.append(helper.make_function("own", "double", ["a"], ["b"], body_nodes, imports))
    return model


SPECIMENS: dict[str, Callable[[], onnx.ModelProto]] = {
    "attention": attention,
    "branches": branches,
    "fused": fused,
}


@cache
def serialised(name: str) -> bytes:
    """A healthy model as a file."""
    data: bytes = SPECIMENS[name]().SerializeToString()
    return data


TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {
        "type": "WordLevel",
        "vocab": {"[UNK]": 0, "a": 1, "good": 2, "film": 3},
        "unk_token": "[UNK]",
    },
}


def write_text_model(folder: Path, tokenizer: dict[str, Any] | bytes = TOKENIZER) -> Path:
    """A model with a tokenizer and a text; returns the folder."""
    data = tokenizer if isinstance(tokenizer, bytes) else json.dumps(tokenizer).encode()
    (folder / "model.onnx").write_bytes(serialised("attention"))
    (folder / "tokenizer.json").write_bytes(data)
    (folder / "in.txt").write_bytes(b"a good film")
    return folder
