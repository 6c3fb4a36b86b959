"""How values without content are combined with content: as masks are, or as numbers.

A mask is added to attention scores, multiplies content by one number a place, or is the condition
of a choice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.follow import Reaching, uses_of
from palrp_onnx.model.ops import ELEMENTWISE, MOVES, Trait, has, row_of

#: Operations that move, concatenate, pad or cast.
MOVING = MOVES | Trait.JOIN | Trait.PAD | Trait.RETYPES
#: The same, and element-wise operations.
CARRYING = ELEMENTWISE | MOVING
_COMPARING = Trait.COMPARISON | Trait.LOGIC
#: Operations that can apply a mask to scores.
_ADDING = Trait.SUM | Trait.EXTREME | Trait.CHOICE


class Combination(StrEnum):
    """How a value without content is combined with content. Some values are parts of reasons."""

    SCORES = "is added to scores that end in a softmax"
    SCALES = "multiplies content by one number a place"
    SELECTS = "selects among content"
    LEARNED = "is multiplied with weights"
    JOINS = "is concatenated with content"
    OTHER = "is combined with content in another way"


#: Combinations that only masks have.
HIDING = frozenset((Combination.SCORES, Combination.SCALES, Combination.SELECTS))


def combinations_of(
    values: Iterable[ir.Value],
    content: Collection[ir.Value],
    choices: Choices,
    *,
    compared: bool = True,
) -> set[Combination]:
    """How ``values``, and numbers that depend on them alone, are combined with ``content``.

    Args:
        values: The values to follow.
        content: Real values that depend on other inputs.
        choices: Whether the largest entries of a value decide later on.
        compared: Whether to follow the results of comparisons too.
    """
    through = CARRYING | _COMPARING if compared else CARRYING

    def onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
        combined = any(v in content for v in node.inputs)
        return node.outputs if has(node, through) and not combined else ()

    found = {_combination(node, k, content, choices) for node, k in uses_of(values, onward)}
    return {each for each in found if each is not None}


def _combination(
    node: ir.Node, index: int, content: Collection[ir.Value], choices: Choices
) -> Combination | None:
    value = node.inputs[index]
    if has(node, Trait.LEARNT) and index == 0 and _weights(node):
        return Combination.LEARNED
    if value is None or not any(v in content for v in node.inputs if v is not value):
        return None
    chooses = index == 0 if has(node, Trait.CHOICE) else index == row_of(node).index
    if chooses and has(node, Trait.CHOICE | Trait.SELECT):
        return Combination.SELECTS
    if has(node, Trait.SCALE) and _one_a_place(value):
        return Combination.SCALES
    if (has(node, _ADDING) or node.op_type == "Mul") and choices(node.outputs[0]):
        return Combination.SCORES
    if has(node, Trait.JOIN):
        return Combination.JOINS
    return None if has(node, Trait.LENGTH | Trait.REPEAT | Trait.RESHAPE) else Combination.OTHER


def _weights(node: ir.Node) -> bool:
    """Whether the second operand is a constant whose entries are not all the same."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    stored = weight.const_value if weight is not None else None
    if stored is None or not stored.size:
        return False
    return node.op_type != "MatMul" or bool(np.ptp(stored.numpy().ravel()[:4096]) > 0)


def _one_a_place(value: ir.Value) -> bool:
    """Whether a value has one number where the other factor has features."""
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
    """Whether a cumulative sum reads a value, moved or cast at most."""
    uses = uses_of([value], lambda n, _: n.outputs if has(n, MOVING) else ())
    return any(node.op_type == "CumSum" for node, _ in uses)


class Choices(Reaching):
    """Whether a softmax or a maximum reads a value, after element-wise operations and movement."""

    def __init__(self) -> None:
        super().__init__(_chosen)


def _chosen(value: ir.Value) -> bool | list[ir.Value]:
    users = dict.fromkeys(use.node for use in value.uses())
    if any(has(node, Trait.CHOOSES) or _softmax_written_out(node) for node in users):
        return True
    return [v for node in users if has(node, CARRYING) for v in node.outputs]


def _softmax_written_out(node: ir.Node) -> bool:
    """Whether a node is the exponential of a softmax: its result is divided by its sum."""
    users = {use.node.op_type for use in node.outputs[0].uses()} if node.op_type == "Exp" else set()
    return {"Div", "ReduceSum"} <= users
