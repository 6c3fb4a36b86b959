"""Caches of earlier tokens, taken out of the graph: a prompt is explained as a whole.

A decoder made for generation takes keys and values of earlier tokens and puts its own behind them.
With nothing before the prompt, what is put together is what the graph made itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.graph.follow import uses_of
from palrp_onnx.graph.lowering.builder import Builder, constant

Array = NDArray[np.generic]
Dims = tuple[object, ...]


class _End(NamedTuple):
    """A use of a cache that does more than hand it on, with the axes that the cache has there."""

    node: ir.Node
    operand: int
    dims: Dims


def take_out_switches(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """Fix inputs to false that only decide whether caches are used, and take them out.

    Such an input is the condition of branches, in a graph some of whose inputs only ever stand
    beside others.
    """
    inputs = [v for v in graph.inputs if not v.is_initializer()]
    if not any(map(_is_joined, inputs)):
        return ()
    switches = tuple(v for v in inputs if v.dtype == ir.DataType.BOOL and _decides(v))
    for value in switches:
        fixed = ir.Value(name=value.name, type=value.type, shape=ir.Shape(blank(value, 1).shape))
        fixed.const_value = ir.Tensor(blank(value, 1), name=value.name)
        ir.convenience.replace_all_uses_with(value, fixed)
        graph.inputs.remove(value)
        graph.register_initializer(fixed)
    return switches


def take_out_caches(graph: ir.Graph, opset: int) -> tuple[ir.Value, ...]:
    """Take caches out of the graph as if no token came before; the inputs that they were."""
    inputs = [v for v in graph.inputs if not v.is_initializer()]
    caches = tuple(v for v in inputs if _is_cache(v))
    kept = [v for v in inputs if v not in caches]
    for value in caches:
        for end in list(_ends(value, _dims(value))):
            if end.node.op_type == "Shape":
                _measure(end, kept, opset)
            else:
                _drop(end)
        graph.inputs.remove(value)
    return caches


def blank(value: ir.Value, samples: int) -> Array:
    """What the file is fed for an input that was taken out: a cache of no tokens, or false."""
    assert value.dtype is not None
    dims = value.shape or ()
    tokens = _tokens(value)
    sizes = [
        d if isinstance(d, int) else 0 if axis == tokens else samples for axis, d in enumerate(dims)
    ]
    return np.zeros(sizes, value.dtype.numpy())


def _decides(value: ir.Value) -> bool:
    """Whether a value is only ever a condition."""
    uses = value.uses()
    onward = [u.node.outputs[0] for u in uses if u.node.op_type in ("Identity", "Squeeze")]
    rest = [u for u in uses if u.node.op_type not in ("Identity", "Squeeze")]
    return bool(uses) and all(u.node.op_type == "If" for u in rest) and all(map(_decides, onward))


def _dims(value: ir.Value) -> Dims:
    return tuple(value.shape or ())


def _tokens(value: ir.Value) -> int | None:
    """The axis of a cache that runs over tokens: the last that is free and not the batch."""
    free = [axis for axis, d in enumerate(_dims(value)) if not isinstance(d, int)]
    return free[-1] if len(free) > 1 else None


def _is_cache(value: ir.Value) -> bool:
    """Whether a real input only ever stands beside keys, or values, along a free axis.

    One that nothing reads was left over where a branch was not taken.
    """
    ends = _ends(value, _dims(value))
    joined = (end.node.outputs[0] for end in ends if end.node.op_type == "Concat")
    return _is_joined(value) and all(map(_is_weighed, joined))


def _is_joined(value: ir.Value) -> bool:
    """Whether a real input only ever stands beside something else along a free axis."""
    real = value.dtype is not None and value.dtype.is_floating_point()
    if not real or len(_dims(value)) < 3 or _tokens(value) is None:
        return False
    ends = [end for end in _ends(value, _dims(value)) if end.node.op_type != "Shape"]
    return all(_joins(end) for end in ends)


def _joins(end: _End) -> bool:
    if end.node.op_type != "Concat" or len(end.node.inputs) < 2:
        return False
    axis = end.node.attributes.get_int("axis", 0)
    return not isinstance(end.dims[axis], int)


_MOVED = frozenset("Cast Expand Identity Reshape Slice Squeeze Tile Transpose Unsqueeze".split())
_SCALED = frozenset("Add Clip Div Mul Round Sub".split())


def _is_weighed(value: ir.Value) -> bool:
    """Whether a value, scaled or not, is only a factor of products with what the graph computed.

    Keys and values are; embeddings that are put before others go through weights and norms.
    """
    factors = 0
    for node, index in uses_of([value], lambda node, k: node.outputs if _keeps(node, k) else ()):
        if node.op_type in ("MatMul", "Einsum"):
            factors += 1
            if any(v.is_initializer() for v in node.inputs if v is not None):
                return False
        elif node.op_type != "Shape" and not _keeps(node, index):
            return False
    return factors > 0


def _keeps(node: ir.Node, index: int) -> bool:
    """Whether a node hands operand ``index`` on, moved or scaled by a setting."""
    if node.op_type in _SCALED:
        return all(v is None or k == index or _is_setting(v) for k, v in enumerate(node.inputs))
    return node.op_type in _MOVED and index == 0


def _is_setting(value: ir.Value) -> bool:
    """Whether a value is a stored number, or follows from such and from shapes alone."""
    node = value.producer()
    if node is None:
        return value.const_value is not None and value.const_value.size <= 1
    return node.op_type == "Shape" or all(v is None or _is_setting(v) for v in node.inputs)


def _ends(value: ir.Value, dims: Dims) -> Iterator[_End]:
    for use in value.uses():
        node = use.node
        if node.op_type in ("Cast", "Identity"):
            yield from _ends(node.outputs[0], dims)
        elif node.op_type == "Gather" and use.idx == 0 and _is_scalar(node.inputs[1]):
            axis = node.attributes.get_int("axis", 0) % len(dims)  # keys, or values, of both
            yield from _ends(node.outputs[0], (*dims[:axis], *dims[axis + 1 :]))
        else:
            yield _End(node, use.idx, dims)


def _is_scalar(value: ir.Value | None) -> bool:
    number = constant(value)
    return number is not None and number.ndim == 0


def _drop(end: _End) -> None:
    """Join the others alone."""
    node = end.node
    operands = [v for index, v in enumerate(node.inputs) if index != end.operand]
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    kind = "Concat" if len(operands) > 1 else "Identity"
    attributes = list(node.attributes.values()) if len(operands) > 1 else []
    joined = ir.node(kind, operands, name=node.name)
    for attribute in attributes:
        joined.attributes.add(attribute)
    old, new = node.outputs[0], joined.outputs[0]
    new.type, new.shape = old.type, old.shape
    graph.insert_before(node, joined)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    old.name, new.name = None, old.name


def _measure(end: _End, inputs: list[ir.Value], opset: int) -> None:
    """The shape of an empty cache, the size of the batch taken from another input."""
    node = end.node
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    b = Builder(graph, node, opset)
    free = [axis for axis, d in enumerate(end.dims) if not isinstance(d, int)]
    source = next(v for v in inputs if v.shape is not None and v.shape.rank())
    batch = b.slice(b.op("Shape", source), 0, 1, 0)
    parts = [
        b.integers(d) if isinstance(d, int) else b.integers(0) if axis == free[-1] else batch
        for axis, d in enumerate(end.dims)
    ]
    start = node.attributes.get_int("start", 0)
    stop = node.attributes.get_int("end", len(parts))
    whole = b.op("Concat", *parts, axis=0)
    ir.convenience.replace_all_uses_with(node.outputs[0], b.slice(whole, start, stop, 0))
    graph.remove(node, safe=True)
