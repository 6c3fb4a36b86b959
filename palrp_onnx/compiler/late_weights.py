"""Weights become real numbers one at a time, where they are read.

What is computed from stored numbers alone (weights that are dequantised, or cast) could run at any
time: the runtime computes all of it first, or once for the forward pass and the way back, and
keeps it in between. So every reader gets computations of its own, behind a *barrier* as in
:mod:`palrp_onnx.compiler.recompute`: a stored operand is reshaped to its own shape plus a zero that
is computed from the reader's other operand.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx_ir as ir

from palrp_onnx.model.ops import Trait, has
from palrp_onnx.tensor.onnx import NARROW, Emit

#: Number of entries of a weight that is worth it.
_LARGE = 1 << 16
#: Number of entries of all computed weights together that are not kept.
_MANY = 1 << 27


def read_late(op: Emit, graph: ir.Graph, *, bounded: bool) -> None:
    """Put what weights are computed by in front of each of their readers, in place.

    Args:
        op: The language that appended the way back to ``graph``.
        graph: The graph.
        bounded: Whether to keep as little as possible: few weights too, and those in half
            precision, which a CPU casts before they are multiplied. That costs a copy of each.
    """
    fixed = set(_fixed(graph))
    nodes = list(graph)
    read = {v for node in nodes if node not in fixed for v in node.inputs if v is not None}
    computed = sum(_entries(v) for v in read if v.producer() in fixed and is_large(v))
    if computed < _MANY and not bounded:
        return
    graph.remove(nodes)
    for node in nodes:
        if node not in fixed:
            for index, weight in enumerate(node.inputs):
                if weight is not None and _waits(node, weight, fixed, bounded=bounded):
                    source = next(_computed(node, fixed), None)
                    if source is not None:
                        late = _Late(op, graph, op.zero_of([source]), fixed)
                        node.replace_input_with(index, late(weight))
        graph.append(node)
    for node in reversed(nodes):
        if node in fixed and not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)


class _Late:
    """Copies of what computes a weight, behind a zero."""

    def __init__(self, op: Emit, graph: ir.Graph, zero: ir.Value, fixed: set[ir.Node]) -> None:
        self._op, self._graph, self._zero, self._fixed = op, graph, zero, fixed

    def __call__(self, value: ir.Value) -> ir.Value:
        node = value.producer()
        if node is None:
            return self._behind(value)
        inputs = list(node.inputs)
        made = [k for k, v in enumerate(inputs) if v is not None and v.producer() in self._fixed]
        for k in made or _movable(node):
            operand = inputs[k]
            assert operand is not None
            inputs[k] = self(operand)
        copy = ir.Node(
            node.domain, node.op_type, inputs, node.attributes.values(), overload=node.overload
        )
        copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
        self._graph.append(copy)
        return copy.outputs[0]

    def _behind(self, stored: ir.Value) -> ir.Value:
        if not self._op.known_rank(stored):
            assert stored.const_value is not None
            self._op.declare(stored, stored.const_value.shape.rank())
        return self._op.behind(stored, self._zero)


def _fixed(graph: ir.Graph) -> Iterator[ir.Node]:
    """Nodes with one result, of stored numbers alone."""
    found: set[ir.Node] = set()
    for node in graph:
        stored = all(v is None or _is_stored(v) or v.producer() in found for v in node.inputs)
        if node.inputs and stored and len(node.outputs) == 1 and not has(node, Trait.SOURCE):
            found.add(node)
            yield node


def _is_stored(value: ir.Value) -> bool:
    """Whether a value is an initializer, not the default of an input."""
    return value.is_initializer() and not value.is_graph_input()


def _waits(node: ir.Node, value: ir.Value, fixed: set[ir.Node], *, bounded: bool) -> bool:
    """Whether an operand of a node is a weight that should be made late."""
    maker = value.producer()
    if maker is None:
        multiplies = has(node, Trait.PRODUCT) or node.op_type == "FusedMatMul"
        return bounded and value.dtype in NARROW and is_large(value) and multiplies
    return maker in fixed and is_large(value) and not _is_fused(node, maker)


def _is_fused(node: ir.Node, maker: ir.Node) -> bool:
    """Whether the runtime has one kernel for both, which reads the weight as it is stored."""
    return (
        maker.op_type == "DequantizeLinear"
        and maker.attributes.get_int("block_size", 0) > 0
        and node.op_type == "MatMul"
        and len(maker.outputs[0].uses()) == 1
    )


def _computed(node: ir.Node, fixed: set[ir.Node]) -> Iterator[ir.Value]:
    """The real operands of a node that depend on inputs."""
    for value in node.inputs:
        if value is None or _is_stored(value) or value.producer() in fixed:
            continue
        if value.dtype is not None and value.dtype.is_floating_point():
            yield value


def _movable(node: ir.Node) -> list[int]:
    """The index of the stored operand that is put behind a barrier: the smallest that has axes."""
    sizes = {
        k: v.const_value.nbytes
        for k, v in enumerate(node.inputs)
        if v is not None
        and v.const_value is not None
        and v.const_value.shape.rank()
        and v.const_value.dtype.bitwidth >= 8
        and not (k and has(node, Trait.RESHAPE | Trait.PERMUTE | Trait.CUT | Trait.RANK))
    }
    return [min(sizes, key=sizes.__getitem__)] if sizes else []


def is_large(value: ir.Value | None) -> bool:
    """Whether a weight has so many entries that it matters when it is computed."""
    return value is not None and _entries(value) >= _LARGE


def _entries(value: ir.Value) -> int:
    """Number of entries; 0 where a length is not fixed."""
    lengths = () if value.shape is None else tuple(value.shape)
    return prod(n if isinstance(n, int) else 0 for n in lengths)
