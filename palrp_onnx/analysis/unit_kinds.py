"""What the units of an explained input are: tokens, patches, steps, columns or nodes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.input_axes import TOKEN
from palrp_onnx.analysis.observations import Observations
from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has
from palrp_onnx.model.values import is_float
from palrp_onnx.record import UnitKind

#: Operations after which every entry is still one of the input's.
_ALONE = ELEMENTWISE | Trait.RANK | Trait.RETYPES | Trait.RESHAPE | Trait.INTEGER
_TABLE = 2


def unit_kind(seen: Observations, name: str, *, placed: bool) -> UnitKind:
    """What the units of the explained input ``name`` are, from how the graph reads it.

    Columns of a table have weights, or offsets into one table of rows, of their own; steps of a
    series share them. Sound is a series. Nodes are vectors beside a number for every pair of them,
    in a graph without positions.

    Args:
        seen: The observations.
        name: The input.
        placed: Whether the graph has positions.
    """
    axes = seen.input_axes(name)
    value = next(v for v in seen.model.graph.inputs if v.name == name)
    flat = len(seen.shapes[value]) == _TABLE
    if axes.channels is not None:
        return "patch"
    if flat and (not any(axes.flags[k] & TOKEN for k in axes.units) or _columns(seen, value)):
        return "column"
    if name in seen.inputs.looked_up():
        return "token"
    return "node" if not placed and _paired(seen, value, axes.units) else "step"


def _columns(seen: Observations, value: ir.Value) -> bool:
    """Whether entries of [B, columns] have weights, or integers offsets, of their own."""
    columns, whole = seen.shapes[value][1], not is_float(value)

    def onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
        return node.outputs if has(node, _ALONE) else ()

    def own(other: ir.Value | None) -> bool:
        stored = None if other is None or other in seen.content else seen.entries(other)
        # A factor of [B, columns] itself may be a scaler; one of [B, columns, 1] is weights.
        rank = 0 if stored is None else stored.ndim
        if stored is None or columns == 1 or rank < (1 if whole else _TABLE):
            return False
        place = rank - 1 if whole else rank - 2
        rows = np.moveaxis(stored, place, 0).reshape(stored.shape[place], -1)
        return len(rows) == columns and len(np.unique(rows, axis=0)) > 1

    return any(
        has(node, Trait.SUM if whole else Trait.SCALE)
        and any(own(other) for k, other in enumerate(node.inputs) if k != index)
        for node, index in uses_of([value], onward)
    )


def _paired(seen: Observations, value: ir.Value, units: Iterable[int]) -> bool:
    """Whether another input has a number for every pair of units, as edges of a graph are."""
    lengths = {seen.shapes[value][k] for k in units}
    others = (seen.shapes[v] for v in seen.model.graph.inputs if v is not value)
    return any(shape[-1] == shape[-2] and shape[-1] in lengths for shape in others if shape[1:])
