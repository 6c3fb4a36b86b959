"""Sparse arrays of a file become dense ones, so that everything after knows only these.

A sparse array has the numbers that are not zero and their indices: one into the flattened array for
each number, or one for every axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import numpy_helper

from palrp_onnx.errors import ModelError
from palrp_onnx.types import Array

#: The most bytes of the dense forms of all sparse arrays of a file.
MAX_BYTES = 2**30


def make_dense(model: onnx.ModelProto) -> None:
    """Replace sparse initializers and sparse constants by dense ones, in place.

    Raises:
        ModelError: An array is malformed, or all of them are too large.
    """
    _Dense().in_graph(model.graph)


class _Dense:
    """Makes arrays dense, up to a number of bytes."""

    def __init__(self) -> None:
        self._left = MAX_BYTES

    def in_graph(self, graph: onnx.GraphProto) -> None:
        """Replace the sparse arrays of a graph and of graphs inside of it."""
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            graph.initializer.append(numpy_helper.from_array(self._array(sparse, name), name))
        del graph.sparse_initializer[:]
        self._in_nodes(graph.node)

    def _in_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self.in_graph(attribute.g)
                elif attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                    dense = self._array(attribute.sparse_tensor, f"constant {node.output[0]}")
                    attribute.CopyFrom(
                        onnx.helper.make_attribute("value", numpy_helper.from_array(dense))
                    )

    def _array(self, sparse: onnx.SparseTensorProto, name: str) -> Array:
        place = f"sparse tensor {name!r}"
        dims = tuple(sparse.dims)
        try:
            values = numpy_helper.to_array(sparse.values)
            indices = numpy_helper.to_array(sparse.indices)
        except Exception as error:  # external data, or data that does not match its shape
            raise ModelError("A sparse tensor cannot be read", place=place) from error
        if any(size < 0 for size in dims) or values.ndim != 1 or values.dtype.kind not in "fiub":
            raise ModelError("A sparse tensor is malformed", place=place)
        size = math.prod(dims)
        self._left -= size * values.itemsize
        if self._left < 0:
            raise ModelError(
                f"Sparse tensors would have more than {MAX_BYTES} bytes as dense ones", place=place
            )
        flat = _flattened(indices, dims, len(values))
        if flat is None or len(np.unique(flat)) != len(flat):
            raise ModelError(
                "The indices of a sparse tensor are not those of its axes", place=place
            )
        dense = np.zeros(size, values.dtype)
        dense[flat] = values
        return dense.reshape(dims)


def _flattened(indices: Array, dims: tuple[int, ...], count: int) -> Array | None:
    """Indices into the flattened array; ``None`` where they do not fit it."""
    if indices.dtype != np.int64:
        return None
    if indices.shape == (count,):
        inside = (indices >= 0) & (indices < math.prod(dims))
        return indices if inside.all() else None
    if indices.shape != (count, len(dims)):
        return None
    inside = (indices >= 0) & (indices < np.array(dims, np.int64))
    if not inside.all():
        return None
    found: Array = np.ravel_multi_index(tuple(indices.T), dims) if count else indices[:, 0]
    return found
