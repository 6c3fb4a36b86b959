"""Sums over attention scores that follow from the products on either side of the softmax.

With probabilities s of scores x, o = s V and x = c q kᵀ plus what carries no relevance, the uniform
rule sends m_s = ½ m_o Vᵀ and m_q = ½ c m_x k. So, for every query i,

    Σ_j s_ij m_s_ij = ½ Σ_d o_id m_o_id        Σ_ij x_ij m_x_ij = 2 Σ q ∘ m_q

and no sum has to read all scores. This holds where the rules of both products are the usual ones,
and every value between product and softmax has one consumer.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Operand
from palrp_onnx.analysis.roles import Role
from palrp_onnx.relevance.plan import RECEIVING, Plan, View, guard_of, role_of
from palrp_onnx.rules import movement, products, softmax, sums
from palrp_onnx.rules.registry import Rule

_MOVING = (movement.unchanged, movement.reshape, movement.transpose)


@dataclass(frozen=True)
class ScoreSums:
    """Where sums are found.

    Attributes:
        above: Product of probabilities and values → its softmax.
        below: Softmax → product that makes its scores, and the operand by whose relevance that of
            the scores is known.
    """

    above: dict[ir.Node, ir.Node]
    below: dict[ir.Node, Operand]


NO_SUMS = ScoreSums({}, {})


def find_score_sums(plan: Plan) -> ScoreSums:
    """Find the sums that the walk of a plan can take from products."""
    rules = {step.node: step.entry.rule for step in plan.steps if step.entry is not None}
    found = ScoreSums({}, {})
    for node, rule in rules.items():
        if rule is not softmax.softmax:
            continue
        above = _product_above(plan, rules, node)
        if above is None:
            continue
        found.above[above] = node
        below = _product_below(plan, rules, node)
        if below is not None:
            found.below[node] = below
    return found


_Rules = dict[ir.Node, Rule]


def _product_above(plan: Plan, rules: _Rules, node: ir.Node) -> ir.Node | None:
    """The product that alone reads the probabilities, as its first operand."""
    shape = plan.analysis.shapes[node.outputs[0]]
    if node.attributes.get_int("axis", -1) % len(shape) != len(shape) - 1:
        return None
    value = node.outputs[0]
    while True:
        guarded = guard_of(value)
        if guarded is not value and len(tuple(value.uses())) > 2:  # the test, and the guard
            return None
        use = _only_reader(guarded)
        if use is None:
            return None
        reader, index = use
        if rules.get(reader) is not movement.unchanged:
            usual = index == 0 and _is_usual(plan, rules, reader)
            return reader if usual and _shares(plan, reader, 0) else None
        value = reader.outputs[0]


def _product_below(plan: Plan, rules: _Rules, node: ir.Node) -> Operand | None:
    """The product that makes the scores of a softmax, and its first operand with content."""
    value = node.inputs[0]
    while value is not None and _only_reader(value) is not None:
        maker = value.producer()
        if maker is None:
            return None
        if _is_usual(plan, rules, maker):
            content = [k for k in (0, 1) if _shares(plan, maker, k)]
            return (maker, content[0]) if content else None
        index = _kept_by(plan, rules, maker)
        value = None if index is None else maker.inputs[index]
    return None


def _is_usual(plan: Plan, rules: _Rules, node: ir.Node) -> bool:
    """Whether a node is an exact product of matrices with the usual rule."""
    shapes = plan.analysis.shapes
    return (
        rules.get(node) is products.matmul
        and node not in plan.kernels
        and all(v is not None and len(shapes.get(v, ())) > 1 for v in node.inputs)
    )


def _kept_by(plan: Plan, rules: _Rules, node: ir.Node) -> int | None:
    """The operand that has all relevance of the result; ``None`` where there is not one."""
    rule = rules.get(node)
    if rule in _MOVING:
        return 0
    content = [k for k in range(len(node.inputs)) if _role(plan, node, k) is Role.CONTENT]
    if len(content) != 1:
        return None
    others = [k for k in range(len(node.inputs)) if k not in content]
    if rule in (sums.add, sums.where):
        kept = not any(_receives(plan, node, k) for k in others)
    elif rule in (products.multiply, products.divide):
        kept = _shares(plan, node, content[0]) and not any(_active(plan, node, k) for k in others)
    else:
        kept = False
    return content[0] if kept else None


def _shares(plan: Plan, node: ir.Node, index: int) -> bool:
    """Whether an operand of a product is content that takes a share."""
    return _role(plan, node, index) is Role.CONTENT and _active(plan, node, index)


def _active(plan: Plan, node: ir.Node, index: int) -> bool:
    return View(plan, node, lambda value: value).active(index)


def _role(plan: Plan, node: ir.Node, index: int) -> Role | None:
    return role_of(plan.analysis, (node, index), plan.scaling)


def _receives(plan: Plan, node: ir.Node, index: int) -> bool:
    return _role(plan, node, index) in RECEIVING or (node, index) in plan.real_masks


def _only_reader(value: ir.Value) -> Operand | None:
    uses = tuple(value.uses())
    return uses[0] if len(uses) == 1 and not value.is_graph_output() else None
