"""Positions without an operand: a convolution whose zero padding distinguishes the tokens."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from palrp_onnx.analysis.axes import TOKEN
from palrp_onnx.analysis.layout import Axes
from palrp_onnx.model.follow import Reaching
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has
from palrp_onnx.types import Shape

Operand = tuple[ir.Node, int]

#: Operations between a convolution and the sum that it is a term of.
_CROPPING = ELEMENTWISE | Trait.CUT | Trait.RANK | Trait.PERMUTE
#: Operations between a value and its convolution.
_FEEDING = Trait.RETYPES | Trait.PAD | Trait.RANK | Trait.PERMUTE


def convolution_terms(
    graph: ir.Graph,
    content: Mapping[ir.Value, None],
    axes: Mapping[ir.Value, Axes],
    shapes: Mapping[ir.Value, Shape],
) -> dict[Operand, str]:
    """Terms of sums that are functions of one convolution, along the tokens, of the other term.

    The zeros that pad the tokens distinguish places in them (wav2vec 2.0).

    Returns:
        Operand (node, index) → the reason why it may be a position.
    """
    found = {}
    convolved = _convolved(graph, content)
    for node in graph:
        if node.op_type != "Add" or not all(v in content for v in node.inputs):
            continue
        for index, branch in enumerate(node.inputs):
            source = node.inputs[1 - index]
            assert branch is not None and source is not None
            same = (shapes[branch], axes[branch]) == (shapes[source], axes[source])
            conv = convolved.get(branch) if same else None
            if conv is None or _origin(conv.inputs[0]) is not _origin(source):
                continue
            width = _width(conv, axes, shapes)
            if width > 1:
                found[node, index] = (
                    f"a function of one convolution over {width} tokens of what it is added to, "
                    "before the first attention; nothing else carries positions"
                )
    return found


def _convolved(graph: ir.Graph, content: Mapping[ir.Value, None]) -> dict[ir.Value, ir.Node]:
    """Value → the one convolution that it is an element-wise function of."""
    found: dict[ir.Value, ir.Node] = {}
    for node in graph:
        if node.op_type == "Conv":
            found.update(dict.fromkeys(node.outputs, node))
        elif has(node, _CROPPING):
            sources = {found.get(v) for v in node.inputs if v is not None and v in content}
            conv = sources.pop() if len(sources) == 1 else None
            if conv is not None:
                found.update(dict.fromkeys(node.outputs, conv))
    return found


def _origin(value: ir.Value | None) -> ir.Value | None:
    """The value before movement and padding with a constant."""
    while value is not None and (node := value.producer()) is not None:
        if not has(node, _FEEDING) or node.attributes.get_string("mode", "constant") != (
            "constant"
        ):
            break
        value = node.inputs[0]
    return value


def _width(conv: ir.Node, axes: Mapping[ir.Value, Axes], shapes: Mapping[ir.Value, Shape]) -> int:
    """Number of tokens in one window of a convolution; 0 where tokens run along several axes."""
    source, weight = conv.inputs[:2]
    assert source is not None and weight is not None
    tokens = [axis for axis, flag in enumerate(axes[source]) if flag & TOKEN]
    if len(tokens) != 1 or tokens[0] < 2 or weight not in shapes:
        return 0
    return shapes[weight][tokens[0]]


class Attended(Reaching):
    """Whether a later softmax attends to a value or to a value that is computed from it."""

    def __init__(self, depth: Mapping[ir.Value, int]) -> None:
        self._depth = depth
        super().__init__(self._attention)

    def _attention(self, value: ir.Value) -> bool | list[ir.Value]:
        users = dict.fromkeys(use.node for use in value.uses())
        return any(map(self._deepens, users)) or [v for node in users for v in node.outputs]

    def _deepens(self, node: ir.Node) -> bool:
        scores = node.inputs[0]
        if node.op_type != "Softmax" or scores is None:
            return False
        return self._depth.get(node.outputs[0], 0) > self._depth.get(scores, 0)
