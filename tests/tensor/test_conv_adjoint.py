"""The way back of a convolution in the graph: a convolution where windows begin everywhere."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from building import Array, real

from palrp_onnx.tensor.language import Window
from palrp_onnx.tensor.numpy import Eager
from palrp_onnx.tensor.onnx import Emit

CASES: dict[str, tuple[Window, tuple[int, ...], tuple[int, ...], bool]] = {
    "plain": (Window((1, 1), (0, 0, 0, 0), (1, 1), 1, (0, 0)), (6, 4, 3, 2), (7, 8), True),
    "padded": (Window((1, 1), (1, 0, 2, 1), (1, 1), 1, (0, 0)), (6, 4, 3, 2), (7, 8), True),
    "groups": (Window((1, 1), (1, 1, 1, 1), (1, 1), 2, (0, 0)), (6, 2, 3, 3), (7, 8), True),
    "by channel": (Window((1, 1), (1, 1, 1, 1), (1, 1), 4, (0, 0)), (4, 1, 3, 3), (5, 6), True),
    "dilated": (Window((1, 1), (2, 3, 2, 3), (2, 3), 1, (0, 0)), (2, 3, 3, 3), (9, 9), True),
    "upper": (Window((1, 1), "SAME_UPPER", (1, 1), 1, (0, 0)), (2, 3, 4, 3), (6, 5), True),
    "lower": (Window((1, 1), "SAME_LOWER", (1, 1), 1, (0, 0)), (2, 3, 4, 3), (6, 5), True),
    "series": (Window((1,), (2, 2), (1,), 1, (0,)), (5, 3, 5), (11,), True),
    "video": (
        Window((1, 1, 1), (1,) * 6, (1, 1, 1), 1, (0, 0, 0)),
        (2, 3, 3, 3, 3),
        (4, 5, 5),
        True,
    ),
    "strided": (Window((2, 1), (1, 1, 1, 1), (1, 1), 1, (0, 0)), (2, 3, 3, 3), (8, 6), False),
    "padded beyond": (Window((1, 1), (3, 0, 0, 0), (1, 1), 1, (0, 0)), (2, 3, 3, 3), (5, 5), False),
}


def emitted(m: Array, weight: Array, like: Array, window: Window) -> tuple[Array, set[str]]:
    """The adjoint as the graph computes it, and the operations in it."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="g")
    values = []
    for name, array in {"m": m, "weight": weight, "like": like}.items():
        value = ir.val(name, ir.DataType.FLOAT, array.shape)
        if name == "weight":
            value.const_value = ir.tensor(array, name=name)
            graph.register_initializer(value)
        else:
            graph.inputs.append(value)
        values.append(value)
    op = Emit(graph, values[0], {}, opset=18)
    graph.outputs.append(op.conv_adjoint(*values, window))
    data = ir.serde.serialize_model(ir.Model(graph, ir_version=10)).SerializeToString()
    (found,) = onnxruntime.InferenceSession(data).run(None, {"m": m, "like": like})
    return np.asarray(found), {node.op_type for node in graph}


@pytest.mark.parametrize("name", CASES)
def test_equals_numpy(name: str) -> None:
    window, kernel, plane, as_convolution = CASES[name]
    weight = real(*kernel, seed=1)
    x = real(2, kernel[1] * window.group, *plane, seed=2)
    eager = Eager(2, np.dtype(np.float32))
    m = eager.conv(x, weight, _windows(x, weight, window), window)
    found, operations = emitted(m, weight, x, window)
    expected = eager.conv_adjoint(m, weight, x, window)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert ("Conv" in operations) is as_convolution


def _windows(x: Array, weight: Array, window: Window) -> Array:
    """An array with a place for every window."""
    reach = [d * (k - 1) for d, k in zip(window.dilations, weight.shape[2:], strict=True)]
    half = len(reach)
    pads = (
        reach
        if isinstance(window.pads, str)
        else [a + b for a, b in zip(window.pads[:half], window.pads[half:], strict=True)]
    )
    lengths = zip(x.shape[2:], pads, reach, window.strides, strict=True)
    places = [(n + pad - r - 1) // step + 1 for n, pad, r, step in lengths]
    return np.zeros((len(x), len(weight), *places), np.float32)
