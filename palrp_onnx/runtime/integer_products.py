"""Integer products in a forward pass in float64: run by ONNX Runtime, one node at a time.

The result of such a kernel depends on the machine, and it is the value that is explained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from palrp_onnx.model.native import OPERATIONS
from palrp_onnx.session import Session
from palrp_onnx.types import Array


def runtime_operations(model: onnx.ModelProto) -> list[type]:
    """The integer products of a model as operations of the onnx package's evaluator.

    Args:
        model: The model. Its initializers stay initializers, as kernels may depend on that.
    """
    from onnx.reference.op_run import OpRun

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    imports = list(model.opset_import)

    def made(domain: str, op_type: str) -> type:
        class Product(OpRun):
            op_domain = domain

            def _run(self, *operands: Array | None, **_: Any) -> tuple[Array, ...]:
                if not hasattr(self, "_one"):
                    self._one = OneNode(self.onnx_node, stored, imports)
                return self._one(operands)

        Product.__name__ = op_type
        return Product

    found = {(n.domain, n.op_type) for n in model.graph.node if n.op_type in OPERATIONS}
    return [made(domain, op_type) for domain, op_type in sorted(found)]


class OneNode:
    """One node in ONNX Runtime, with real numbers in single precision, as its kernel has them.

    Args:
        node: The node.
        stored: Initializers of its graph by name.
        imports: Opsets of its graph.
    """

    def __init__(
        self,
        node: onnx.NodeProto,
        stored: Mapping[str, onnx.TensorProto],
        imports: list[onnx.OperatorSetIdProto],
    ) -> None:
        self._node = node
        self._stored = [_narrow(stored[name]) for name in node.input if name in stored]
        self._names = [name for name in node.input if name and name not in stored]
        self._imports = imports
        self._session: Session | None = None

    def __call__(self, operands: tuple[Array | None, ...]) -> tuple[Array, ...]:
        """The results, real numbers in float64."""
        given = dict(zip(self._node.input, operands, strict=True))
        feeds = {name: _single(np.asarray(given[name])) for name in self._names}
        if self._session is None:
            self._session = self._opened(feeds)
        outputs = [name for name in self._node.output if name]
        values = self._session.run(outputs, feeds)
        return tuple(_wide(values[name]) for name in outputs)

    def _opened(self, feeds: Mapping[str, Array]) -> Session:
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
            )
            for name, array in feeds.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in self._node.output if name]
        graph = helper.make_graph([self._node], "one", inputs, outputs, self._stored)
        model = helper.make_model(graph, opset_imports=self._imports, ir_version=10)
        return Session(model.SerializeToString(), Path(), optimise=False)


def _narrow(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type != onnx.TensorProto.DOUBLE:
        return tensor
    return numpy_helper.from_array(_single(numpy_helper.to_array(tensor)), tensor.name)


def _single(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array
