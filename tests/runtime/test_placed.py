"""The output at one token is the output at all tokens, read there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from committed import GOLDEN, MODELS
from onnx import parser

from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import FileForward

CAUSAL = [GOLDEN / "palrp_llama_causal_gqa", MODELS / "agreement-lm"]


@pytest.mark.parametrize("folder", CAUSAL, ids=lambda each: each.name)
def test_every_place(folder: object) -> None:
    model = Model.open(f"{folder}/model.onnx")
    ids = np.random.default_rng(0).integers(1, 40, (5, 9))
    known = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(9)[None].repeat(5, 0),
    }
    feeds = {each.name: known[each.name] for each in model.inputs}
    whole = FileForward(model, "logits")(feeds)
    forward = FileForward(model, "logits", placed=True)
    for places in (np.arange(5), np.array([-1, 8, -9, 0, -3])):
        expected = whole[np.arange(5), places]
        found = forward.at(feeds, places)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("opset", "ending"),
    [
        (18, "y = Add (m, bias)"),
        (18, "y = Add (m, place)"),  # depends on the place: picked after it
        (18, "s = Softmax <axis = 1> (m)  y = Mul (two, s)"),  # mixes tokens
        (18, "t = Transpose <perm = [0, 2, 1]> (m)  y = MatMul (t, three)"),
        (18, "t = MatMul (m, turned)  y = Tanh (t)"),
        (11, "y = Add (m, bias)"),  # no picking in the graph
    ],
)
def test_what_mixes_tokens_is_computed_in_full(opset: int, ending: str, tmp_path: object) -> None:
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[B, 3, 4] x) => (float[B, U, V] y) {{ m = MatMul (x, w) {ending} }}"""
    )
    generator = np.random.default_rng(1)
    shapes = {"w": (4, 4), "bias": (4,), "place": (3, 4), "two": (), "three": (3, 5)}
    for name, shape in {**shapes, "turned": (4, 4)}.items():
        numbers = np.asarray(generator.normal(size=shape), np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(numbers, name))
    path = f"{tmp_path}/model.onnx"
    onnx.save(model, path)
    opened = Model.open(path)
    feeds = {"x": generator.normal(size=(4, 3, 4)).astype(np.float32)}
    places = np.array([2, -1, 0, 1])
    expected = FileForward(opened, "y")(feeds)[np.arange(4), places]
    found = FileForward(opened, "y", placed=True).at(feeds, places)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
