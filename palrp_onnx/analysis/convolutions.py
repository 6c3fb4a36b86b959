"""Positions without an operand: a convolution whose zeros around the tokens tell them apart."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from palrp_onnx.analysis.axes import TOKEN, Axes
from palrp_onnx.model.follow import Reaching
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has
from palrp_onnx.types import Shape

Operand = tuple[ir.Node, int]

#: What may lie between a convolution and the sum it is a term of.
_CROPPING = ELEMENTWISE | Trait.CUT | Trait.RANK | Trait.PERMUTE
#: What may lie between a value and its convolution.
_FEEDING = Trait.RETYPES | Trait.PAD | Trait.RANK | Trait.PERMUTE


def convolution_terms(
    graph: ir.Graph,
    content: Mapping[ir.Value, None],
    axes: Mapping[ir.Value, Axes],
    shapes: Mapping[ir.Value, Shape],
) -> dict[Operand, str]:
    """Terms of sums that are functions of one convolution, along the tokens, of the other term.

    Zeros around the tokens are what tells one place from another in them (wav2vec 2.0).
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
    """Values that are an element-wise function of one convolution, and which."""
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
    """What a value is but for movement and padding with a constant."""
    while value is not None and (node := value.producer()) is not None:
        if not has(node, _FEEDING) or node.attributes.get_string("mode", "constant") != (
            "constant"
        ):
            break
        value = node.inputs[0]
    return value


def _width(conv: ir.Node, axes: Mapping[ir.Value, Axes], shapes: Mapping[ir.Value, Shape]) -> int:
    """How many tokens one place of a convolution sees; 0 where tokens have not one axis."""
    source, weight = conv.inputs[:2]
    assert source is not None and weight is not None
    tokens = [axis for axis, flag in enumerate(axes[source]) if flag & TOKEN]
    if len(tokens) != 1 or tokens[0] < 2 or weight not in shapes:
        return 0
    return shapes[weight][tokens[0]]


class Attended(Reaching):
    """Whether attention to a value, or to what is made of it, follows."""

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
