"""Multipliers that are zero except for one row (token) of each sample.

A classifier that reads one token – a class token, the last token, one position of a language model
– sends relevance to one row of the last layer. Between the output and the attention of that layer
every operation is row-wise, so the walk carries that row alone: the same rules on rows of values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.axes import BATCH, TOKEN, sample_axis
from palrp_onnx.analysis.dims import index_entries
from palrp_onnx.analysis.sources import source_axes
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has
from palrp_onnx.relevance.plan import Plan, Step, View
from palrp_onnx.tensor.language import Language

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Rows(Generic[T]):
    """One row of each sample, along one axis of a value.

    Attributes:
        index: Which row [B].
        batch: Axis (from the right) whose outermost factor is the batch.
        axis: Axis (from the right) of the rows; equal to ``batch`` if it holds samples × tokens.
        shared: Whether the value has no batch axis; ``batch`` is then that of the node's output.
    """

    index: T
    batch: int
    axis: int
    shared: bool = False

    def __eq__(self, other: object) -> bool:
        """Equal axes and the same index; the index is a tensor, and compared by identity."""
        if not isinstance(other, Rows):
            return NotImplemented
        mine, theirs = (r.index is self.index and (r.batch, r.axis) for r in (self, other))
        return mine == theirs

    def take(self, op: Language[T], value: T) -> T:
        """These rows of a value; ``axis`` then has length 1, and a shared value a batch axis."""
        if self.shared:
            return op.take_shared_rows(value, self.index, self.batch, self.axis)
        return op.take_rows(value, self.index, self.batch, self.axis)

    def put(self, op: Language[T], rows: T, like: T) -> T:
        """Zeros shaped like ``like``, with the rows in their places."""
        return op.put_rows(rows, like, self.index, self.batch, self.axis)


class RowView(View[T]):
    """A node as rules see it, reduced to single rows of its values."""

    def __init__(
        self,
        op: Language[T],
        plan: Plan,
        node: ir.Node,
        values: Callable[[ir.Value], T],
        outputs: Rows[T],
        inputs: tuple[Rows[T] | None, ...],
    ) -> None:
        super().__init__(plan, node, values)
        self._op = op
        self._rows = outputs
        self._sources = inputs

    def input(self, index: int) -> T:
        """Forward value of an input, or its rows where the operation is row-wise in it."""
        rows, value = self._sources[index], super().input(index)
        return value if rows is None else rows.take(self._op, value)

    def scores(self, index: int) -> T | None:
        """Pre-softmax scores of the operand, or their rows."""
        rows, scores = self._sources[index], super().scores(index)
        return scores if rows is None or scores is None else rows.take(self._op, scores)

    def _result(self, value: ir.Value) -> T:
        return self._rows.take(self._op, super()._result(value))


def rows_before(
    analysis: Analysis, node: ir.Node, output: ir.Value, rows: Rows[T]
) -> tuple[Rows[T] | None, ...] | None:
    """The rows of every operand, ``None`` for a whole operand; ``None`` if not row-wise."""
    rank = len(analysis.shapes[output])
    tokens, batch = (
        source_axes(node, output, rank + axis, analysis.shapes) for axis in (rows.axis, rows.batch)
    )
    if tokens is None or batch is None:
        return _regrouped(analysis, node, output, rows)
    found: list[Rows[T] | None] = []
    for value, token, sample in zip(node.inputs, tokens, batch, strict=True):
        if value is None or token is None:
            found.append(None)
            continue
        size = len(analysis.shapes[value])
        if sample is not None:
            found.append(Rows(rows.index, sample - size, token - size))
        elif has(node, ELEMENTWISE | Trait.LIKE) or node.op_type in ("Expand", "MatMul"):
            found.append(Rows(rows.index, rows.batch, token - size, shared=True))
        else:
            return None
    return tuple(found)


def _regrouped(
    analysis: Analysis, node: ir.Node, output: ir.Value, rows: Rows[T]
) -> tuple[Rows[T] | None, ...] | None:
    """The rows before a reshape that merges or splits the axes of samples and tokens."""
    source = node.inputs[0]
    if not has(node, Trait.RESHAPE) or source is None:
        return None
    before, after = analysis.shapes[source], analysis.shapes[output]
    rest = (None,) * (len(node.inputs) - 1)
    merged = rows.batch == rows.axis == -len(after)
    if merged and before[2:] == after[1:] and before[0] * before[1] == after[0]:
        return Rows(rows.index, -len(before), 1 - len(before)), *rest
    split = (rows.batch, rows.axis) == (-len(after), 1 - len(after))
    if split and before[1:] == after[2:] and before[0] == after[0] * after[1]:
        return Rows(rows.index, -len(before), -len(before)), *rest
    return None


class _Pick(NamedTuple):
    """How a node picks one row of each sample.

    Attributes:
        how: Its second input is one index for all samples, a column of coordinates, or an index
            into samples × tokens.
        batch: Batch axis of its first input, from the right.
        axis: Axis of the rows of its first input, from the right.
        removed: Axis that the node removes.
    """

    how: Literal["one", "column", "within"]
    batch: int
    axis: int
    removed: int | None


def picked_row(
    op: Language[T], plan: Plan, step: Step, values: Callable[[ir.Value], T], m: T
) -> tuple[T, Rows[T]] | None:
    """The rows of the first input that a node picks, and their multiplier; ``None`` if it does not.

    The node picks exactly one row of each sample.
    """
    find = _PICKS.get(step.node.op_type)
    source = step.node.inputs[0]
    if find is None or source is None or len(plan.analysis.axes.get(source, ())) < 2:
        return None
    pick = find(plan.analysis, step.node, source)
    if pick is None:
        return None
    index = plan.view(step, values).input(1)
    if pick.how == "one":
        index = op.row_index(index)
    elif pick.how == "column":
        index = op.row_column(index, 1)
    else:
        index = op.row_within(index, values(source))
    rows = m if pick.removed is None else op.unsqueeze(m, [pick.removed])
    return rows, Rows(index, pick.batch, pick.axis)


def _gather(analysis: Analysis, node: ir.Node, source: ir.Value) -> _Pick | None:
    """``Gather`` of one token of every sample; an axis may hold samples × tokens."""
    flags, rank = analysis.axes[source], len(analysis.axes[source])
    axis = node.attributes.get_int("axis", 0) % rank
    index, batch = index_entries(node.inputs[1], analysis.indices), sample_axis(flags)
    if index is None or analysis.shapes[source][axis] < 2:
        return None
    if flags[axis] == TOKEN and index.size == 1 and batch is not None:
        return _Pick("one", batch, axis - rank, axis if index.ndim == 0 else None)
    if flags[axis] == BATCH | TOKEN and axis == 0 and index.ndim == 1 and len(index) > 1:
        size = analysis.shapes[source][0]
        length = size // len(index)
        if size % len(index) == 0 and np.array_equal(index % size // length, range(len(index))):
            return _Pick("within", -rank, -rank, None)
    return None


def _gather_nd(analysis: Analysis, node: ir.Node, source: ir.Value) -> _Pick | None:
    """``GatherND`` with coordinates (sample, token), every sample once."""
    index, rank = index_entries(node.inputs[1], analysis.indices), len(analysis.axes[source])
    if index is None or analysis.axes[source][:2] != (BATCH, TOKEN):
        return None
    samples = analysis.shapes[source][0]
    if node.attributes.get_int("batch_dims", 0) or index.shape != (samples, 2) or samples < 2:
        return None
    once = np.array_equal(index[:, 0], range(samples))
    return _Pick("column", -rank, 1 - rank, 1) if once else None


def _slice(analysis: Analysis, node: ir.Node, source: ir.Value) -> _Pick | None:
    """``Slice`` of length 1 along the tokens."""
    flags, starts = analysis.axes[source], index_entries(node.inputs[1], analysis.indices)
    before, after = analysis.shapes[source], analysis.shapes[node.outputs[0]]
    cut = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    batch = sample_axis(flags)
    if starts is None or starts.size != 1 or len(cut) != 1 or after[cut[0]] != 1 or batch is None:
        return None
    return _Pick("one", batch, cut[0] - len(flags), None) if flags[cut[0]] == TOKEN else None


_PICKS: dict[str, Callable[[Analysis, ir.Node, ir.Value], _Pick | None]] = {
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Slice": _slice,
}
