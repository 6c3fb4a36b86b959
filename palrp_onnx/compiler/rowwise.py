"""Which rows of its operands a node needs for some rows of its result.

As :mod:`palrp_onnx.analysis.dims` says it, with what is true of single operations beside it: matrix
products with transpositions, selections, whose rows are those of the index, and triangles, which
move with the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from palrp_onnx.analysis.dims import How, Known, Link, links_of
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import constant_axes
from palrp_onnx.types import Shape

#: Axes of a factor: that of the result, ``None`` for a vector, and that which is summed over.
_Axes = tuple[int | None, int]
#: Results are aligned with one axis of each operand, whatever happens along it.
_ONE = frozenset((How.SAME, How.REPEATED, How.REGROUPED))


def is_product(node: ir.Node) -> bool:
    """Whether a node is a matrix product."""
    return node.op_type in ("MatMul", "FusedMatMul")


def factor_axes(node: ir.Node, left: int, right: int) -> tuple[_Axes, _Axes]:
    """Axes of the two factors of a matrix product; of these ranks."""
    turned = [node.attributes.get_int(name, 0) != 0 for name in ("transA", "transB")]
    first: _Axes = (None, 0) if left == 1 else (left - 2, left - 1)
    second: _Axes = (None, 0) if right == 1 else (right - 1, right - 2)
    return (
        (first[1], first[0]) if turned[0] and first[0] is not None else first,
        (second[1], second[0]) if turned[1] and second[0] is not None else second,
    )


def links(
    node: ir.Node, output: ir.Value, shapes: Mapping[ir.Value, Shape], known: Known
) -> tuple[Link, ...]:
    """The links of all axes of a result; none where they are unknown."""
    if output not in shapes or any(v is not None and v not in shapes for v in node.inputs):
        return ()
    before = [() if v is None else shapes[v] for v in node.inputs]
    after = shapes[output]
    if node.op_type == "FusedMatMul":
        return _product(node, before, after)
    if _by_length(node):
        return ()
    found = links_of(node, output, shapes, known) or ()
    if has(node, Trait.TRIANGLE):
        return tuple(Link(How.SAME, (k,), ((0, k),)) for k in range(len(after)))
    if node.op_type in ("Gather", "GatherElements"):
        axis = node.attributes.get_int("axis", 0) % len(before[0])
        first = axis if node.op_type == "Gather" else 0
        chosen = [k for link in found if link.how is How.SELECTED for k in link.results]
        own = (Link(How.SAME, (k,), ((1, k - first),)) for k in chosen)
        return (*(link for link in found if link.how is not How.SELECTED), *own)
    return found


def _by_length(node: ir.Node) -> bool:
    """Whether axes are removed, or summed over, because of their length in a run."""
    if not has(node, Trait.RANK | Trait.REDUCTION) or "axes" in node.attributes:
        return False
    if len(node.inputs) < 2:
        return node.op_type == "Squeeze"
    return constant_axes(node) is None


def _product(node: ir.Node, before: list[Shape], after: Shape) -> tuple[Link, ...]:
    left, right = before[:2]
    if min(len(left), len(right)) < 2:
        return ()
    (rows, inner), (columns, own) = factor_axes(node, len(left), len(right))
    rank = len(after)
    stacked = [
        Link(
            How.SAME,
            (k,),
            tuple(
                (index, len(shape) - rank + k)
                for index, shape in enumerate((left, right))
                if len(shape) - rank + k >= 0
            ),
        )
        for k in range(rank - 2)
    ]
    return (
        Link(How.SUMMED, (), ((0, inner), (1, own))),
        *stacked,
        Link(How.SAME, (rank - 2,), ((0, rows),)),
        Link(How.SAME, (rank - 1,), ((1, columns),)),
    )


def rows_of(
    node: ir.Node, link: Link, size: int, shapes: Mapping[ir.Value, Shape]
) -> dict[int, int] | None:
    """Operand → its axis whose entries make those of a result, along ``link``.

    ``None`` where some entries need others than their own.

    Args:
        node: The node.
        link: The link of the axis.
        size: Length of the axis of the result, more than one.
        shapes: Shapes of a trial run.
    """
    if link.how not in _ONE:
        return None
    lengths = [_length(node, index, axis, shapes) for index, axis in link.axes]
    along = {
        i: a for (i, a), n in zip(link.axes, lengths, strict=True) if n == size and a is not None
    }
    if link.how is How.REPEATED and not {1, size}.issuperset(lengths):
        return None
    if link.how is How.REGROUPED and (not along or len(link.results) > 1 or len(link.axes) > 1):
        return None
    return along


def _length(node: ir.Node, index: int, axis: int | None, shapes: Mapping[ir.Value, Shape]) -> int:
    value = node.inputs[index]
    return 0 if value is None or axis is None else shapes[value][axis]
