"""A small graph of two towers, as CLIP's: every image is compared with every text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from building import ints, proto, real
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers  # type: ignore[import-untyped]

BODY = """e = Gather(words, ids)  p = ReduceSum <keepdims=0> (e, one)
    c = Conv <kernel_shape=[2, 2], strides=[2, 2]> (x, w)  r = Reshape(c, row)
    q = ReduceSum <keepdims=0> (r, two)  k = Transpose <perm=[1, 0]> (p)  y = MatMul(q, k)"""
#: Features of a token, and of a patch.
F = 5


def write_tokenizer(folder: Path) -> None:
    """Words are tokens."""
    names = {"[UNK]": 0, "a": 1, "cat": 2, "red": 3, "car": 4}
    made = Tokenizer(models.WordLevel(names, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))


def write_towers(folder: Path) -> Path:
    """The model with its tokenizer and preprocessor, ``photo.png`` and ``texts.txt`` of two."""
    weights = {
        "words": real(6, F, seed=1),
        "w": real(F, 3, 2, 2, seed=8),
        "row": ints(0, F, -1),
        "one": ints(1),
        "two": ints(2),
    }
    feeds = {"ids": np.ones((1, 2), np.int64), "x": real(1, 3, 4, 4, seed=5)}
    made = proto(BODY, feeds, weights)
    for value, name in zip(made.graph.input, ("texts", "images"), strict=True):
        value.type.tensor_type.shape.dim[0].dim_param = name
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "tokens"
    onnx.save(made, folder / "clip.onnx")
    write_tokenizer(folder)
    kind = {"image_processor_type": "ViTImageProcessor", "size": {"height": 4, "width": 4}}
    (folder / "preprocessor_config.json").write_text(json.dumps(kind))
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "photo.png")
    (folder / "texts.txt").write_text("a cat\nred car\n")
    return folder / "clip.onnx"
