"""Products of a value with a function of itself: self-gated activations and normalisers.

``x · σ(x)``, ``x · ½(1 + erf(x/√2))``, ``x · x``, ``x / √(mean(x²) + ε)`` look like products of two
activations but are functions of one. In each, one factor *carries* the relevance and the other
scales it like a constant. This is the identity rule ``m_x = m ∘ y / x`` in closed form, defined at
``x = 0`` too. Such products are found by dominators: value ``d`` dominates ``v`` when every path of
content to ``v`` through element-wise operations passes ``d``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from palrp_onnx.analysis.roles import Fact, Role
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has

#: Operations with trait ``ZERO`` that are zero wherever their first operand is.
_OF_FIRST = Trait.UNARY | Trait.SCALE
#: Element-wise functions that are no activation functions.
_PLAIN = Trait.LINEAR | Trait.ROUNDS
#: Operations between a value and a statistic of it.
_STATISTIC = ELEMENTWISE | Trait.REDUCTION | Trait.RANK | Trait.RESHAPE | Trait.REPEAT

Content = Mapping[ir.Value, None]
Operand = tuple[ir.Node, int]


@dataclass(frozen=True)
class Scaling:
    """Operands that scale the other factor and receive nothing, each with the reason.

    Attributes:
        gates: Factors of self-gated activations.
        statistics: Normalisers: denominators, and statistics that scale the value they measure.
    """

    gates: Mapping[Operand, Fact]
    statistics: Mapping[Operand, Fact]

    def facts(self) -> dict[Operand, Fact]:
        """Gates and statistics in one mapping."""
        return {**self.gates, **self.statistics}


def find_scaling(graph: ir.Graph, content: Content) -> Scaling:
    """Find the scaling operands of every product and quotient of two content values."""
    elementwise = _Dominators(content, ELEMENTWISE)
    reduced = _Dominators(content, _STATISTIC)
    gates: dict[Operand, Fact] = {}
    statistics: dict[Operand, Fact] = {}
    for node in graph:
        elementwise.add(node)
        reduced.add(node)
        if not has(node, Trait.SCALE) or not all(v in content for v in node.inputs):
            continue
        left, right = (v for v in node.inputs if v is not None)
        if node.op_type == "Div":
            statistics[node, 1] = Fact(Role.STATISTIC, "a denominator")
        elif (source := elementwise.common(left, right)) is not None:
            carrier = _carrier(left, right, source, content)
            reason = f"gates its partner: both are functions of {source.name}"
            gates[node, 1 - carrier] = Fact(Role.STATISTIC, reason)
        else:
            for carried, scale, index in ((left, right, 1), (right, left, 0)):
                source = _measured(elementwise, reduced, carried, scale)
                if source is not None:
                    reason = f"a statistic of {source.name} that scales it again"
                    statistics[node, index] = Fact(Role.STATISTIC, reason)
                    break
    return Scaling(gates, statistics)


def _carrier(left: ir.Value, right: ir.Value, source: ir.Value, content: Content) -> int:
    """Which of two factors carries: the one that vanishes with the source, of both the simpler."""
    if source in (left, right):
        return int(left is not source)
    costs = [_cost(v, source, content) for v in (left, right)]
    return costs.index(min(costs))


def _measured(
    elementwise: _Dominators, reduced: _Dominators, carried: ir.Value, scale: ir.Value
) -> ir.Value | None:
    """The nearest value that ``carried`` is a function of and ``scale`` a function or statistic of.

    A dominator within element-wise operations is one within more operations, too. So the dominators
    of ``carried`` that also dominate ``scale`` are those at or above the common one in ``reduced``.
    """
    shared = reduced.common(carried, scale)
    if shared is None:
        return None
    count = reduced.count(shared)
    return elementwise.nearest(carried, lambda above: reduced.count(above) <= count)


class _Dominators:
    """The tree of dominators of content values, within operations of some kinds.

    The nearest dominator of a value is the nearest common dominator of its operands. Every value
    also has a pointer to a further dominator, so that any dominator is reached in a number of steps
    that is logarithmic in the depth of the tree.
    """

    def __init__(self, content: Content, through: Trait) -> None:
        self._content = content
        self._through = through
        self._nearest: dict[ir.Value, ir.Value] = {}
        self._further: dict[ir.Value, ir.Value] = {}
        self._count: dict[ir.Value, int] = {}

    def add(self, node: ir.Node) -> None:
        """Add the results of a node, after those of its operands."""
        inputs = [v for v in node.inputs if v is not None and v in self._content]
        above = inputs[0] if inputs and has(node, self._through) else None
        for each in inputs[1:]:
            above = None if above is None else self.common(above, each)
        if above is None:
            return
        for value in node.outputs:
            if value in self._content:
                self._nearest[value], self._count[value] = above, self.count(above) + 1
                further = self._further.get(above, above)
                furthest = self._further.get(further, further)
                even = self.count(above) - self.count(further) == (
                    self.count(further) - self.count(furthest)
                )
                self._further[value] = furthest if even else above

    def count(self, value: ir.Value) -> int:
        """Number of values that dominate ``value``, without itself."""
        return self._count.get(value, 0)

    def nearest(self, value: ir.Value, holds: Callable[[ir.Value], bool]) -> ir.Value | None:
        """The nearest dominator of a value, or itself, for which ``holds`` is true.

        It has to be true of all further ones, too.
        """
        while not holds(value):
            if value not in self._nearest:
                return None
            further = self._further[value]
            value = self._nearest[value] if holds(further) else further
        return value

    def common(self, first: ir.Value, second: ir.Value) -> ir.Value | None:
        """The nearest common dominator of two values, where each dominates itself."""
        count = min(self.count(first), self.count(second))
        one, other = (
            self.nearest(v, lambda above: self.count(above) <= count) for v in (first, second)
        )
        assert one is not None and other is not None
        while one is not other:
            if one not in self._nearest:
                return None
            further = self._further[one], self._further[other]
            near = self._nearest[one], self._nearest[other]
            one, other = near if further[0] is further[1] else further
        return one


def _cost(value: ir.Value, source: ir.Value, content: Content) -> tuple[bool, int]:
    """(is not zero where the source is, operations from the source): the smallest carries."""
    steps, vanishes, queue, seen = 0, True, [value], {value, source}
    while queue:
        node = queue.pop().producer()
        if node is None or value is source:
            continue
        inputs = [v for v in node.inputs if v is not None and v in content]
        steps += 1
        enough = has(node, _OF_FIRST) or len(inputs) == len(node.inputs)
        vanishes &= enough and has(node, Trait.ZERO)
        queue.extend(v for v in inputs if v not in seen)
        seen.update(inputs)
    return not vanishes, steps


def activation_values(graph: ir.Graph, content: Content, scaling: Scaling) -> set[ir.Value]:
    """Outputs of element-wise nonlinear functions: GELU, SiLU, …, one operation or several."""
    found = {
        v
        for node in graph
        if has(node, Trait.UNARY) and not has(node, _PLAIN)
        for v in node.outputs
        if v in content
    }
    found |= {node.outputs[0] for node, _ in scaling.gates}
    for node in graph:  # scaled or cast afterwards it is still the activation's output
        again = has(node, Trait.RETYPES) or node.op_type in ("Mul", "Neg")
        if again and node.outputs[0] in content:
            inputs = [v for v in node.inputs if v is not None and v in content]
            if len(inputs) == 1 and inputs[0] in found:
                found.add(node.outputs[0])
    return found
