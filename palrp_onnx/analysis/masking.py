"""How values that do not depend on content meet it: as a mask does, or as numbers.

A mask ends in a softmax, multiplies or selects: it is added to attention scores, multiplies content
by one number a place, or is the condition of a choice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.self_gates import ELEMENTWISE
from palrp_onnx.model.follow import uses_of

#: Operations that hand numbers on, moved or changed entry by entry.
MOVING = frozenset(
    "Concat Expand Flatten Gather Identity Pad Reshape Slice Split Squeeze Tile Transpose "
    "Unsqueeze".split()
)
_CARRYING = ELEMENTWISE | MOVING
_COMPARING = frozenset("And Equal Greater GreaterOrEqual Less LessOrEqual Not Or Xor".split())
#: Operations with weights, which compute with numbers as real ones.
_LEARNED = frozenset("Conv ConvTranspose Gemm GRU LSTM MatMul RNN".split())
_ADDING = frozenset("Add Max Min Sub Sum Where".split())
#: What makes the largest of several scores win, so that very negative ones are switched off.
CHOOSING = frozenset("LogSoftmax ReduceLogSumExp ReduceMax Softmax".split())


class Meeting(StrEnum):
    """What a value without content does where it meets content."""

    SCORES = "is added to scores that end in a softmax"
    SCALES = "multiplies content by one number a place"
    SELECTS = "selects among content"
    LEARNED = "is multiplied with weights"
    JOINS = "stands beside content"
    OTHER = "meets content in another way"


#: What masks do, and nothing else does.
HIDING = frozenset((Meeting.SCORES, Meeting.SCALES, Meeting.SELECTS))


def meetings_of(
    values: Iterable[ir.Value], content: Collection[ir.Value], *, compared: bool = True
) -> set[Meeting]:
    """How ``values``, and numbers that are made of them alone, meet ``content``.

    Args:
        values: Where to start.
        content: Real values that depend on other inputs.
        compared: Whether truth values made of them count.
    """
    through = _CARRYING | (_COMPARING if compared else frozenset())

    def onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
        met = any(v in content for v in node.inputs)
        return node.outputs if node.op_type in through and not met else ()

    found = {_meeting(node, index, content) for node, index in uses_of(values, onward)}
    return {meeting for meeting in found if meeting is not None}


def _meeting(node: ir.Node, index: int, content: Collection[ir.Value]) -> Meeting | None:
    value = node.inputs[index]
    if node.op_type in _LEARNED and index == 0 and _weights(node):
        return Meeting.LEARNED
    if value is None or not any(v in content for v in node.inputs if v is not value):
        return None
    match node.op_type:
        case "Where" if index == 0:
            return Meeting.SELECTS
        case "Gather" | "GatherND" | "GatherElements" if index == 1:
            return Meeting.SELECTS
        case "Mul" | "Div" if _one_a_place(value):
            return Meeting.SCALES
        case kind if kind in _ADDING and ends_in_choice(node.outputs[0]):
            return Meeting.SCORES
        case "Mul" if ends_in_choice(node.outputs[0]):
            return Meeting.SCORES
        case "Concat":
            return Meeting.JOINS
        case "Shape" | "Size" | "Expand" | "Reshape":
            return None
        case _:
            return Meeting.OTHER


def _weights(node: ir.Node) -> bool:
    """Whether the second operand is stored numbers, not all the same."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    stored = weight.const_value if weight is not None else None
    if stored is None:
        return False
    return node.op_type != "MatMul" or bool(np.ptp(stored.numpy().ravel()[:4096]) > 0)


def _one_a_place(value: ir.Value) -> bool:
    """Whether a value has one number where what it multiplies has features."""
    current: ir.Value | None = value
    while current is not None:
        if current.shape is not None and current.shape.rank() and current.shape[-1] == 1:
            return True
        node = current.producer()
        if node is None or node.op_type not in ("Cast", "Expand", "Identity", "Clip"):
            return False
        current = node.inputs[0]
    return False


def accumulated(value: ir.Value) -> bool:
    """Whether numbers are summed up along an axis, entry after entry."""
    through = MOVING | {"Cast"}
    uses = uses_of([value], lambda n, _: n.outputs if n.op_type in through else ())
    return any(node.op_type == "CumSum" for node, _ in uses)


def ends_in_choice(value: ir.Value) -> bool:
    """Whether the largest of a value's entries wins later on, but for element-wise changes."""
    return any(node.op_type in CHOOSING or _softmax_written_out(node) for node in _behind(value))


def _softmax_written_out(node: ir.Node) -> bool:
    """Whether a node is the exponential of a softmax: what it yields is divided by its sum."""
    users = {use.node.op_type for use in node.outputs[0].uses()} if node.op_type == "Exp" else set()
    return {"Div", "ReduceSum"} <= users


def _behind(value: ir.Value) -> Iterator[ir.Node]:
    def onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
        return node.outputs if node.op_type in _CARRYING else ()

    return (node for node, _ in uses_of([value], onward))
