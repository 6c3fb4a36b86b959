"""Whether a value is a probability: the softmax or sigmoid that yields it.

Structure decides, not numbers: the softmax or sigmoid is searched before operations that only move,
cast or round its result. Dequantising inverts quantising, so factors and offsets in between have to
cancel. Rounding and bounds may change the last digits only: a result that is rounded to 0 or 1, or
clipped at one half, is no probability.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from palrp_onnx.heads import LOG_SOFTMAX, SIGMOID, SOFTMAX
from palrp_onnx.model.ops import ELEMENTWISE, MOVES, Trait, has, row_of

_RETYPED = Trait.RETYPES | Trait.LIKE
_PASSED = MOVES | _RETYPED
#: Largest change of a probability by rounding to eight bits.
_LAST_DIGITS = 2 / 255
#: Operations on probabilities alone whose results are no scores either.
_BLENDED = ELEMENTWISE | _PASSED | Trait.JOIN | Trait.PAD | Trait.REDUCTION
_SUMS = frozenset(("ReduceSum", "ReduceL1"))
#: Those whose operands all count.
_SEVERAL = Trait.SUM | Trait.SCALE | Trait.EXTREME
#: What keeps a divisor away from zero.
_BOUNDING = frozenset("Add Clip Max".split())
_AFFINE = frozenset("Add Div Mul Sub".split())
_ENDINGS = frozenset((SOFTMAX, SIGMOID, LOG_SOFTMAX))
#: exp(log softmax) and log(softmax), written out.
_INVERSE = {("Exp", LOG_SOFTMAX): SOFTMAX, ("Log", SOFTMAX): LOG_SOFTMAX}


@dataclass(frozen=True)
class Ending:
    """The last operation of a classifier.

    Attributes:
        kind: ``Softmax``, ``Sigmoid`` or ``LogSoftmax``.
        node: That node.
        before: Its operand: scores, or logits.
    """

    kind: str
    node: ir.Node
    before: ir.Value


def ending_of(value: ir.Value) -> Ending | None:
    """The softmax or sigmoid that yields ``value``; ``None`` where it is no probability."""
    factor, offset = 1.0, 0.0
    undone: list[str] = []
    while (node := value.producer()) is not None:
        source = node.inputs[0] if node.inputs else None
        if source is None:
            return None
        if node.op_type in _ENDINGS:
            same = abs(factor - 1) < 1e-5 and abs(offset) < 1e-5
            kind: str | None = node.op_type if same else None
            while undone and kind is not None:
                kind = _INVERSE.get((undone.pop(), kind))
            return None if kind is None else Ending(kind, node, source)
        if node.op_type in ("Exp", "Log"):
            if factor != 1 or offset != 0:
                return None
            undone.append(node.op_type)
            value = source
            continue
        if node.op_type in _AFFINE:
            moved = _affine(node, factor, offset)
            if moved is None:
                return None
            source, factor, offset = moved
        elif not (has(node, _PASSED) or _keeps(node, factor, offset)):
            return None
        value = source
    return None


def blends_probabilities(value: ir.Value, content: Collection[ir.Value]) -> bool:
    """Whether a value is made of probabilities alone, such as the mean of several softmaxes.

    Its entries are no scores then, and how a probability follows from them is not known. Shares of
    a sum count as probabilities.

    Args:
        value: A content value.
        content: All content values.
    """
    queue, seen = [value], {value}
    while queue:
        node = queue.pop().producer()
        if node is None:
            return False
        if node.op_type in _ENDINGS or _shares(node):
            continue
        if not has(node, _BLENDED):
            return False
        fresh = {v for v in _terms(node) if v in content} - seen
        queue.extend(fresh)
        seen |= fresh
    return True


def _terms(node: ir.Node) -> Iterator[ir.Value]:
    """Operands whose numbers the result is made of."""
    row = row_of(node)
    every = row.moved is None or has(node, _SEVERAL)
    chosen = range(len(node.inputs)) if every else row.moved or (0,)
    return (v for k in chosen if k < len(node.inputs) and (v := node.inputs[k]) is not None)


def _shares(node: ir.Node) -> bool:
    """Whether entries are divided by their sum, or by what a number was added to."""
    whole = node.inputs[1] if node.op_type == "Div" else None
    while whole is not None and (made := whole.producer()) is not None:
        if made.op_type in _SUMS:
            return made.inputs[0] is node.inputs[0]
        if made.op_type not in _BOUNDING:
            return False
        whole = made.inputs[0]
    return False


def _keeps(node: ir.Node, factor: float, offset: float) -> bool:
    """With y = factor · (the node's result) + offset: whether the node keeps y in [0, 1]."""
    if node.op_type == "Round" or _rounded(node):
        return abs(factor) <= _LAST_DIGITS
    if node.op_type != "Clip":
        return False
    ends = [factor * bound + offset for bound in _bounds(node)]
    return min(ends) <= _LAST_DIGITS and max(ends) >= 1 - _LAST_DIGITS


def _rounded(node: ir.Node) -> bool:
    """Whether a ``Clip`` after a ``Round`` bounds integers to their type, as quantising does."""
    source = node.inputs[0]
    before = None if source is None else source.producer()
    return node.op_type == "Clip" and before is not None and before.op_type == "Round"


def _bounds(node: ir.Node) -> list[float]:
    """Bounds of a ``Clip``: operands or, in old files, attributes; 0 where they are computed."""
    found = []
    for index, (name, absent) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        operand = node.inputs[index] if index < len(node.inputs) else None
        number = node.attributes.get_float(name, absent) if operand is None else _number(operand)
        found.append(0.0 if number is None else number)
    return found


def _affine(node: ir.Node, factor: float, offset: float) -> tuple[ir.Value, float, float] | None:
    """Write y = factor · (the node's result) + offset in terms of its operand that varies."""
    first, second = node.inputs[:2]
    if first is None or second is None:
        return None
    number = _number(second)
    if number is None and node.op_type in ("Add", "Mul"):
        first, number = second, _number(first)
    if number is None or (node.op_type == "Div" and number == 0):
        return None
    if node.op_type in ("Mul", "Div"):
        return first, factor * number if node.op_type == "Mul" else factor / number, offset
    return first, factor, offset + factor * (number if node.op_type == "Add" else -number)


def _number(value: ir.Value) -> float | None:
    """The entry of a constant that is a single number."""
    constant = value.const_value
    return float(constant.numpy().item()) if constant is not None and constant.size == 1 else None


def followed_by(value: ir.Value, outputs: Iterable[ir.Value], rank: int, opset: int) -> str | None:
    """The kind of softmax or sigmoid that turns ``value`` into an output of the graph, or ``None``.

    Args:
        value: A value that may be scores.
        outputs: The graph's outputs.
        rank: Number of axes of ``value``; a softmax has to run along the last alone.
        opset: Before 13, a softmax runs over all axes from the second on by default.
    """
    usual = -1 if opset >= 13 else 1
    for output in outputs:
        found = ending_of(output)
        if found is None or _retyped(found.before) is not _retyped(value):
            continue
        axis = found.node.attributes.get_int("axis", usual)
        if found.kind == SIGMOID or axis % rank == rank - 1:
            return found.kind
    return None


def _retyped(value: ir.Value) -> ir.Value:
    """The value before casts."""
    while (node := value.producer()) is not None and has(node, _RETYPED):
        source = node.inputs[0]
        assert source is not None
        value = source
    return value
