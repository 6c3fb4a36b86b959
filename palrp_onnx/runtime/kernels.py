"""Whether 8-bit integer products are exact on this machine.

On x86 processors without VNNI, ONNX Runtime's kernels for unsigned times signed bytes add two
neighbouring products in 16 bits with saturation. One file then has different results on two
machines.
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

#: Rows, columns and length of the product, large enough for the kernels that real models use.
_ROWS, _COLUMNS, _LENGTH = 8, 32, 64
_BYTES = (np.uint8, np.int8)


@cache
def are_exact() -> bool:
    """Whether products of the largest bytes are exact, in every combination of types.

    Measured once per process, in ONNX Runtime.
    """
    return all(_is_exact(left, right) for left, right in product(_BYTES, _BYTES))


def _is_exact(left: Any, right: Any) -> bool:
    """Whether a matrix product and a convolution of the largest numbers of two types are exact."""
    x = np.full((_ROWS, _LENGTH), np.iinfo(left).max, left)
    w = np.full((_LENGTH, _COLUMNS), np.iinfo(right).max, right)
    image, kernel = x.T.reshape(1, _LENGTH, _ROWS, 1), w.T.reshape(_COLUMNS, _LENGTH, 1, 1)
    exact = np.int32(np.int64(x[0, 0]) * np.int64(w[0, 0]) * _LENGTH)
    found = (run_one("MatMulInteger", (x, w)), run_one("ConvInteger", (image, kernel)))
    return all(bool((result == exact).all()) for result in found)


def run_one(op_type: str, operands: tuple[Array, ...]) -> Array:
    """The result of one standard operation with an int32 result, from ONNX Runtime on the CPU."""
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
