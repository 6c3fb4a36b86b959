"""Products of a value with a function of itself: self-gated activations and normalisers.

``x · σ(x)``, ``x · ½(1 + erf(x/√2))``, ``x · x``, ``x / √(mean(x²) + ε)`` look like products of two
activations but are functions of one. In each, one factor *carries* the relevance and the other
scales it like a constant, which is the identity rule ``m_x = m ∘ y / x`` in closed form, safe at
``x = 0``. Found by dominators: value ``d`` dominates ``v`` when every path of content to ``v``
through element-wise operations passes ``d``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from palrp_onnx.analysis.roles import Fact, Role
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has

#: Zero where the first operand is, if they are zero at zero.
_OF_FIRST = Trait.UNARY | Trait.SCALE
#: Functions that are no activations.
_PLAIN = Trait.LINEAR | Trait.ROUNDS
#: What may lie between a value and a statistic of it.
_STATISTIC = ELEMENTWISE | Trait.REDUCTION | Trait.RANK | Trait.RESHAPE | Trait.REPEAT

Chain = tuple[ir.Value, ...]
Content = Mapping[ir.Value, None]
Operand = tuple[ir.Node, int]


@dataclass(frozen=True)
class Scaling:
    """Operands that scale their partner and receive nothing, each with the reason.

    Attributes:
        gates: Factors of self-gated activations.
        statistics: Normalisers: denominators and statistics that scale what they were taken of.
    """

    gates: Mapping[Operand, Fact]
    statistics: Mapping[Operand, Fact]

    def facts(self) -> dict[Operand, Fact]:
        """Both kinds."""
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
        elif (source := _nearest_common(elementwise.of(left), elementwise.of(right))) is not None:
            # The factor that vanishes with the source carries; of two that do, the simpler one.
            costs = [_cost(v, source, content) for v in (left, right)]
            carrier = costs.index(min(costs))
            reason = f"gates its partner: both are functions of {source.name}"
            gates[node, 1 - carrier] = Fact(Role.STATISTIC, reason)
        else:
            for carried, scale, index in ((left, right, 1), (right, left, 0)):
                source = _nearest_common(elementwise.of(carried), reduced.of(scale))
                if source is not None:
                    reason = f"a statistic of {source.name} that scales it again"
                    statistics[node, index] = Fact(Role.STATISTIC, reason)
                    break
    return Scaling(gates, statistics)


class _Dominators:
    """For every content value its dominators within operations of some kinds, nearest first."""

    def __init__(self, content: Content, through: Trait) -> None:
        self._content = content
        self._through = through
        self._chains: dict[ir.Value, Chain] = {}

    def add(self, node: ir.Node) -> None:
        inputs = [v for v in node.inputs if v is not None and v in self._content]
        inherited: Chain = ()
        if inputs and has(node, self._through):
            chains = [self.of(v) for v in inputs]
            shared = set(chains[0]).intersection(*map(set, chains[1:]))
            inherited = tuple(v for v in chains[0] if v in shared)
        self._chains.update((v, (v, *inherited)) for v in node.outputs if v in self._content)

    def of(self, value: ir.Value) -> Chain:
        return self._chains.get(value, (value,))


def _nearest_common(first: Chain, second: Chain) -> ir.Value | None:
    shared = set(second)
    return next((v for v in first if v in shared), None)


def _cost(value: ir.Value, source: ir.Value, content: Content) -> tuple[bool, int]:
    """(does not vanish where the source does, operations from the source): the smallest carries."""
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
