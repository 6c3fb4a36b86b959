"""Models and inputs for ``memory.py``: ``memory_models.py NAME SIZE FOLDER`` writes both."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engines
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx import Model

#: Largest number of tokens of the exported models.
TOKENS = 8192


def conv(path: Path, depth: int = 12, width: int = 64) -> None:
    """Convolutions 3 × 3 with ReLU at full resolution, then a mean."""
    net = _Net()
    x, channels = "x", 3
    for _ in range(depth):
        weights = (
            net.weight(width, channels, 3, 3, scale=(2 / 9 / channels) ** 0.5),
            net.weight(width),
        )
        x, channels = net("Relu", net("Conv", x, *weights, pads=[1, 1, 1, 1])), width
    pooled = net("Flatten", net("GlobalAveragePool", x))
    net.save(path, ["b", 3, "height", "width"], net("Gemm", pooled, net.weight(width, 10)))


def video(path: Path, depth: int = 6, width: int = 192, heads: int = 3) -> None:
    """Tubelets of two frames, 112 pixels a side, as tokens of a Transformer (as ViViT does)."""
    net = _Net()
    kernel = {"kernel_shape": [2, 16, 16], "strides": [2, 16, 16]}
    patches = net(
        "Conv", "x", net.weight(width, 3, 2, 16, 16, scale=0.02), net.weight(width), **kernel
    )
    tokens = net("Transpose", net("Reshape", patches, net.integers(0, width, -1)), perm=[0, 2, 1])
    for _ in range(depth):
        tokens = net("Add", tokens, net.attention(net.norm(tokens, width), width, heads))
        hidden = net("Gelu", net.linear(net.norm(tokens, width), width, 4 * width))
        tokens = net("Add", tokens, net.linear(hidden, 4 * width, width))
    mean = net("ReduceMean", net.norm(tokens, width), net.integers(1), keepdims=0)
    net.save(path, ["b", 3, "frames", 112, 112], net.linear(mean, width, 10))


class _Net:
    """Nodes of a graph with random weights."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _stored(self, array: Any) -> str:
        self._weights.append(numpy_helper.from_array(array, f"w{len(self._weights)}"))
        return str(self._weights[-1].name)

    def weight(self, *shape: int, scale: float = 0.05) -> str:
        return self._stored((self._random.standard_normal(shape) * scale).astype("f4"))

    def integers(self, *numbers: int) -> str:
        return self._stored(np.array(numbers, np.int64))

    def linear(self, x: str, before: int, after: int) -> str:
        product = self("MatMul", x, self.weight(before, after, scale=before**-0.5))
        return self("Add", product, self.weight(after))

    def norm(self, x: str, width: int) -> str:
        return self("LayerNormalization", x, self.weight(width, scale=1), self.weight(width))

    def attention(self, x: str, width: int, heads: int) -> str:
        def split(perm: list[int]) -> str:
            shape = self.integers(0, 0, heads, width // heads)
            return self(
                "Transpose", self("Reshape", self.linear(x, width, width), shape), perm=perm
            )

        query, key, value = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
        scores = self("MatMul", self("Mul", query, self.weight(scale=(width / heads) ** -0.5)), key)
        mixed = self("Transpose", self("MatMul", self("Softmax", scores), value), perm=[0, 2, 1, 3])
        return self.linear(self("Reshape", mixed, self.integers(0, 0, width)), width, width)

    def save(self, path: Path, shape: list[Any], output: str) -> None:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["b", 10])]
        graph = helper.make_graph(self._nodes, "g", inputs, outputs, self._weights)
        imports = [helper.make_opsetid("", 20)]
        onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)


def transformer(name: str) -> Callable[[Path], None]:
    """An exported model."""

    def build(path: Path) -> None:
        engines.MODELS[name][2]["max_position_embeddings"] = TOKENS
        engines.build(name, path.parent.parent)

    return build


BUILD = {
    "conv": conv,
    "video": video,
    **{name: transformer(name) for name in ("bert", "llama", "smollm2")},
}


def main(name: str, size: int, folder: Path) -> None:
    """Write the model unless it exists, and random pixels or tokens."""
    model = folder / name / "model.onnx"
    model.parent.mkdir(parents=True, exist_ok=True)
    if not model.exists():
        BUILD[name](model)
    shapes = {"conv": (1, 3, size, size), "video": (1, 3, size, 112, 112)}
    if name in shapes:
        feeds = {"x": np.random.default_rng(0).standard_normal(shapes[name]).astype("f4")}
    else:
        feeds = engines.feeds_for(Model.open(model), 1, size)
    np.savez(model.with_name(f"{size}.npz"), **feeds)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
