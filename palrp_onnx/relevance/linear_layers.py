"""Linear layers, their biases, and those next to attention, found by the structure of the graph.

Exporters write a linear layer as a matrix product and a sum; rules that distinguish signs of
contributions have to treat both as one layer. Some methods have other rules for the layers next to
attention, which make its values or read its result, than for the rest of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.axes import TOKEN
from palrp_onnx.analysis.roles import Role
from palrp_onnx.model.ops import MOVES, Trait, has

_LINEAR = Trait.PRODUCT | Trait.LAYER
#: Operations that shift or scale activations, if one operand is a parameter.
_SHIFTING = Trait.SUM | Trait.SCALE
#: The same, or they move activations.
_PASSING = _SHIFTING | MOVES | Trait.JOIN | Trait.RETYPES | Trait.ROUNDS


def added_biases(analysis: Analysis) -> dict[ir.Node, ir.Value]:
    """Linear layer → parameter that the ``Add`` directly after it adds to every token alike."""
    found = {}
    for node in analysis.model.graph:
        bias = _added_bias(analysis, node) if has(node, _LINEAR) else None
        if bias is not None:
            found[node] = bias
    return found


def _added_bias(analysis: Analysis, node: ir.Node) -> ir.Value | None:
    """The other operand of the ``Add`` that is the only consumer of a node."""
    output = node.outputs[0]
    uses = tuple(output.uses())
    if len(uses) != 1 or output.is_graph_output() or output not in analysis.content:
        return None
    add, index = uses[0]
    other = add.inputs[1 - index] if add.op_type == "Add" else None
    if other is None or not _parameter(analysis, add, 1 - index):
        return None
    shape, result = analysis.shapes.get(other), analysis.shapes[output]
    if shape is None or analysis.shapes[add.outputs[0]] != result:
        return None
    long = [k - len(shape) for k, size in enumerate(shape) if size != 1]
    along_tokens = any(analysis.axes[output][k] & TOKEN for k in long)
    return None if len(long) > 1 or along_tokens else other


def attention_layers(analysis: Analysis) -> frozenset[ir.Node]:
    """Linear layers with weights that make the values of attention or read its result."""
    weighed = [
        value
        for product, index in analysis.probabilities
        for k, value in enumerate(product.inputs)
        if k != index and value is not None
    ]
    made = [product.outputs[0] for product, _ in analysis.probabilities]
    return frozenset((*_met(analysis, weighed, _before), *_met(analysis, made, _after)))


def _before(value: ir.Value) -> Iterator[tuple[ir.Node, Sequence[ir.Value | None]]]:
    node = value.producer()
    if node is not None:
        yield node, node.inputs


def _after(value: ir.Value) -> Iterator[tuple[ir.Node, Sequence[ir.Value | None]]]:
    return ((node, node.outputs) for node, _ in value.uses())


_Direction = Callable[[ir.Value], Iterator[tuple[ir.Node, Sequence[ir.Value | None]]]]


def _met(
    analysis: Analysis, values: Iterable[ir.Value], direction: _Direction
) -> Iterator[ir.Node]:
    """The first layers with weights in this direction from some values."""
    left = [v for v in dict.fromkeys(values) if v in analysis.content]
    seen = set(left)
    while left:
        for node, following in direction(left.pop()):
            operands = range(min(2, len(node.inputs)))
            weighted = any(_parameter(analysis, node, k) for k in operands)
            if has(node, _LINEAR):
                if weighted:
                    yield node
            elif has(node, _PASSING) and (not has(node, _SHIFTING) or weighted):
                content = (v for v in following if v is not None and v in analysis.content)
                fresh = [v for v in content if v not in seen]
                seen.update(fresh)
                left += fresh


def _parameter(analysis: Analysis, node: ir.Node, index: int) -> bool:
    fact = analysis.operands.get((node, index))
    return fact is not None and fact.role is Role.PARAMETER
