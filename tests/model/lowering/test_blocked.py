"""Blocked convolutions, as a session of ONNX Runtime saves them on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checking import compare, saved_by_a_session
from onnx import helper

from palrp_onnx.model.lowering.blocked import block_size, plain_weights

GENERATOR = np.random.default_rng(2)
IMAGE = GENERATOR.normal(size=(2, 3, 12, 10)).astype(np.float32)
WEIGHTS = {
    name: GENERATOR.normal(size=shape).astype(np.float32) / 4
    for name, shape in {
        "w": (32, 3, 3, 3),
        "b": (32,),
        "square": (32, 32, 3, 3),
        "single": (32, 1, 3, 3),
        "few": (3, 1, 3, 3),
        "narrow": (20, 32, 1, 1),
    }.items()
}


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], **attributes)


GRAPHS = {
    "an image": [node("Conv", "x w b", "y", pads=[1, 1, 1, 1], strides=[2, 1])],
    "sums and activations": [
        node("Conv", "x w b", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r"),
        node("Conv", "r square", "c", pads=[1, 1, 1, 1]),
        node("Add", "c r", "s"),
        node("Relu", "s", "y"),
    ],
    "every channel alone, then few": [
        node("Conv", "x w b", "a"),
        node("Conv", "a single", "d", group=32),
        node("LeakyRelu", "d", "l", alpha=0.2),
        node("Conv", "l narrow", "y"),
    ],
    "channels that do not fill a block": [
        node("Transpose", "x", "t", perm=[0, 2, 3, 1]),
        node("Relu", "t", "r"),
        node("Transpose", "r", "u", perm=[0, 3, 1, 2]),
        node("Conv", "u few", "d", group=3, pads=[1, 1, 1, 1]),
        node("Conv", "d w", "y"),
    ],
    "pooling": [
        node("Conv", "x w b", "a"),
        node("MaxPool", "a", "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "m square", "c", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", "c", "y"),
    ],
}


@pytest.mark.parametrize("name", GRAPHS)
def test_saved_by_a_session(name: str, tmp_path: Path) -> None:
    saved = saved_by_a_session(GRAPHS[name], IMAGE, WEIGHTS, tmp_path)
    if not any(n.domain.endswith("nchwc") for n in saved.graph.node):
        pytest.skip("the runtime does not block channels on this machine")
    lowered = compare(saved, {"x": IMAGE}, tmp_path)
    assert not any(n.domain for n in lowered.graph)


@pytest.mark.parametrize("ins", [3, 16])
def test_layout(ins: int) -> None:
    """Entry by entry: outputs vary fastest, then the inputs of a block, then the window."""
    block, outs, height, width = 8, 16, 2, 3
    plain = GENERATOR.normal(size=(outs, ins, height, width))
    order = []
    inner = block if ins % block == 0 else 1
    for o in range(0, outs, block):
        for i in range(0, ins, inner):
            for h in range(height):
                for w in range(width):
                    for k in range(i, i + inner):
                        order += [plain[o + n, k, h, w] for n in range(block)]
    blocked = np.array(order).reshape(plain.shape)
    np.testing.assert_array_equal(plain_weights(blocked, block), plain)


def test_the_block_of_this_machine() -> None:
    try:
        assert block_size() in (8, 16)
    except NotImplementedError:
        pytest.skip("the runtime does not block channels on this machine")
