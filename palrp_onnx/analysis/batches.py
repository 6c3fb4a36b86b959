"""Which axis of every explained input runs over samples: the one along which nothing is combined.

By convention that is the first axis. Where the graph combines entries along it, other axes are
tried in order: sequence-first models have [T, B, F]. Where entries along every axis are combined,
the whole input is one sample. Inputs with the same number of axes have the same layout if they can:
queries alone would be separate along their tokens, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.analysis.axes import Layouts, Mixing, find_layouts
from palrp_onnx.analysis.input_axes import InputAxes, fixed_batch, input_axes
from palrp_onnx.analysis.inputs import InputRoles
from palrp_onnx.analysis.layout import Source
from palrp_onnx.model.follow import values_before
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.types import Shape

#: Explained input → its batch axis; ``None`` where the whole input is one sample.
Batches = Mapping[str, int | None]


def find_batches(
    graph: ir.Graph,
    roles: InputRoles,
    content: Mapping[ir.Value, None],
    shapes: Mapping[ir.Value, Shape],
    indices: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, InputAxes], Layouts]:
    """Axes of every explained input, and the layouts that follow from them.

    Only values that the first output depends on count: another output may be a statistic of the
    whole batch.

    Args:
        graph: The plain graph.
        roles: Roles of its inputs.
        content: Content values in topological order.
        shapes: Shapes of a trial run.
        indices: Integer and boolean values of that run by name.
    """

    def axes_with(name: str, *batch: int | None) -> InputAxes:
        return input_axes(graph, roles, name, shapes, *batch)

    def follow(found: Mapping[str, InputAxes]) -> tuple[Layouts, dict[str, bool]]:
        layouts = find_layouts(graph, roles, content, shapes, indices, found)
        return layouts, _unfit(graph, content, found, layouts)

    found = {name: axes_with(name) for name in roles.explained()}
    first = dict(found)
    values = {v.name: v for v in graph.inputs}
    layouts, unfit = follow(found)
    singly = {name for name, alone in unfit.items() if alone and _one_by_one(values[name])}
    rest: dict[str, list[int | None]] = {}
    while unfit:
        for name in unfit:
            if name not in rest:
                rest[name] = _others(values[name], found[name])
            found[name] = axes_with(name, rest[name].pop(0))
        layouts, unfit = follow(found)
    kept = {name: first[name] for name in singly if found[name].batch is None}
    found |= kept
    alike = {name: axes_with(name, batch) for name, batch in _like_others(found, rest).items()}
    if not kept and not alike:
        return found, layouts
    layouts, unfit = follow(found | alike)
    if unfit.keys() <= kept.keys():
        return found | alike, layouts
    return found, follow(found)[0]


def _unfit(
    graph: ir.Graph,
    content: Mapping[ir.Value, None],
    found: Mapping[str, InputAxes],
    layouts: Layouts,
) -> dict[str, bool]:
    """Inputs whose axis is no batch; whether a batch of one could still be explained.

    Samples are combined, or the output has no axis for them. Or the batch has a fixed length, so
    that samples cannot run alone, although they would have to: an input that they all share gets
    relevance, scales are measured over all of them, or rows of several are in one axis.
    """
    output = next((v for v in graph.outputs if v in content), None)
    if output is None:
        return {}
    counted = set(values_before([output]))
    own = [mixing for value, mixing in layouts.mixing.items() if value in counted]
    unfit = _combined(found, layouts, own)
    reached = {v.name or "": v for v in graph.inputs if v in counted and v.name in found}
    batches = {
        name: None if (axis := found[name].batch) is None else layouts.canonical((name, axis))
        for name in reached
    }
    together = any(v in layouts.ragged for v in counted) or any(
        has(node, Trait.MEASURES) for node in graph if not counted.isdisjoint(node.outputs)
    )
    for name, batch in batches.items():
        if batch is None:
            continue
        dims, axis = list(reached[name].shape or ()), found[name].batch or 0
        length = dims[axis] if axis < len(dims) else None
        if length == 1:
            continue
        shared = any(other != batch for other in batches.values())
        alone = shared or together
        if not layouts.keeps(output, batch) or (alone and isinstance(length, int)):
            unfit[name] = False
    return unfit


def _like_others(found: Mapping[str, InputAxes], moved: Collection[str]) -> dict[str, int]:
    """The batch axis of inputs with as many axes, for those that could keep their own."""
    ranks = {len(found[n].flags): found[n].batch for n in moved if found[n].batch is not None}
    others = {name: ranks.get(len(found[name].flags)) for name in found if name not in moved}
    return {name: batch for name, batch in others.items() if batch is not None}


def _combined(
    found: Mapping[str, InputAxes], layouts: Layouts, mixing: Collection[Mixing]
) -> dict[str, bool]:
    """Inputs whose samples are combined; whether a batch of one could still be explained."""
    alone: dict[Source, bool] = {}
    for each in mixing:
        for source in map(layouts.canonical, each.sources):
            alone[source] = alone.get(source, True) and each.alone
    own = {n: layouts.canonical((n, a.batch)) for n, a in found.items() if a.batch is not None}
    return {name: alone[source] for name, source in own.items() if source in alone}


def _others(value: ir.Value, axes: InputAxes) -> list[int | None]:
    """Other axes to try in order, then none; an image has the axes that a convolution reads."""
    if fixed_batch(value, len(axes.flags)):
        return [None]
    return [*(k for k in range(len(axes.flags)) if k != axes.batch), None]


def _one_by_one(value: ir.Value) -> bool:
    """Whether an input whose samples are combined is explained one sample at a time.

    That is so for batches of any length; one of fixed length is a whole. So is a table of one or
    two axes: without a batch its rows are tokens.
    """
    dims = list(value.shape) if value.shape is not None else []
    integers = value.dtype is not None and value.dtype.is_integer()
    free = bool(dims) and (not isinstance(dims[0], int) or dims[0] == 1)
    return free and len(dims) > (1 if integers else 2)
