"""Mixed sums, such as of a mask and a bias: a copy for each use, and terms that are not moved.

Two passes that need the analysis. They change no value that depends on content, so observations
stay valid, and those of the new nodes are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis, analyse
from palrp_onnx.analysis.observations import Observations, Runner, observe_more
from palrp_onnx.analysis.operands import TERM, TERMS, Mixture, is_aligned
from palrp_onnx.analysis.roles import OVERRIDDEN, Role
from palrp_onnx.model.changes import Changes
from palrp_onnx.model.ops import MOVES, Trait, has
from palrp_onnx.model.values import is_float

#: Rewrites the graph of an analysis in place; returns the log, and the observations after it.
Guided = Callable[[Analysis, Runner], tuple[Changes, Observations]]

#: Operations that move or cast entries of their first operand without combining them.
_MOVES = MOVES | Trait.RETYPES


def rewritten(facts: Analysis, rewriting: Guided, run: Runner) -> Analysis:
    """The analysis after a pass; the same object where the pass changed nothing.

    Roles are judged again from the observations that the pass returned.

    Args:
        facts: The analysis; its log of changes is extended.
        rewriting: The pass.
        run: Runs the new nodes.
    """
    changes, seen = rewriting(facts, run)
    if not changes:
        return facts
    facts.model.changes.add(changes)
    return analyse(seen)


def separate_sums(facts: Analysis, run: Runner) -> Analysis:
    """The analysis after both passes, which repeat until neither of them changes anything.

    A moved sum becomes a sum of moved terms, which may be moved sums themselves: there are as many
    rounds as sums and movements alternate.
    """
    while True:
        copied = rewritten(facts, copy_shared_sums, run)
        facts = rewritten(copied, move_terms, run)
        if facts is copied:
            return facts


# --- sums that are combined several times----------------------------------------------------------
def copy_shared_sums(facts: Analysis, _run: Runner) -> tuple[Changes, Observations]:
    """Copy a mixed sum for every content value that it is combined with, except the last.

    So every layer has a sink of its own. Mixed sums among its terms are copied with it. The log
    counts copies.
    """
    graph, copies = facts.model.graph, dict[ir.Value, ir.Value]()
    for mixture in facts.mixtures:
        own: dict[ir.Node, ir.Node] = {}
        for value in _outer_first(mixture):
            reads = [(own.get(node, node), index) for node, index in mixture.reads[value]]
            producer = value.producer()
            if producer is None or len(value.uses()) <= len(reads):
                continue
            copy = _copied(producer, value, len(copies) + 1)
            if len(reads) == 1:
                graph.insert_before(reads[0][0], copy)
            else:
                graph.insert_after(producer, copy)
            for node, index in reads:
                node.replace_input_with(index, copy.outputs[0])
            own[producer] = copy
            copies[copy.outputs[0]] = value
    return Changes.of({"sum copied": len(copies)}), _as_copied(facts, copies)


def _outer_first(mixture: Mixture) -> Iterator[ir.Value]:
    """The sums of a mixture, each after all sums that read it."""
    unread = {value: len(reads) for value, reads in mixture.reads.items()}
    ready = [next(iter(unread))]
    while ready:
        value = ready.pop()
        producer = value.producer()
        terms = reversed(producer.inputs) if producer is not None else ()
        for term in terms:
            if term is not None and term in unread:
                unread[term] -= 1
                if not unread[term]:
                    ready.append(term)
        yield value


def _copied(producer: ir.Node, value: ir.Value, number: int) -> ir.Node:
    """A copy of the node of a sum."""
    copy = _made(
        producer.op_type,
        producer.inputs,
        f"{value.name}/own/{number}",
        value.type,
        value.shape,
        producer,
    )
    copy.name = f"{producer.name}/own/{number}"
    return copy


def _as_copied(seen: Observations, copies: dict[ir.Value, ir.Value]) -> Observations:
    """The observations with those of copies, which are equal to their originals."""
    names = {copy.name or "": value.name or "" for copy, value in copies.items()}
    return replace(
        seen,
        trial={**seen.trial, **{n: seen.trial[o] for n, o in names.items() if o in seen.trial}},
        again={**seen.again, **{n: seen.again[o] for n, o in names.items() if o in seen.again}},
        shapes={**seen.shapes, **{copy: seen.shapes[value] for copy, value in copies.items()}},
    )


# --- sums that are moved -------------------------------------------------------------------------
def move_terms(facts: Analysis, run: Runner) -> tuple[Changes, Observations]:
    """Replace moved sums that are combined with content by sums of moved terms.

    A mask and a bias that are added and then sliced can be distinguished only as terms, and axes
    are known only where a term is combined with content. So every term is expanded to the shape of
    the sum and moved on its own. The log counts moved sums.
    """
    operands = dict.fromkeys(
        node.inputs[index]
        for (node, index), fact in facts.operands.items()
        if fact.role in (Role.POSITION, Role.SEGMENT)
        and fact.reason != OVERRIDDEN
        and is_aligned(node)
        and node.inputs[index] not in facts.content
    )
    found = [(v, moves) for v in operands if v is not None and (moves := _moves_to_sum(v))]
    if not found:
        return Changes(), facts
    made = [each for value, moves in found for each in _distribute(facts, value, moves)]
    results = (v for node in made for v in node.outputs)
    seen = observe_more(facts, run, [v for v in results if is_float(v)])
    return Changes.of({"sum moved": len(found)}), seen


def _moves_to_sum(value: ir.Value) -> list[ir.Node]:
    """The movements between a real sum and ``value``, in order; none if there is no sum."""
    moves: list[ir.Node] = []
    node = value.producer()
    while node is not None and _moves(node) and node.inputs[0] is not None:
        moves.append(node)
        node = node.inputs[0].producer()
    moved = any(has(move, MOVES) for move in moves)
    summed = node is not None and has(node, TERMS) and is_float(node.outputs[0])
    return moves[::-1] if moved and summed else []


def _moves(node: ir.Node) -> bool:
    return has(node, _MOVES) and len(node.outputs) == 1


def _distribute(facts: Analysis, value: ir.Value, moves: Sequence[ir.Node]) -> list[ir.Node]:
    """Let the users of ``value``, a moved sum, read an equal sum of moved terms.

    Returns:
        The new nodes.
    """
    graph, whole, last = facts.model.graph, moves[0].inputs[0], value.producer()
    total = whole.producer() if whole is not None else None
    assert whole is not None and total is not None and last is not None
    for each in (whole, *(move.outputs[0] for move in moves)):
        each.shape = each.shape or ir.Shape([None] * len(facts.shapes[each]))
    index = ir.TensorType(ir.DataType.INT64)
    rank = ir.Shape([len(facts.shapes[whole])])
    nodes, terms = [_made("Shape", [whole], f"{value.name}/shape", index, rank)], []
    for k, term in enumerate(total.inputs):
        assert term is not None
        moved = _moved(term, whole, nodes[0].outputs[0], moves, f"{value.name}/{k}")
        terms.append(moved[-1].outputs[0] if moved else term)
        nodes += moved
    name = f"{value.name}/terms"
    nodes.append(_made(total.op_type, terms, name, value.type, value.shape, total))
    graph.insert_after(last, nodes)
    for use in value.uses():
        use.node.replace_input_with(use.idx, nodes[-1].outputs[0])
    for move in reversed(moves):
        if move.outputs[0].uses() or move.outputs[0].is_graph_output():
            break
        graph.remove(move, safe=True)
    return nodes


def _moved(
    term: ir.Value, whole: ir.Value, shape: ir.Value, moves: Sequence[ir.Node], name: str
) -> list[ir.Node]:
    """A term of ``whole``, expanded to its shape and moved like it; a scalar is only cast."""
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
    """Whether a value is a constant scalar."""
    return value.const_value is not None and value.const_value.shape.rank() == 0


def _made(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    kind: ir.TypeProtocol | None,
    shape: ir.Shape | None,
    like: ir.Node | None = None,
) -> ir.Node:
    """A node whose one output has its name, with the attributes of the node ``like``."""
    node = ir.node(op_type, inputs, domain=like.domain if like else "", name=name)
    if like is not None:
        node.attributes.update(like.attributes)
    result = node.outputs[0]
    result.name, result.type, result.shape = name, kind, shape
    return node
