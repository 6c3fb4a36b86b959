"""Where one axis of a result comes from: which axis of each operand runs along with it.

An operation is *row-wise* along an axis when entry i of the result along it depends only on entry i
of each operand that has the axis, and on operands without it as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import onnx_ir as ir

from palrp_onnx.analysis import self_gates as gates
from palrp_onnx.model.values import constant_axes
from palrp_onnx.types import Shape

#: Operations whose operands are aligned by right-aligned broadcasting.
ELEMENTWISE = gates.ELEMENTWISE | frozenset(
    "Acosh Asinh Atanh CastLike Cosh Expand PRelu Shrink Sinh".split()
)
#: Bilinear operations, which relevance is shared in by their factors.
PRODUCTS = frozenset(("MatMul", "Einsum"))
_NORMALISING = frozenset("LayerNormalization RMSNormalization Softmax LogSoftmax".split())
_RESHAPING = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))

Sources = tuple[int | None, ...]


def source_axes(
    node: ir.Node, output: ir.Value, axis: int, shapes: Mapping[ir.Value, Shape]
) -> Sources | None:
    """For every operand its axis behind ``axis`` of ``output``, ``None`` where it has none.

    All axes are counted from the front; lengths are those of the trial run. ``None`` for all of
    it where the operation is not row-wise along the axis, or not known to be.
    """
    after = shapes[output]
    before = [shapes.get(v) if v is not None else () for v in node.inputs]
    first = before[0] if before else None
    if first is None:
        return None
    rest = (None,) * (len(before) - 1)
    rank = len(first)
    match node.op_type:
        case kind if kind in ELEMENTWISE:
            return _broadcast(before, after, axis)
        case kind if kind in _NORMALISING:
            return (axis, *rest) if axis < _first_normalised(node, rank) else None
        case kind if kind in _RESHAPING:
            found = _regrouped(first, after, axis)
            return None if found is None else (found, *rest)
        case kind if kind.startswith("Reduce"):
            return _reduced(node, axis, rank, rest)
        case "Transpose":
            perm = node.attributes.get_ints("perm", tuple(reversed(range(rank))))
            return (perm[axis],)
        case "MatMul":
            return _matmul(before, after, axis)
        case "Gemm" if axis == 0:
            third = (_broadcast(before[2:], after, 0) or ()) if len(before) > 2 else ()
            return (node.attributes.get_int("transA", 0), None, *third)
        case "Concat" if axis != node.attributes.get_int("axis", 0) % rank:
            return (axis,) * len(before)
        case "Split" if axis != node.attributes.get_int("axis", 0) % rank:
            return (axis, *rest)
        case "Slice":
            cut = constant_axes(node, 3)
            whole = cut is not None and axis not in {a % rank for a in cut}
            return (axis, *rest) if whole else None
        case "Gather":
            own = node.attributes.get_int("axis", 0) % rank
            picked = len(after) - rank + 1
            if own <= axis < own + picked:
                return None
            return (axis if axis < own else axis - picked + 1, None)
        case "Einsum":
            return _einsum(node.attributes.get_string("equation", ""), axis)
        case _:
            return None


def _first_normalised(node: ir.Node, rank: int) -> int:
    """The first axis that is normalised over."""
    opset = node.graph.opset_imports.get("", 0) if isinstance(node.graph, ir.Graph) else 0
    of_tail = node.op_type in ("Softmax", "LogSoftmax") and opset < 13
    return node.attributes.get_int("axis", 1 if of_tail else -1) % rank


def _broadcast(before: Sequence[Shape | None], after: Shape, axis: int) -> Sources | None:
    behind = axis - len(after)
    found: list[int | None] = []
    for shape in before:
        if shape is None:
            return None
        own = len(shape) + behind
        found.append(own if own >= 0 and shape[own] == after[axis] else None)
    return tuple(found)


def _reduced(node: ir.Node, axis: int, rank: int, rest: tuple[None, ...]) -> Sources | None:
    gone = constant_axes(node)
    if gone is None:
        return None
    reduced = {a % rank for a in gone}
    if not node.attributes.get_int("keepdims", 1):
        axis = [a for a in range(rank) if a not in reduced][axis]
    return None if axis in reduced else (axis, *rest)


def _matmul(before: Sequence[Shape | None], after: Shape, axis: int) -> Sources | None:
    left, right = before
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    match axis - len(after):
        case -1:
            return (None, len(right) - 1)
        case -2:
            return (len(left) - 2, None)
        case _:
            return _broadcast(before, after, axis)


def _einsum(equation: str, axis: int) -> Sources | None:
    terms, _, result = equation.replace(" ", "").partition("->")
    if "." in terms or not result:
        return None
    found = [term.find(result[axis]) for term in terms.split(",")]
    return tuple(at if at >= 0 else None for at in found)


def _regrouped(before: Shape, after: Shape, axis: int) -> int | None:
    """The axis that a reshape left as it was, but for axes of length one around it."""
    if after[axis] == 1:
        return None
    ahead = prod(after[:axis])
    same = (k for k, dim in enumerate(before) if dim == after[axis] and prod(before[:k]) == ahead)
    return next(same, None)


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
        if node.op_type in PRODUCTS:
            behind = [i for i, (v, own) in enumerate(operands) if own is not None]
            if len(behind) == 1 and node.inputs[behind[0]] not in content:
                return node, behind[0]
        onward = ((v, own) for v, own in operands if v in content and v is not None)
        value, own = next(onward, (value, None))
        if own is None:
            return None
        axis = own
    return None
