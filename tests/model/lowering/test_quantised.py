"""Quantised operations of the standard and of ONNX Runtime against what they are lowered to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checking import compare, model, ms, node
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import RuntimeForward

Array = NDArray[Any]
GENERATOR = np.random.default_rng(11)


def scalar(number: float) -> Array:
    return np.array(number, np.float32)


def zero(number: int, kind: Any = np.uint8) -> Array:
    return np.array(number, kind)


X = GENERATOR.normal(size=(2, 5, 8)).astype(np.float32)
Z = GENERATOR.normal(size=(2, 5, 8)).astype(np.float32)
IMAGE = GENERATOR.normal(size=(2, 3, 7, 6)).astype(np.float32)
#: Scales and zero points of x, z, and of what is made of them.
SCALES: dict[str, Array] = {
    "xs": scalar(0.021),
    "xz": zero(117),
    "zs": scalar(0.017),
    "zz": zero(131),
    "ys": scalar(0.043),
    "yz": zero(101),
}


READ_X = node("QuantizeLinear", "x xs xz", "xq")
READ_Z = node("QuantizeLinear", "z zs zz", "zq")
WRITE = node("DequantizeLinear", "yq ys yz", "y")


def weights(kind: Any, *shape: int) -> Array:
    """Any numbers of a type; signed ones in seven bits: every processor multiplies them exactly."""
    info = np.iinfo(kind)
    low, high = (-63, 63) if kind == np.int8 else (info.min, info.max)
    return GENERATOR.integers(low, high + 1, size=shape).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("offset", [0, 9])
@pytest.mark.parametrize("opset", [13, 18, 21])
def test_there_and_back(kind: Any, offset: int, opset: int, tmp_path: Path) -> None:
    own = {"xs": scalar(0.01), "xz": zero(offset, kind)}  # some of x is cut off
    nodes = [READ_X, node("DequantizeLinear", "xq xs xz", "y")]
    lowered = compare(model(nodes, {"x": X}, own, opset), {"x": X}, tmp_path, tolerance=1e-7)
    assert lowered.lowered == {"QuantizeLinear": 1, "DequantizeLinear": 1}


def test_sixteen_bits(tmp_path: Path) -> None:
    own = {"xs": scalar(1e-4), "xz": zero(30000, np.uint16)}
    nodes = [ms("QuantizeLinear", "x xs xz", "xq"), ms("DequantizeLinear", "xq xs xz", "y")]
    compare(model(nodes, {"x": X}, own), {"x": X}, tmp_path, tolerance=1e-6)


def test_moved_and_joined_in_between(tmp_path: Path) -> None:
    nodes = [
        READ_X,
        node("Transpose", "xq", "t", perm=[0, 2, 1]),
        node("Reshape", "t shape", "r"),
        node("Concat", "r extra", "j", axis=-1),
        node("DequantizeLinear", "j xs xz", "y"),
    ]
    own = {**SCALES, "shape": np.array([2, 8, 5]), "extra": weights(np.uint8, 2, 8, 1)}
    compare(model(nodes, {"x": X}, own), {"x": X}, tmp_path, tolerance=1e-7)


def test_measured_as_it_comes(tmp_path: Path) -> None:
    nodes = [
        node("DynamicQuantizeLinear", "x", "xq s k"),
        node("MatMulInteger", "xq w k wz", "i"),
        node("Cast", "i", "f", to=TensorProto.FLOAT),
        node("Mul", "s ws", "both"),
        node("Mul", "f both", "y"),
    ]
    own = {"w": weights(np.int8, 8, 6), "wz": zero(3, np.int8), "ws": scalar(0.02)}
    compare(model(nodes, {"x": X}, own), {"x": X}, tmp_path, tolerance=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_a_zero_point_for_every_column(kind: Any, tmp_path: Path) -> None:
    nodes = [
        READ_X,
        node("MatMulInteger", "xq w xz wz", "i"),
        node("Cast", "i", "y", to=TensorProto.FLOAT),
    ]
    own = {**SCALES, "w": weights(kind, 8, 6), "wz": weights(kind, 6) // 8}
    compare(model(nodes, {"x": X}, own), {"x": X}, tmp_path, tolerance=1e-6)


@pytest.mark.parametrize("how", ["Add", "Sub"])
def test_a_bias_of_whole_numbers(how: str, tmp_path: Path) -> None:
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node("MatMulInteger", "q w z", "i"),
        node(how, "i b", "a"),
        node("Cast", "a", "f", to=TensorProto.FLOAT),
        node("Mul", "f s", "y"),
    ]
    generator = np.random.default_rng(5)
    weights = {
        "w": generator.integers(-127, 127, (8, 5)).astype(np.int8),
        "b": generator.integers(-3000, 3000, 5).astype(np.int32),
    }
    feeds = {"x": generator.normal(size=(2, 3, 8)).astype(np.float32)}
    compare(model(nodes, feeds, weights), feeds, tmp_path)


def test_convolution_of_whole_numbers(tmp_path: Path) -> None:
    nodes = [
        READ_X,
        node("ConvInteger", "xq w xz", "i", pads=[1, 1, 1, 1], strides=[2, 1]),
        node("Cast", "i", "y", to=TensorProto.FLOAT),
    ]
    own = {**SCALES, "w": weights(np.uint8, 4, 3, 3, 3)}
    compare(model(nodes, {"x": IMAGE}, own), {"x": IMAGE}, tmp_path, tolerance=1e-6)


def test_scaled_back_at_once(tmp_path: Path) -> None:
    nodes = [READ_X, ms("MatMulIntegerToFloat", "xq w xs ws xz wz b", "y")]
    own = {
        **SCALES,
        "w": weights(np.uint8, 8, 6),
        "ws": np.linspace(0.01, 0.02, 6, dtype=np.float32),
        "wz": weights(np.uint8, 6),
        "b": GENERATOR.normal(size=6).astype(np.float32),
    }
    compare(model(nodes, {"x": X}, own), {"x": X}, tmp_path)


def test_measured_and_multiplied_at_once(tmp_path: Path) -> None:
    nodes = [ms("DynamicQuantizeMatMul", "x w ws wz b", "y")]
    own = {
        "w": weights(np.int8, 8, 6),
        "ws": scalar(0.02),
        "wz": zero(5, np.int8),
        "b": GENERATOR.normal(size=6).astype(np.float32),
    }
    compare(model(nodes, {"x": X}, own), {"x": X}, tmp_path)


ONE = 1 / 255
TWO = {"x": X, "z": Z}
STEPS: dict[str, tuple[list[Any], dict[str, Array], dict[str, Array]]] = {
    "matmul": (
        [READ_X, node("QLinearMatMul", "xq xs xz w ws wz ys yz", "yq"), WRITE],
        {"x": X},
        {"w": weights(np.uint8, 8, 6), "ws": scalar(0.004), "wz": zero(120)},
    ),
    "matmul, int8": (
        [READ_X, node("QLinearMatMul", "xq xs xz w ws wz ys yz", "yq"), WRITE],
        {"x": X},
        {
            "w": weights(np.int8, 8, 6),
            "ws": np.linspace(0.003, 0.005, 6, dtype=np.float32),
            "wz": np.zeros(6, np.int8),
        },
    ),
    "conv": (
        [
            READ_X,
            node("QLinearConv", "xq xs xz w ws wz ys yz b", "yq", pads=[1, 0, 1, 0]),
            WRITE,
        ],
        {"x": IMAGE},
        {
            "w": weights(np.int8, 4, 3, 3, 3),
            "ws": np.linspace(0.003, 0.005, 4, dtype=np.float32),
            "wz": np.zeros(4, np.int8),
            "b": np.array([300, -200, 0, 50], np.int32),
        },
    ),
    "gemm": (
        [READ_X, ms("QGemm", "xq xs xz w ws wz c ys yz", "yq", transB=1, alpha=0.5), WRITE],
        {"x": X[0]},
        {
            "w": weights(np.uint8, 6, 8),
            "ws": scalar(0.004),
            "wz": zero(120),
            "c": np.arange(-300, 300, 100, dtype=np.int32),
        },
    ),
    "gemm to real numbers": (
        [READ_X, ms("QGemm", "xq xs xz w ws wz c", "y")],
        {"x": X[0]},
        {
            "w": weights(np.uint8, 8, 6),
            "ws": scalar(0.004),
            "wz": zero(120),
            "c": np.arange(-300, 300, 100, dtype=np.int32),
        },
    ),
    "add": ([READ_X, READ_Z, ms("QLinearAdd", "xq xs xz zq zs zz ys yz", "yq"), WRITE], TWO, {}),
    "mul": ([READ_X, READ_Z, ms("QLinearMul", "xq xs xz zq zs zz ys yz", "yq"), WRITE], TWO, {}),
    "softmax": (
        [
            READ_X,
            ms("QLinearSoftmax", "xq xs xz ss sz", "yq", axis=-1, opset=13),
            node("DequantizeLinear", "yq ss sz", "y"),
        ],
        {"x": X},
        {"ss": scalar(1 / 255.6), "sz": zero(0)},
    ),
    "sigmoid": ([READ_X, ms("QLinearSigmoid", "xq xs xz ys yz", "yq"), WRITE], {"x": X}, {}),
    "leaky relu": (
        [READ_X, ms("QLinearLeakyRelu", "xq xs xz ys yz", "yq", alpha=0.2), WRITE],
        {"x": X},
        {},
    ),
    "concat": (
        [READ_X, READ_Z, ms("QLinearConcat", "ys yz xq xs xz zq zs zz", "yq", axis=1), WRITE],
        TWO,
        {},
    ),
    "average of a window": (
        [READ_X, ms("QLinearAveragePool", "xq xs xz ys yz", "yq", kernel_shape=[2, 2]), WRITE],
        {"x": IMAGE},
        {},
    ),
    "average": (
        [READ_X, ms("QLinearGlobalAveragePool", "xq xs xz ys yz", "yq"), WRITE],
        {"x": IMAGE},
        {},
    ),
    "where": (
        [
            READ_X,
            READ_Z,
            node("Greater", "x z", "c"),
            ms("QLinearWhere", "c xq xs xz zq zs zz ys yz", "yq"),
            WRITE,
        ],
        TWO,
        {},
    ),
}


@pytest.mark.parametrize("opset", [12, 18, 21])
@pytest.mark.parametrize("name", STEPS)
def test_within_one_step(name: str, opset: int, tmp_path: Path) -> None:
    """Kernels of whole numbers round products of scales elsewhere: a neighbour now and then."""
    nodes, feeds, own = STEPS[name]
    made = model(nodes, feeds, {**SCALES, **own}, opset)
    step = float(own.get("ss", SCALES["ys"]))
    with np.errstate(all="ignore"):
        compare(made, feeds, tmp_path, absolute=1.01 * step)


@pytest.mark.parametrize("name", ["matmul", "matmul, int8", "conv", "gemm"])
def test_sums_are_scaled_once(name: str, tmp_path: Path) -> None:
    """Not one of so many rounds to the neighbour; scaled before they are summed, a few do."""
    nodes, small, own = STEPS[name]
    generator = np.random.default_rng(7)
    shape = (20000, *small["x"].shape[1:])
    feeds = {"x": generator.normal(size=shape).astype(np.float32)}
    made = model(nodes, feeds, {**SCALES, **own})
    compare(made, feeds, tmp_path, absolute=0.5 * float(SCALES["ys"]))


@pytest.mark.parametrize("segments", [False, True])
def test_embedding(segments: bool, tmp_path: Path) -> None:
    """The norm, and the lengths that the mask says."""
    names = ["word", "place", "kind", "gamma", "beta"]
    shapes = [(30, 8), (12, 8), (2, 8), (8,), (8,)]
    own: dict[str, Array] = {}
    for index, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        own |= {
            name: weights(np.uint8, *shape),
            f"{name}_s": scalar(0.01 + 0.003 * index),
            f"{name}_z": zero(110 + 7 * index),
        }
    used = [name if segments or name != "kind" else "_" for name in names]
    tail = [f"{n}{end}" if n != "_" else n for end in ("_s", "_z") for n in used]
    feeds = {
        "ids": GENERATOR.integers(0, 30, size=(2, 5)).astype(np.int32),
        "mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32),
    }
    if segments:
        feeds["types"] = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]], np.int32)
    inputs = ["ids", "types" if segments else "_", *used, "mask", *tail]
    nodes = [
        ms("QEmbedLayerNormalization", " ".join(inputs), "normed lengths", epsilon=1e-5),
        node("Cast", "lengths", "real", to=TensorProto.FLOAT),
        node("Reshape", "real shape", "column"),
        node("Add", "normed column", "y"),
    ]
    own = {k: v for k, v in own.items() if k.split("_")[0] in used}
    own["shape"] = np.array([-1, 1, 1])
    compare(model(nodes, feeds, own), feeds, tmp_path)


@pytest.mark.parametrize("unidirectional", [0, 1])
def test_attention(unidirectional: int, tmp_path: Path) -> None:
    nodes = [
        READ_X,
        ms(
            "QAttention",
            "xq w b xs ws mask xz wz",
            "y",
            num_heads=2,
            unidirectional=unidirectional,
        ),
    ]
    own = {
        **SCALES,
        "w": weights(np.uint8, 8, 24),
        "ws": scalar(0.004),
        "wz": zero(120),
        "b": GENERATOR.normal(size=24).astype(np.float32),
    }
    feeds = {"x": X, "mask": np.array([5, 3], np.int32)}
    compare(model(nodes, feeds, own), feeds, tmp_path, tolerance=1e-4)


def in_blocks(
    zeros: str = "",
    *,
    bits: int = 4,
    columns: int = 64,
    size: int = 16,
    kind: Any = np.float32,
    opset: int = 18,
    **attributes: Any,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A product with weights in blocks, whose zero points are none, ``packed`` or ``real``."""
    rows, blocks = 6, -(-columns // size)
    own = {
        "w": GENERATOR.integers(0, 256, size=(rows, blocks, size * bits // 8)).astype(np.uint8),
        "s": GENERATOR.uniform(0.01, 0.02, size=rows * blocks).astype(kind),
    }
    if zeros == "packed":
        own["k"] = weights(np.uint8, rows * (-(-blocks * bits // 8)))
    elif zeros == "real":
        own["k"] = GENERATOR.uniform(3, 12, size=rows * blocks).astype(kind)
    feeds = {"x": GENERATOR.normal(size=(2, 5, columns)).astype(kind)}
    product = ms(
        "MatMulNBits",
        "x w s k" if zeros else "x w s",
        "y",
        K=columns,
        N=rows,
        bits=bits,
        block_size=size,
        **attributes,
    )
    made = model([product], feeds, own, opset)
    made.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(
        np.dtype(kind)
    )
    return made, feeds


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["", "packed"])
@pytest.mark.parametrize("columns", [64, 40])
def test_weights_in_blocks(bits: int, zeros: str, columns: int, tmp_path: Path) -> None:
    made, feeds = in_blocks(zeros, bits=bits, columns=columns)
    compare(made, feeds, tmp_path, tolerance=1e-3)


@pytest.mark.parametrize("opset", [12, 13, 21])
@pytest.mark.parametrize("zeros", ["packed", "real"])
def test_weights_in_blocks_in_every_opset(opset: int, zeros: str, tmp_path: Path) -> None:
    made, feeds = in_blocks(zeros, opset=opset)
    compare(made, feeds, tmp_path, tolerance=1e-3)


@pytest.mark.parametrize("opset", [14, 21])
def test_weights_in_blocks_in_half_precision(opset: int, tmp_path: Path) -> None:
    made, feeds = in_blocks("packed", kind=np.float16, opset=opset)
    compare(made, feeds, tmp_path, tolerance=1e-2)


def test_a_kernel_that_may_be_less_exact(tmp_path: Path) -> None:
    """At level 4 the kernel may make bytes of the activations too; what it is lowered to does not.

    That moves one product by about half a percent of its largest result.
    """
    made, feeds = in_blocks("packed", size=32, accuracy_level=4)
    compare(made, feeds, tmp_path, tolerance=2e-2)


@pytest.mark.parametrize("zeros", ["", "real"])
@pytest.mark.parametrize("columns", [64, 40])
def test_columns_that_name_their_block(zeros: str, columns: int, tmp_path: Path) -> None:
    made, feeds = in_blocks(zeros, columns=columns)
    order = GENERATOR.integers(0, -(-columns // 16), size=columns).astype(np.int32)
    made.graph.initializer.append(numpy_helper.from_array(order, "order"))
    made.graph.node[0].input.extend(["order"] if zeros else ["", "order"])
    compare(made, feeds, tmp_path, tolerance=1e-3)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(
    ("kind", "opset"),
    [(TensorProto.UINT4, 21), (TensorProto.INT4, 21), (TensorProto.UINT8, 21), (2, 17)],
)
def test_a_table_in_blocks(kind: int, opset: int, zeros: bool, tmp_path: Path) -> None:
    """In four bits, or two of them a byte."""
    low = -8 if kind == TensorProto.INT4 else 0

    def four(name: str, *shape: int) -> onnx.TensorProto:
        numbers = GENERATOR.integers(low, low + 16, size=shape)
        if kind == TensorProto.UINT8:
            packed = numbers[:, 0::2] | numbers[:, 1::2] << 4
            return numpy_helper.from_array(packed.astype(np.uint8), name)
        return helper.make_tensor(name, kind, shape, numbers.ravel().tolist())

    own: dict[str, Any] = {"s": GENERATOR.uniform(0.01, 0.02, size=(10, 2)).astype(np.float32)}
    feeds = {"ids": np.array([[3, 9, 0], [1, 1, 5]])}
    names = "t ids s k" if zeros else "t ids s"
    bits = {"bits": 4} if kind == TensorProto.UINT8 else {}
    look = ms(
        "GatherBlockQuantized",
        names,
        "y",
        block_size=16,
        gather_axis=0,
        quantize_axis=1,
        **bits,
    )
    made = model([look], feeds, own, opset=opset)
    made.graph.initializer.append(four("t", 10, 32))
    if zeros:
        made.graph.initializer.append(four("k", 10, 2))
    compare(made, feeds, tmp_path)


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize(("bits", "columns"), [(2, 32), (4, 48), (4, 40), (8, 48)])
def test_a_table_whose_packed_zero_points_do_not_fill_their_bytes(
    bits: int, columns: int, opset: int, tmp_path: Path
) -> None:
    blocks = -(-columns // 16)
    own = {
        "t": weights(np.uint8, 10, columns * bits // 8),
        "s": GENERATOR.uniform(0.01, 0.02, size=(10, blocks)).astype(np.float32),
        "k": weights(np.uint8, 10, -(-blocks * bits // 8)),
    }
    feeds = {"ids": np.array([[3, 9, 0], [1, 1, 5]])}
    places = {"block_size": 16, "gather_axis": 0, "quantize_axis": 1}
    look = ms("GatherBlockQuantized", "t ids s k", "y", bits=bits, **places)
    compare(model([look], feeds, own, opset=opset), feeds, tmp_path)


def test_a_mean_of_whole_numbers(tmp_path: Path) -> None:
    """The processor has no kernel for it."""
    x = GENERATOR.normal(size=(2, 5, 4)).astype(np.float32)
    own = {
        "xs": np.float32(0.05),
        "xz": np.uint8(120),
        "ys": np.float32(0.0173),
        "yz": np.uint8(128),
    }
    mean = ms("QLinearReduceMean", "xq xs xz ys yz", "yq", axes=[-1, 1], keepdims=0)
    onnx.save(model([READ_X, mean, WRITE], {"x": x}, own), tmp_path / "model.onnx")
    found = RuntimeForward(Model.open(tmp_path / "model.onnx"), ["y"])({"x": x})["y"]
    read = (np.clip(np.rint(x / own["xs"]) + 120, 0, 255) - 120) * own["xs"]
    steps = np.clip(np.rint(read.mean(axis=(1, 2)) / own["ys"]) + 128, 0, 255)
    np.testing.assert_allclose(found, (steps - 128) * own["ys"], atol=1e-6)
