"""Where one axis of a result comes from: which axis of each operand runs along with it.

An operation is *row-wise* along an axis when entry i of the result along it depends only on entry i
of each operand that has the axis, and on operands without it as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx_ir as ir

from palrp_onnx.analysis.dims import How, Link, links_of
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.types import Shape

Sources = tuple[int | None, ...]


def source_axes(
    node: ir.Node, output: ir.Value, axis: int, shapes: Mapping[ir.Value, Shape]
) -> Sources | None:
    """For every operand its axis behind ``axis`` of ``output``, ``None`` where it has none.

    All axes are counted from the front; lengths are those of the trial run. ``None`` for all of
    it where the operation is not row-wise along the axis, or not known to be.
    """
    if not node.inputs or (node.inputs[0] is not None and node.inputs[0] not in shapes):
        return None
    links = links_of(node, output, shapes) or ()
    link = next((link for link in links if axis in link.results), None)
    pairs = None if link is None else _rows(node, link, shapes[output][axis], shapes)
    if pairs is None:
        return None
    found = dict(reversed(pairs))  # of two axes of an operand, the first
    return tuple(found.get(index) for index in range(len(node.inputs)))


def _rows(
    node: ir.Node, link: Link, size: int, shapes: Mapping[ir.Value, Shape]
) -> list[tuple[int, int]] | None:
    """Axes whose entry i alone makes entry i of an axis of ``size``; ``None`` if none does."""
    pairs = [(index, own) for index, own in link.axes if own is not None]
    if len(pairs) < len(link.axes):
        return None
    lengths = [_length(node.inputs[index], own, size, shapes) for index, own in pairs]
    along = [pair for pair, length in zip(pairs, lengths, strict=True) if length == size]
    match link.how:
        case How.SAME:
            return along
        case How.REPEATED:
            return along if {1, size}.issuperset(lengths) else None
        case How.REGROUPED:  # but for axes of length one around it, it is as it was
            return along if along and prod(lengths) == size > 1 else None
        case _:
            return None


def _length(value: ir.Value | None, axis: int, usual: int, shapes: Mapping[ir.Value, Shape]) -> int:
    shape = shapes.get(value) if value is not None else None
    return usual if shape is None else shape[axis]


def factor_axes(
    node: ir.Node, index: int, shapes: Mapping[ir.Value, Shape]
) -> dict[int, int | None]:
    """For every axis of a product (from the right) the axis of one factor behind it."""
    result = node.outputs[0]
    rank = len(shapes[result])
    found = (source_axes(node, result, axis, shapes) for axis in range(rank))
    return {
        axis - rank: None if sources is None else sources[index]
        for axis, sources in enumerate(found)
    }


def picked_tables(
    graph: ir.Graph, content: Mapping[ir.Value, None], shapes: Mapping[ir.Value, Shape]
) -> set[tuple[ir.Node, int]]:
    """Factors of products, one of whose axes is picked from by an index that is not content.

    Disentangled attention: queries × a table of relative positions, from which every query takes
    the column of its distance to every key.
    """
    found = set()
    for node in graph:
        data = node.inputs[0] if node.inputs else None
        if node.op_type != "GatherElements" or data is None or data not in content:
            continue
        axis = node.attributes.get_int("axis", 0) % len(shapes[data])
        if (operand := _factor_behind(data, axis, content, shapes)) is not None:
            found.add(operand)
    return found


def _factor_behind(
    value: ir.Value, axis: int, content: Mapping[ir.Value, None], shapes: Mapping[ir.Value, Shape]
) -> tuple[ir.Node, int] | None:
    """The factor without content that an axis of a product of content runs along."""
    while (node := value.producer()) is not None:
        sources = source_axes(node, value, axis, shapes)
        if sources is None:
            return None
        operands = list(zip(node.inputs, sources, strict=True))
        if has(node, Trait.PRODUCT):
            behind = [i for i, (v, own) in enumerate(operands) if own is not None]
            if len(behind) == 1 and node.inputs[behind[0]] not in content:
                return node, behind[0]
        onward = ((v, own) for v, own in operands if v in content and v is not None)
        value, own = next(onward, (value, None))
        if own is None:
            return None
        axis = own
    return None
