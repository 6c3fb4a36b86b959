"""An example of what a graph takes, made up from the graph alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isqrt, prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.errors import InputError, ModelError, RoleError
from palrp_onnx.graph.follow import uses_of
from palrp_onnx.graph.inputs import is_float, lookups, meet, table_of, table_rows
from palrp_onnx.graph.model import Model
from palrp_onnx.graph.signature import GraphInput
from palrp_onnx.graph.sites import turns

Array = NDArray[Any]
LENGTH = 12
SAMPLES = 8000
#: The most numbers that one input of an example may have.
MAX_NUMBERS = 1 << 26
#: Image sizes tried after those that the model's own tables suggest.
_SIZES = (224, 384, 256, 336, 512, 448, 128, 96, 64, 48, 32, 28, 16, 8)


def example_feeds(model: Model, run: Callable[[Mapping[str, Array]], object]) -> dict[str, Array]:
    """Arrays that the graph runs on: ordinary tokens, nothing masked; noise for images.

    Args:
        model: The model.
        run: Runs the graph, raising ``InputError`` for arrays it does not take.

    Raises:
        RoleError: None of the examples tried runs.
    """
    problem = ""
    for size in _sizes(model):
        feeds = {s.name: _example(model, s, size) for s in model.inputs}
        try:
            run(feeds)
        except InputError as error:
            problem = error.hint or error.message
        else:
            return feeds
    raise RoleError("No example input could be made up that the model runs on", hint=problem)


def _sizes(model: Model) -> Iterator[int]:
    if not any(s.dtype.kind == "f" and len(s.shape or ()) == 4 for s in model.inputs):
        yield 0
        return
    kernels = [
        n.attributes.get_ints("kernel_shape", ()) for n in model.graph if n.op_type == "Conv"
    ]
    patch = kernels[0][0] if kernels and kernels[0] else 1
    for value in model.graph.initializers.values():
        shape = value.shape.numpy() if value.shape is not None else ()
        if len(shape) == 3 and shape[0] == 1:
            for prefix in range(3):
                side = isqrt(max(shape[1] - prefix, 0))
                if side > 1 and side * side == shape[1] - prefix:
                    yield side * patch
    yield from _SIZES


def _example(model: Model, signature: GraphInput, size: int) -> Array:
    generator = np.random.default_rng(0)
    shape = _shape(signature, size)
    if signature.dtype.kind == "f":
        return generator.normal(size=shape).astype(signature.dtype)
    values = {v.name: v for v in model.graph.inputs}
    value = values[signature.name]
    length = shape[-1] if shape else 1
    counting = np.broadcast_to(np.arange(length) if shape else 0, shape)
    found = lookups(value)
    if not found:
        return (counting if _reaches_rotation(value) else np.ones(shape)).astype(signature.dtype)
    rows = max(map(table_rows, found))
    if _beside_words(value, found, rows, list(values.values())):
        return (counting if rows >= length else np.zeros(shape)).astype(signature.dtype)
    if _turning(found[0]):
        return counting.astype(signature.dtype)
    return generator.integers(min(5, rows - 1), rows, size=shape).astype(signature.dtype)


def _beside_words(value: ir.Value, found: list[ir.Node], rows: int, inputs: list[ir.Value]) -> bool:
    """Whether its table's rows are added to those of a larger table, or of an earlier equal one."""
    before = inputs.index(value)
    for index, other in enumerate(inputs):
        theirs = lookups(other) if other is not value and not is_float(other) else []
        size = max(map(table_rows, theirs), default=0)
        if (size > rows or (size == rows and index < before)) and meet(found, theirs):
            return True
    return False


def _shape(signature: GraphInput, size: int) -> tuple[int, ...]:
    """Fixed axes as they are; a free first axis is 1, free image sides ``size``, others tokens."""
    dims = signature.shape or ()
    image = len(dims) == 4 and signature.dtype.kind == "f"
    sound = len(dims) == 2 and signature.dtype.kind == "f"
    free = {0: 1, 1: 3 if image else SAMPLES if sound else LENGTH}
    shape = tuple(
        dim if isinstance(dim, int) and dim > 0 else free.get(k, size if image else LENGTH)
        for k, dim in enumerate(dims)
    )
    if prod(shape) > MAX_NUMBERS:
        raise ModelError(f"An input of the shape {shape} is too large", place=signature.name)
    return shape


def _reaches_rotation(value: ir.Value) -> bool:
    """Whether a cosine or sine is taken of what follows from an integer input."""
    uses = uses_of([value], lambda node, _: node.outputs if node.op_type in _TURNS else ())
    return any(node.op_type in ("Cos", "Sin") for node, _ in uses)


_TURNS = frozenset(
    "Cast Unsqueeze Reshape MatMul Mul Transpose Concat Einsum Expand Identity".split()
)


def _turning(node: ir.Node) -> bool:
    table = table_of(node)
    if table is None or table.const_value is None or table.const_value.shape.rank() != 2:
        return False
    return turns(table.const_value.numpy()[:LENGTH])
