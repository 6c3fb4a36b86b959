"""Caches of earlier tokens are removed from the graph: a prompt is explained as a whole.

A decoder for generation reads keys and values of earlier tokens and concatenates its own to them.
Without earlier tokens, the concatenation is the keys and values that the graph computes itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from palrp_onnx.model.changes import Blank, Changes
from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.lowering.builder import Builder
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import constant


class _End(NamedTuple):
    """A use of a cache other than casting or selecting a part of it.

    Attributes:
        node: The node.
        operand: Index of the operand.
        axes: The remaining axes of the cache, in order.
    """

    node: ir.Node
    operand: int
    axes: tuple[int, ...]


def remove_switches(model: ir.Model) -> Changes:
    """Set inputs to false that only decide whether caches are used, and remove them, in place.

    Such an input is a condition of branches, in a graph with inputs that are only concatenated to
    other values. The log holds the inputs.
    """
    graph = model.graph
    inputs = [v for v in graph.inputs if not v.is_initializer()]
    if all(_token_axis(v) is None for v in inputs):
        return Changes()
    found = []
    for value in inputs:
        if value.dtype == ir.DataType.BOOL and _decides(value):
            shape = tuple(d if isinstance(d, int) else 1 for d in value.shape or ())
            found.append(Blank(value.name or "", np.dtype(bool), shape))
            fixed = ir.Value(name=value.name, type=value.type, shape=ir.Shape(shape))
            fixed.const_value = ir.Tensor(found[-1].array(1), name=value.name)
            ir.convenience.replace_all_uses_with(value, fixed)
            graph.inputs.remove(value)
            graph.register_initializer(fixed)
    return Changes.removed("switch", found)


def remove_caches(model: ir.Model) -> Changes:
    """Remove caches from the graph, in place, as if they held no tokens; the log holds them."""
    graph, opset = model.graph, model.opset_imports.get("", 0)
    inputs = [v for v in graph.inputs if not v.is_initializer()]
    caches = {v: axis for v in inputs if (axis := cache_axis(v)) is not None}
    others = [v for v in inputs if v not in caches]
    found = []
    for value, tokens in caches.items():
        assert value.dtype is not None and value.shape is not None
        shape = [d if isinstance(d, int) else None for d in value.shape]
        shape[tokens] = 0
        for end in list(_ends(value, tuple(range(len(shape))))):
            if end.node.op_type == "Shape":
                _measure(end, shape, others, opset)
            else:
                _drop(end)
        graph.inputs.remove(value)
        found.append(Blank(value.name or "", np.dtype(value.dtype.numpy()), tuple(shape)))
    if found:
        passes.RemoveUnusedNodesPass()(model)
    return Changes.removed("cache", found)


def cache_axis(value: ir.Value) -> int | None:
    """The token axis of an input that holds keys or values of earlier tokens; else ``None``."""
    axis = _token_axis(value)
    return axis if axis is not None and _is_weighed(value) else None


#: Operations that copy a condition.
_COPIED = frozenset(("Identity", "Squeeze"))


def _decides(value: ir.Value) -> bool:
    """Whether a value is used as a condition only."""

    def onward(node: ir.Node, _: int) -> Sequence[ir.Value]:
        return node.outputs if node.op_type in _COPIED else ()

    uses = [node for node, _ in uses_of([value], onward)]
    copies = [node for node in uses if node.op_type in _COPIED]
    conditions = all(node.op_type in _COPIED | {"If"} for node in uses)
    return bool(uses) and conditions and all(node.outputs[0].uses() for node in copies)


def _token_axis(value: ir.Value) -> int | None:
    """The free axis along which a real input is always concatenated to other values.

    For an input that nothing reads, which was left over by a branch, it is the last free axis.
    """
    shape = list(value.shape or ())
    free = [axis for axis, d in enumerate(shape) if not isinstance(d, int)]
    real = value.dtype is not None and value.dtype.is_floating_point()
    if not real or len(shape) < 3 or len(free) < 2:
        return None
    ends = [e for e in _ends(value, tuple(range(len(shape)))) if e.node.op_type != "Shape"]
    if not ends:
        return free[-1]
    if any(e.node.op_type != "Concat" or len(e.node.inputs) < 2 for e in ends):
        return None
    along = {e.axes[e.node.attributes.get_int("axis", 0)] for e in ends}
    axis = along.pop()
    return axis if not along and axis in free else None


_MOVED = Trait.RETYPES | Trait.RESHAPE | Trait.RANK | Trait.PERMUTE | Trait.REPEAT | Trait.CUT
_SCALED = Trait.SUM | Trait.SCALE | Trait.ROUNDS


def _is_weighed(value: ir.Value) -> bool:
    """Whether the concatenation with a cache is only a factor of products, if it is read."""
    ends = _ends(value, tuple(range(len(value.shape or ()))))
    return all(_is_factor(e.node.outputs[0]) for e in ends if e.node.op_type == "Concat")


def _is_factor(value: ir.Value) -> bool:
    """Whether a value, scaled or not, is only a factor of products with computed values.

    Keys and values are; embeddings that are concatenated pass through weights and norms.
    """
    factors = 0
    for node, index in uses_of([value], lambda node, k: node.outputs if _keeps(node, k) else ()):
        if has(node, Trait.PRODUCT):
            factors += 1
            if any(v.is_initializer() for v in node.inputs if v is not None):
                return False
        elif node.op_type != "Shape" and not _keeps(node, index) and not _only_given_out(node):
            return False
    return factors > 0


def _keeps(node: ir.Node, index: int) -> bool:
    """Whether a node only moves operand ``index``, or scales it by a setting."""
    if has(node, _SCALED):
        return all(v is None or k == index or _is_setting(v) for k, v in enumerate(node.inputs))
    return has(node, _MOVED) and index == 0


def _only_given_out(node: ir.Node) -> bool:
    """Whether a node only concatenates keys and values for the next run."""
    return node.op_type == "Concat" and not any(v.uses() for v in node.outputs)


def _is_setting(value: ir.Value) -> bool:
    """Whether a value is a constant number, or depends on such and on shapes alone."""
    left, seen = [value], {value}
    while left:
        current = left.pop()
        node = current.producer()
        if node is None:
            if current.const_value is None or current.const_value.size > 1:
                return False
        elif node.op_type != "Shape":
            fresh = [v for v in node.inputs if v is not None and v not in seen]
            seen.update(fresh)
            left += fresh
    return True


def _ends(value: ir.Value, axes: tuple[int, ...]) -> Iterator[_End]:
    """Uses of a cache, of casts of it, and of its keys or values."""
    left = [(use.node, use.idx, axes) for use in list(value.uses())[::-1]]
    while left:
        node, operand, own = left.pop()
        if node.op_type == "Gather" and operand == 0 and _is_scalar(node.inputs[1]):
            axis = node.attributes.get_int("axis", 0) % len(own)
            own = (*own[:axis], *own[axis + 1 :])
        elif not has(node, Trait.RETYPES):
            yield _End(node, operand, own)
            continue
        left += [(use.node, use.idx, own) for use in list(node.outputs[0].uses())[::-1]]


def _is_scalar(value: ir.Value | None) -> bool:
    number = constant(value)
    return number is not None and number.ndim == 0


def _drop(end: _End) -> None:
    """Concatenate the other operands alone."""
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


def _measure(
    end: _End, shape: Sequence[int | None], inputs: Sequence[ir.Value], opset: int
) -> None:
    """Replace ``Shape`` of a cache by the shape of an empty one, for the batch of another input."""
    node = end.node
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    b = Builder(graph, node, opset)
    source = next(v for v in inputs if v.shape is not None and v.shape.rank())
    batch = b.slice(b.op("Shape", source), 0, 1, 0)
    dims = [shape[axis] for axis in end.axes]
    whole = b.op("Concat", *(batch if d is None else b.integers(d) for d in dims), axis=0)
    start = node.attributes.get_int("start", 0)
    stop = node.attributes.get_int("end", len(dims))
    ir.convenience.replace_all_uses_with(node.outputs[0], b.slice(whole, start, stop, 0))
    graph.remove(node, safe=True)
