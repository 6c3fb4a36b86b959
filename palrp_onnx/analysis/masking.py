"""How values that do not depend on content meet it: as a mask does, or as numbers.

A mask ends in a softmax, multiplies or selects: it is added to attention scores, multiplies content
by one number a place, or is the condition of a choice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.follow import Reaching, uses_of
from palrp_onnx.model.ops import ELEMENTWISE, MOVES, Trait, has, row_of

#: Operations that hand numbers on, moved, joined or cast.
MOVING = MOVES | Trait.JOIN | Trait.PAD | Trait.RETYPES
#: The same, or changed entry by entry.
CARRYING = ELEMENTWISE | MOVING
_COMPARING = Trait.COMPARISON | Trait.LOGIC
#: What may put a mask on scores.
_ADDING = Trait.SUM | Trait.EXTREME | Trait.CHOICE


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
    values: Iterable[ir.Value],
    content: Collection[ir.Value],
    choices: Choices,
    *,
    compared: bool = True,
) -> set[Meeting]:
    """How ``values``, and numbers that are made of them alone, meet ``content``.

    Args:
        values: Where to start.
        content: Real values that depend on other inputs.
        choices: What is known of the graph.
        compared: Whether truth values made of them count.
    """
    through = CARRYING | _COMPARING if compared else CARRYING

    def onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
        met = any(v in content for v in node.inputs)
        return node.outputs if has(node, through) and not met else ()

    found = {_meeting(node, index, content, choices) for node, index in uses_of(values, onward)}
    return {meeting for meeting in found if meeting is not None}


def _meeting(
    node: ir.Node, index: int, content: Collection[ir.Value], choices: Choices
) -> Meeting | None:
    value = node.inputs[index]
    if has(node, Trait.LEARNT) and index == 0 and _weights(node):
        return Meeting.LEARNED
    if value is None or not any(v in content for v in node.inputs if v is not value):
        return None
    chooses = index == 0 if has(node, Trait.CHOICE) else index == row_of(node).index
    if chooses and has(node, Trait.CHOICE | Trait.PICK):
        return Meeting.SELECTS
    if has(node, Trait.SCALE) and _one_a_place(value):
        return Meeting.SCALES
    if (has(node, _ADDING) or node.op_type == "Mul") and choices(node.outputs[0]):
        return Meeting.SCORES
    if has(node, Trait.JOIN):
        return Meeting.JOINS
    return None if has(node, Trait.LENGTH | Trait.REPEAT | Trait.RESHAPE) else Meeting.OTHER


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
        if node is None or not has(node, Trait.RETYPES | Trait.REPEAT | Trait.ROUNDS):
            return False
        current = node.inputs[0]
    return False


def accumulated(value: ir.Value) -> bool:
    """Whether numbers are summed up along an axis, entry after entry."""
    uses = uses_of([value], lambda n, _: n.outputs if has(n, MOVING) else ())
    return any(node.op_type == "CumSum" for node, _ in uses)


class Choices(Reaching):
    """Whether the largest of a value's entries wins later on, but for element-wise changes."""

    def __init__(self) -> None:
        super().__init__(_chosen)


def _chosen(value: ir.Value) -> bool | list[ir.Value]:
    users = dict.fromkeys(use.node for use in value.uses())
    if any(has(node, Trait.CHOOSES) or _softmax_written_out(node) for node in users):
        return True
    return [v for node in users if has(node, CARRYING) for v in node.outputs]


def _softmax_written_out(node: ir.Node) -> bool:
    """Whether a node is the exponential of a softmax: what it yields is divided by its sum."""
    users = {use.node.op_type for use in node.outputs[0].uses()} if node.op_type == "Exp" else set()
    return {"Div", "ReduceSum"} <= users
