"""Which axes of a content value run over the batch and which over token positions.

Followed from the explained inputs through the graph with the shapes of one trial run, so that
it works for static and dynamic axes alike and never guesses from sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.graph.follow import uses_of
from palrp_onnx.graph.gates import ELEMENTWISE
from palrp_onnx.graph.inputs import InputRoles

BATCH = 1
TOKEN = 2

Axes = tuple[int, ...]
Shape = tuple[int, ...]

_POOLING = frozenset(
    "AveragePool Conv ConvTranspose GlobalAveragePool GlobalMaxPool LpPool MaxPool".split()
)


def axes_of(
    graph: ir.Graph,
    roles: InputRoles,
    content: Mapping[ir.Value, None],
    shapes: Mapping[ir.Value, Shape],
    indices: Mapping[str, NDArray[Any]],
) -> dict[ir.Value, Axes]:
    """Flags (``BATCH``, ``TOKEN``, their union or 0) for every axis of every content value."""
    axes = {v: _input_axes(v, len(shapes[v])) for v in graph.inputs if v in content}
    for node in graph:
        outputs = [v for v in node.outputs if v in content]
        if not outputs:
            continue
        if node in roles.lookups:
            flags = _lookup_axes(node, shapes)
            axes.update(dict.fromkeys(outputs, flags))
            continue
        for value in outputs:
            axes[value] = _fit(_propagate(node, axes, shapes, indices, value), len(shapes[value]))
    return axes


def _input_axes(value: ir.Value, rank: int) -> Axes:
    """[B, C, *S] for what goes into a convolution and for images, [B, T, F] otherwise."""
    uses = uses_of([value], lambda node, _: node.outputs if node.op_type in ELEMENTWISE else ())
    if rank >= 4 or (rank == 3 and any(node.op_type == "Conv" for node, _ in uses)):
        return (BATCH, 0, *[TOKEN] * (rank - 2))
    return (BATCH, TOKEN, 0)[:rank]


def _lookup_axes(node: ir.Node, shapes: Mapping[ir.Value, Shape]) -> Axes:
    rank = len(shapes[node.outputs[0]]) - 1
    return (BATCH, *[TOKEN] * (rank - 1), 0) if rank > 1 else (TOKEN, 0)


def _fit(flags: Axes, rank: int) -> Axes:
    if len(flags) == rank:
        return flags
    return (BATCH, *[0] * (rank - 1)) if rank else ()


def _propagate(
    node: ir.Node,
    axes: Mapping[ir.Value, Axes],
    shapes: Mapping[ir.Value, Shape],
    indices: Mapping[str, NDArray[Any]],
    output: ir.Value,
) -> Axes:
    operands = [axes.get(v, ()) if v is not None else () for v in node.inputs]
    rank = len(shapes[output])
    source = next((v for v in node.inputs if v is not None and axes.get(v)), None)
    if source is None:  # content only as a scalar, or inside a subgraph
        return ()
    first = axes[source]
    match node.op_type:
        case "Transpose":
            perm = node.attributes.get_ints("perm", tuple(reversed(range(len(first)))))
            return tuple(first[p] for p in perm)
        case "Squeeze" if (gone := constant_axes(node)) is not None:
            return _squeeze(first, gone, rank)
        case "Unsqueeze" if (new := constant_axes(node)) is not None:
            return _unsqueeze(first, new, rank)
        case "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze":
            return regroup(first, shapes[source], shapes[output])
        case "MatMul":
            return _matmul(operands, [len(shapes.get(v, ())) for v in node.inputs if v], rank)
        case "Gemm":
            flip_a, flip_b = (node.attributes.get_int(k, 0) for k in ("transA", "transB"))
            left = (operands[0] or (0, 0))[1 if flip_a else 0]
            right = (operands[1] or (0, 0))[0 if flip_b else 1]
            third = operands[2] if len(operands) > 2 else ()
            return _union([(left, right), third], 2)
        case "Einsum":
            ranks = [len(shapes.get(v, ())) for v in node.inputs if v]
            return _einsum(node.attributes.get_string("equation", ""), operands, ranks)
        case "Gather":
            return _gather(node, first, len(shapes[source]), rank, _index(node, indices))
        case "GatherND":
            return _gather_nd(node, first, shapes, rank)
        case kind if kind.startswith("Reduce") or kind == "ArgMax":
            return _reduce(node, first, rank)
        case "ScatterND" | "ScatterElements":
            return axes.get(node.inputs[0], ()) if node.inputs[0] is not None else ()
        case kind if kind in _POOLING:
            return (first[0], 0, *first[2:])
        case _:
            return _union(operands, rank)


def constant_axes(node: ir.Node, index: int = 1) -> tuple[int, ...] | None:
    """The attribute ``axes``, or the constant input that takes its place in later opsets."""
    if "axes" in node.attributes:
        return tuple(node.attributes.get_ints("axes", ()))
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None or value.const_value is None:
        return None
    return tuple(int(axis) for axis in value.const_value.numpy().ravel())


def _squeeze(flags: Axes, axes: Sequence[int], rank: int) -> Axes:
    gone = {axis % len(flags) for axis in axes}
    return _fit(tuple(f for k, f in enumerate(flags) if k not in gone), rank)


def _unsqueeze(flags: Axes, axes: Sequence[int], rank: int) -> Axes:
    new = {axis % rank for axis in axes}
    old = iter(flags)
    return tuple(0 if k in new else next(old, 0) for k in range(rank))


def _union(operands: Sequence[Axes], rank: int) -> Axes:
    """Flags under right-aligned broadcasting."""
    flags = [0] * rank
    for operand in operands:
        for offset, flag in enumerate(reversed(operand), start=1):
            if offset <= rank:
                flags[-offset] |= flag
    return tuple(flags)


def _matmul(operands: Sequence[Axes], ranks: Sequence[int], rank: int) -> Axes:
    left = operands[0] or (0,) * ranks[0]
    right = operands[1] or (0,) * ranks[1]
    tail = (left[-2:-1] if len(left) > 1 else ()) + (right[-1:] if len(right) > 1 else ())
    head = _union([left[:-2], right[:-2]], rank - len(tail))
    return (*head, *tail)


def _einsum(equation: str, operands: Sequence[Axes], ranks: Sequence[int]) -> Axes:
    terms, _, result = equation.replace(" ", "").partition("->")
    spelled = terms.split(",")
    dots = max(r - len(t.replace("...", "")) for t, r in zip(spelled, ranks, strict=True))
    letters: dict[str, int] = {}
    for term, flags, rank in zip(spelled, operands, ranks, strict=True):
        hidden = rank - len(term.replace("...", ""))
        for letter, flag in zip(_spell(term, dots, hidden), flags, strict=False):
            letters[letter] = letters.get(letter, 0) | flag
    return tuple(letters.get(letter, 0) for letter in _spell(result, dots, dots))


def _spell(term: str, dots: int, hidden: int) -> str:
    """A term with its ellipsis written as digits, aligned from the right."""
    return term.replace("...", "0123456789"[dots - hidden : dots])


def _gather(
    node: ir.Node, data: Axes, data_rank: int, rank: int, index: NDArray[Any] | None
) -> Axes:
    axis = node.attributes.get_int("axis", 0) % data_rank
    picked = rank - data_rank + 1
    middle = (data[axis],) if picked == 1 else (0,) * picked
    if picked > 1 and data[axis] & BATCH and index is not None and _by_sample(index):
        middle = (BATCH, *(0,) * (picked - 1))
    return (*data[:axis], *middle, *data[axis + 1 :])


def _index(node: ir.Node, indices: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """The index of a gather in the trial run."""
    value = node.inputs[1]
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    return indices.get(value.name or "")


def _by_sample(index: NDArray[Any]) -> bool:
    """Whether an index counts through all it picks from, its first axis the slowest."""
    return bool(np.array_equal(index.ravel(), np.arange(index.size)))


def _gather_nd(node: ir.Node, data: Axes, shapes: Mapping[ir.Value, Shape], rank: int) -> Axes:
    """Picked places have the flags of the axes that were indexed, those behind their own."""
    index = node.inputs[1]
    if index is None or index not in shapes:
        return _fit((), rank)
    kept = node.attributes.get_int("batch_dims", 0)
    depth, places = shapes[index][-1], len(shapes[index]) - 1 - kept
    merged = 0
    for flag in data[kept : kept + depth]:
        merged |= flag
    lead = (BATCH if merged & BATCH else merged,) if places else ()
    return _fit((*data[:kept], *lead, *(0,) * (places - 1), *data[kept + depth :]), rank)


def _reduce(node: ir.Node, flags: Axes, rank: int) -> Axes:
    if len(flags) == rank:
        return flags
    axes = constant_axes(node)
    if axes is None and "axis" in node.attributes:  # ArgMax
        axes = (node.attributes.get_int("axis", 0),)
    return _squeeze(flags, axes if axes is not None else range(len(flags)), rank)


def regroup(flags: Axes, before: Shape, after: Shape) -> Axes:
    """Flags after a reshape: axes are matched in row-major order by equal products.

    Within a group of axes that were split or merged, the batch is the outermost of the new axes
    and tokens are every new axis longer than one behind it (the outermost if there is none).
    """
    result = [0] * len(after)
    i = j = 0
    while i < len(before) or j < len(after):
        start_i, start_j = i, j
        left, i = _take(before, i)
        right, j = _take(after, j)
        while left != right and (i < len(before) or j < len(after)):
            if left < right or j >= len(after):
                more, i = _take(before, i)
                left *= more
            else:
                more, j = _take(after, j)
                right *= more
        _assign(result, flags[start_i:i], after, start_i == i, start_j, j)
    return tuple(result)


def _take(shape: Shape, index: int) -> tuple[int, int]:
    return (shape[index], index + 1) if index < len(shape) else (1, index)


def _assign(
    result: list[int], flags: Axes, after: Shape, empty: bool, start: int, stop: int
) -> None:
    if empty or start == stop:
        return
    if len(flags) == stop - start == 1:
        result[start] |= flags[0]
        return
    group = range(start, stop)
    merged = 0
    for flag in flags:
        merged |= flag
    tokens = list(group)
    if merged & BATCH:
        result[start] |= BATCH
        if len(group) > 1:
            tokens = tokens[1:]
    if merged & TOKEN:
        for k in [k for k in tokens if after[k] > 1] or tokens[:1]:
            result[k] |= TOKEN
