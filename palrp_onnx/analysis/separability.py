"""Whether samples of a batch are separate, by runs of two samples and of each alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.analysis.axes import BATCH, Mixing
from palrp_onnx.analysis.layout import Axis, Layout, flag_of
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.signature import GraphInput
from palrp_onnx.types import Array

#: Values that differ by less, relative to the largest entry, are equal.
_SAME = 1e-3
#: A value that differs by more, while its operands are equal, depends on another sample.
_OTHER = 0.1


def each_alone(
    signatures: Sequence[GraphInput],
    feeds: Mapping[str, Array],
    batches: Mapping[str, int | None],
) -> list[dict[str, Array]]:
    """The samples of an example as examples of their own; none where there is only one.

    Args:
        signatures: Inputs of the graph.
        feeds: The example.
        batches: Axis of samples by input, where it is not the first.
    """
    symbols = {s.shape[k] for s in signatures if s.shape and (k := batches.get(s.name)) is not None}
    axes: dict[str, int] = {}
    for each in signatures:
        shape = each.shape or ()
        default = next((k for k, d in enumerate(shape) if d in symbols), None) if batches else 0
        axis = batches.get(each.name, default)
        if axis is not None and shape and isinstance(shape[axis], str):
            axes[each.name] = axis
    several = {n: k for n, k in axes.items() if feeds[n].shape[k] > 1}
    return [
        {n: a.take([row], several[n]) if n in several else a for n, a in feeds.items()}
        for row in range(min((feeds[n].shape[k] for n, k in several.items()), default=0))
    ]


def mixed_values(
    nodes: Iterable[ir.Node],
    layouts: Mapping[ir.Value, Layout],
    whole: Mapping[str, Array],
    alone: Iterable[Mapping[str, Array]],
) -> dict[ir.Value, Mixing]:
    """Values that another sample changes, although it changes none of their operands.

    Args:
        nodes: Nodes in topological order.
        layouts: Layouts of content values.
        whole: Values of a run of all samples.
        alone: Values of runs of each sample alone, in order.
    """
    order, found = list(nodes), dict[ir.Value, Mixing]()
    for sample, values in enumerate(alone):
        changes: dict[ir.Value, float] = {}
        for node in order:
            own = [changes.get(v, 0.0) for v in node.inputs if v is not None]
            if has(node, Trait.MEASURES):  # over the batch; such samples are explained one by one
                own.append(1.0)
            for value in node.outputs:
                if value not in layouts:
                    changes[value] = max(own, default=0.0)
                    continue
                name = value.name or ""
                change = _change(whole.get(name), values.get(name), layouts[value], sample)
                changes[value] = change
                if change > _OTHER and all(each < _SAME for each in own):
                    reason = f"another sample changes the result of {node.op_type}"
                    found[value] = Mixing(reason, alone=True)
    return found


def _change(whole: Array | None, alone: Array | None, layout: Layout, sample: int) -> float:
    """Largest difference of a sample from its run alone, relative to its largest entry."""
    if whole is None or alone is None or whole.ndim != len(layout) or whole.ndim != alone.ndim:
        return 0.0
    for axis, runs in enumerate(layout):
        if flag_of(runs) & BATCH:
            own = _entries_of(runs, sample)
            if (
                own is None or whole.shape[axis] == alone.shape[axis]
            ):  # the value has its own batch size
                return 0.0
            whole = np.take(whole, own, axis=axis)
    if whole.shape != alone.shape or not whole.size:
        return 0.0
    known = np.isfinite(whole) & np.isfinite(alone)
    first, other = whole[known].astype(np.float64), alone[known].astype(np.float64)
    scale = np.abs(other).max(initial=0.0)
    return float(np.abs(first - other).max(initial=0.0) / scale) if scale else 0.0


def _entries_of(axis: Axis, sample: int) -> NDArray[Any] | None:
    """The entries of an axis that belong to a sample; ``None`` where they are unknown."""
    row = list(axis[0]) if len(axis) == 1 else []
    merged = any(f.flag & BATCH and (f.flag != BATCH or (f.of and len(row) > 1)) for f in row)
    if merged or not row:
        return None
    entries = np.arange(prod(f.size for f in row)).reshape([f.size for f in row])
    for k, factor in enumerate(row):
        if factor.flag & BATCH:
            entries = np.take(entries, [min(sample, factor.size - 1)], axis=k)
    return entries.ravel()
