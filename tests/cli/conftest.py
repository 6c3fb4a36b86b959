"""A model small enough to explain in every test: embedding + position → mean → two classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from palrp_onnx.cli.main import program

WORDS = ("[UNK]", "a", "good", "bad", "film")
TOKENS = 32
WIDTH = 4

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder / "model.onnx")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}')
    return folder / "model.onnx"


def write_model(path: Path) -> None:
    rng = np.random.default_rng(0)

    def table(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    def constant(name: str, values: Any) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["content"]),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Slice", ["places", "zero1", "length", "zero1"], ["position"]),
        helper.make_node("Add", ["content", "position"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["active"]),
        helper.make_node("ReduceMean", ["active", "axis"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "classes"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [
            table("words", len(WORDS), WIDTH),
            table("places", TOKENS, WIDTH),
            table("classes", WIDTH, 2),
            table("bias", 2),
            constant("one", [1]),
            constant("zero1", [0]),
            constant("axis", [1]),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "review.txt"
    path.write_text("a good film", encoding="utf-8")
    return path


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    path = tmp_path / "batch.npz"
    np.savez(path, input_ids=np.array([[1, 2, 4], [1, 3, 4]]))
    return path


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: object, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(program, [str(a) for a in arguments], input=stdin)

    return invoke
