"""Rows of operands: the axis of each operand that is aligned with an axis of the result.

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
    """For every operand its axis that is aligned with ``axis`` of ``output``, ``None`` for none.

    All axes are counted from the front.

    Args:
        node: The node.
        output: One of its results.
        axis: An axis of the result.
        shapes: Shapes of a trial run.

    Returns:
        One entry for each operand; ``None`` instead where the operation is not row-wise along the
        axis, or not known to be.
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
    """Pairs (operand, axis) whose entry i makes entry i of the result; ``None`` if not row-wise."""
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
        case How.REGROUPED:  # only axes of length one are added or removed
            return along if along and prod(lengths) == size > 1 else None
        case _:
            return None


def _length(value: ir.Value | None, axis: int, usual: int, shapes: Mapping[ir.Value, Shape]) -> int:
    shape = shapes.get(value) if value is not None else None
    return usual if shape is None else shape[axis]


def factor_axes(
    node: ir.Node, index: int, shapes: Mapping[ir.Value, Shape]
) -> dict[int, int | None]:
    """Axis of a product (from the right) → the aligned axis of operand ``index``, or ``None``."""
    result = node.outputs[0]
    rank = len(shapes[result])
    found = (source_axes(node, result, axis, shapes) for axis in range(rank))
    return {
        axis - rank: None if sources is None else sources[index]
        for axis, sources in enumerate(found)
    }


def selected_tables(
    graph: ir.Graph, content: Mapping[ir.Value, None], shapes: Mapping[ir.Value, Shape]
) -> set[tuple[ir.Node, int]]:
    """Factors of products along one of whose axes ``GatherElements`` selects.

    As in disentangled attention: queries × a table of relative positions, of which every query
    selects the column of its distance to every key.

    Returns:
        Operands (node, index) without content.
    """
    found = set()
    for node in graph:
        data = node.inputs[0] if node.inputs else None
        if node.op_type != "GatherElements" or data is None or data not in content:
            continue
        axis = node.attributes.get_int("axis", 0) % len(shapes[data])
        if (operand := _factor_along(data, axis, content, shapes)) is not None:
            found.add(operand)
    return found


def _factor_along(
    value: ir.Value, axis: int, content: Mapping[ir.Value, None], shapes: Mapping[ir.Value, Shape]
) -> tuple[ir.Node, int] | None:
    """The factor without content that an axis of a product of content runs along."""
    while (node := value.producer()) is not None:
        sources = source_axes(node, value, axis, shapes)
        if sources is None:
            return None
        operands = list(zip(node.inputs, sources, strict=True))
        if has(node, Trait.PRODUCT):
            along = [i for i, (v, own) in enumerate(operands) if own is not None]
            if len(along) == 1 and node.inputs[along[0]] not in content:
                return node, along[0]
        onward = ((v, own) for v, own in operands if v in content and v is not None)
        value, own = next(onward, (value, None))
        if own is None:
            return None
        axis = own
    return None
