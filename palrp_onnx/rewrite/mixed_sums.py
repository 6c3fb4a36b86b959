"""Sums of positions and masks that are moved before they meet content, as sums of moved terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from palrp_onnx.analysis.roles import SAID, Role
from palrp_onnx.model.ops import MOVES, NARY, Trait, has
from palrp_onnx.model.values import is_float

if TYPE_CHECKING:
    from palrp_onnx.analysis.analysis import Analysis

_TERMS = Trait.SUM | Trait.CHOICE
#: Operations that keep the entries of their first operand apart, wherever they move them.
_MOVES = MOVES | Trait.RETYPES
#: Name that a moved term of a sum had in the file, among the notes of a value.
TERM = "palrp_onnx.term"


def is_aligned(node: ir.Node) -> bool:
    """Whether real operands meet entry by entry, aligned from the right.

    The exponent of ``Pow`` is one too, but has to be a number.
    """
    return has(node, NARY) or node.op_type == "PRelu" or _only_retypes(node)


def is_sum(node: ir.Node) -> bool:
    """Whether the result of sums of a position and something else is still such a sum."""
    return has(node, _TERMS) or _only_retypes(node)


def _only_retypes(node: ir.Node) -> bool:
    return has(node, Trait.RETYPES) and len(node.inputs) == 1


def move_terms(analysis: Analysis) -> bool:
    """Make sums that are moved before they meet content sums of moved terms, where there are any.

    A mask and a bias that were added and then sliced can be told apart only as terms, and their
    axes are known only where they stand when they meet content. So every term is spread to the
    shape of the sum and moved by itself.
    """
    behind = dict.fromkeys(
        node.inputs[index]
        for (node, index), fact in analysis.operands.items()
        if fact.role in (Role.POSITION, Role.SEGMENT)
        and fact.reason != SAID
        and is_aligned(node)
        and node.inputs[index] not in analysis.content
    )
    found = [(v, moves) for v in behind if v is not None and (moves := _moves_to_sum(v))]
    for value, moves in found:
        _distribute(analysis, value, moves)
    analysis.model.changes.add("sum moved", len(found))
    return bool(found)


def _moves_to_sum(value: ir.Value) -> list[ir.Node]:
    """The movements between a sum and ``value``, from the sum on; none where there is no sum."""
    moves: list[ir.Node] = []
    node = value.producer()
    while node is not None and _moves(node) and node.inputs[0] is not None:
        moves.insert(0, node)
        node = node.inputs[0].producer()
    moved = any(has(move, MOVES) for move in moves)
    return moves if moved and node is not None and has(node, _TERMS) else []


def _moves(node: ir.Node) -> bool:
    return has(node, _MOVES) and len(node.outputs) == 1


def _distribute(analysis: Analysis, value: ir.Value, moves: list[ir.Node]) -> None:
    """Let the users of ``value``, a moved sum, read a sum of moved terms: the same numbers."""
    whole, last = moves[0].inputs[0], value.producer()
    total = whole.producer() if whole is not None else None
    assert whole is not None and total is not None and last is not None
    for each in (whole, *(move.outputs[0] for move in moves)):
        each.shape = each.shape or ir.Shape([None] * len(analysis.shapes[each]))
    index = ir.TensorType(ir.DataType.INT64)
    rank = ir.Shape([len(analysis.shapes[whole])])
    nodes, terms = [_made("Shape", [whole], f"{value.name}/shape", index, rank)], []
    for k, term in enumerate(total.inputs):
        assert term is not None
        moved = _moved(term, whole, nodes[0].outputs[0], moves, f"{value.name}/{k}")
        terms.append(moved[-1].outputs[0] if moved else term)
        nodes += moved
    name = f"{value.name}/terms"
    nodes.append(_made(total.op_type, terms, name, value.type, value.shape, total))
    analysis.model.graph.insert_after(last, nodes)
    for use in tuple(value.uses()):
        use.node.replace_input_with(use.idx, nodes[-1].outputs[0])
    for move in reversed(moves):
        if move.outputs[0].uses() or move.outputs[0].is_graph_output():
            break
        analysis.model.graph.remove(move, safe=True)


def _moved(
    term: ir.Value, whole: ir.Value, shape: ir.Value, moves: list[ir.Node], name: str
) -> list[ir.Node]:
    """A term of ``whole`` in its shape, moved like it; a number only changes its type with it."""
    real, number = is_float(term), _is_number(term)
    made = [] if number else [_made("Expand", [term, shape], name, term.type, whole.shape)]
    for step, move in enumerate(moves):
        applies = real if has(move, Trait.RETYPES) else not number
        if not applies:
            continue
        after = move.outputs[0]
        inputs = [made[-1].outputs[0] if made else term, *move.inputs[1:]]
        kind, rank = (after.type if real else term.type), (term if number else after).shape
        made.append(_made(move.op_type, inputs, f"{name}/{step}", kind, rank, move))
    if made:
        made[-1].outputs[0].meta[TERM] = term.meta.get(TERM, term.name)
    return made


def _is_number(value: ir.Value) -> bool:
    """Whether a value is one stored number without axes."""
    return value.const_value is not None and value.const_value.shape.rank() == 0


def _made(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    kind: ir.TypeProtocol | None,
    shape: ir.Shape | None,
    like: ir.Node | None = None,
) -> ir.Node:
    """A node that names its one output as itself, with the attributes of another."""
    node = ir.node(op_type, inputs, domain=like.domain if like else "", name=name)
    if like is not None:
        node.attributes.update(like.attributes)
    result = node.outputs[0]
    result.name, result.type, result.shape = name, kind, shape
    return node
