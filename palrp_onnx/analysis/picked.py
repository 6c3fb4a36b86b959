"""Rows that computed indices pick, and their way back to the places that they were picked from.

A mixture of experts gathers the tokens of an expert by indices that the router computes, and
scatters the results to the same indices. So a scatter undoes a gather as one reshape undoes
another, if both read the same index: it is computed in the same way, perhaps repeated for every
feature, and has the same entries in the trial run.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.model.ops import Trait, has

#: Operations whose result has the entries of the operand, repeated or in other axes.
_SAME_ENTRIES = Trait.RANK | Trait.RESHAPE | Trait.PERMUTE | Trait.REPEAT | Trait.RETYPES
#: Constants of at most so many entries are compared by their entries.
_SMALL = 64


def numbered(graph: ir.Graph) -> dict[ir.Value, int]:
    """Value → a number; values of one number are computed in the same way, up to their shape."""
    numbers: dict[Hashable, int] = {}
    found: dict[ir.Value, int] = {}

    def number(key: Hashable) -> int:
        return numbers.setdefault(key, len(numbers))

    def number_of(value: ir.Value | None) -> int:
        if value is None:
            return -1
        if value not in found:
            found[value] = number(_constant(value) or value)
        return found[value]

    for node in graph:
        operands = tuple(map(number_of, node.inputs))
        if has(node, _SAME_ENTRIES):
            found[node.outputs[0]] = operands[0]
            continue
        same = (node.domain, node.op_type, _attributes(node), operands)
        for k, value in enumerate(node.outputs):
            found[value] = number(value if has(node, Trait.SOURCE) else (same, k))
    return found


def _constant(value: ir.Value) -> Hashable | None:
    stored = value.const_value
    if stored is None or stored.size > _SMALL:
        return None
    return str(stored.dtype), stored.numpy().tobytes()


def _attributes(node: ir.Node) -> tuple[str, ...]:
    return tuple(sorted(str(a) for a in node.attributes.values()))


def gathered_places(
    node: ir.Node, index: NDArray[Any], sizes: Sequence[int]
) -> tuple[int, ...] | None:
    """Places that ``Gather`` or ``GatherND`` picks, among those of the axes of these ``sizes``.

    They are counted in row-major order; ``None`` where one index is not one place.
    """
    if node.op_type == "Gather":
        return _counted(index[:, None], sizes) if index.ndim == 1 else None
    batched = node.attributes.get_int("batch_dims", 0)
    return _counted(index, sizes) if index.ndim == 2 and not batched else None


def scattered_places(node: ir.Node, index: NDArray[Any], after: Sequence[int]) -> tuple[int, ...]:
    """Places that a scatter writes to, among those of the axes that it indexes."""
    if node.op_type == "ScatterND":
        return _counted(index.reshape(-1, index.shape[-1]), after[: index.shape[-1]])
    axis = node.attributes.get_int("axis", 0)
    rows = np.moveaxis(index, axis, 0).reshape(index.shape[axis], -1 if index.size else 1)
    equal = bool((rows == rows[:, :1]).all())
    return _counted(rows[:, :1], [after[axis]]) if equal else ()


def repeated_places(places: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """The places of all entries along further axes of these ``sizes``."""
    each = prod(sizes)
    return tuple(place * each + k for place in places for k in range(each))


def _counted(index: NDArray[Any], sizes: Sequence[int]) -> tuple[int, ...]:
    """Rows [N, axes] of an index as places in row-major order."""
    wrapped = np.where(index < 0, index + np.array(sizes, np.int64), index)
    steps = np.array([prod(sizes[k + 1 :]) for k in range(len(sizes))], np.int64)
    return tuple(int(place) for place in wrapped @ steps)
