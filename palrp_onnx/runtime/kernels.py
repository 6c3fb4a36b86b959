"""Whether this machine multiplies bytes exactly.

On x86 processors without VNNI, ONNX Runtime's kernels for unsigned times signed bytes add two
neighbouring products in 16 bits, and cut off what does not fit. The same file then answers
differently on two machines.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from palrp_onnx.session import Session
from palrp_onnx.types import Array

#: Rows, columns and length of the product: enough for every kernel to take its usual path.
_ROWS, _COLUMNS, _LENGTH = 8, 32, 64
_BYTES = (np.uint8, np.int8)


@cache
def are_exact() -> bool:
    """Whether products of bytes are exact at their largest, in every combination of types.

    Found once per process by running them in ONNX Runtime.
    """
    return all(_is_exact(left, right) for left, right in product(_BYTES, _BYTES))


def _is_exact(left: Any, right: Any) -> bool:
    """Products of the largest numbers of two types, as a matrix product and as a convolution."""
    x = np.full((_ROWS, _LENGTH), np.iinfo(left).max, left)
    w = np.full((_LENGTH, _COLUMNS), np.iinfo(right).max, right)
    image, kernel = x.T.reshape(1, _LENGTH, _ROWS, 1), w.T.reshape(_COLUMNS, _LENGTH, 1, 1)
    exact = np.int32(np.int64(x[0, 0]) * np.int64(w[0, 0]) * _LENGTH)
    found = (run_one("MatMulInteger", (x, w)), run_one("ConvInteger", (image, kernel)))
    return all(bool((result == exact).all()) for result in found)


def run_one(op_type: str, operands: tuple[Array, ...]) -> Array:
    """The result of one operation of the standard, run by ONNX Runtime on the processor."""
    names = [f"x{index}" for index in range(len(operands))]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in zip(names, operands, strict=True)
    ]
    output = helper.make_tensor_value_info("y", TensorProto.INT32, None)
    node = helper.make_node(op_type, names, ["y"])
    graph = helper.make_graph([node], "one", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = Session(model.SerializeToString(), Path())
    return np.asarray(session.run(["y"], dict(zip(names, operands, strict=True)))["y"])
