"""The plan of a walk: the nodes between target and explained input, each with its rule.

A graph that cannot be explained is refused here, before anything runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis, Operand
from palrp_onnx.analysis.axes import sample_axis
from palrp_onnx.analysis.content import fed_values
from palrp_onnx.analysis.inputs import from_entries, table_rows
from palrp_onnx.analysis.probability import ending_of
from palrp_onnx.analysis.roles import Fact, Role
from palrp_onnx.errors import TargetError, UnsupportedError, UsageError
from palrp_onnx.model.lowering import REFUSED
from palrp_onnx.model.native import kernel_nodes
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import is_float
from palrp_onnx.relevance.attention import find_scores
from palrp_onnx.relevance.linear_layers import added_biases, attention_layers
from palrp_onnx.relevance.method import Method
from palrp_onnx.rules import RuleEntry, find_rule
from palrp_onnx.rules.refused import reason
from palrp_onnx.tensor.language import Language

T = TypeVar("T")

#: Roles of operands that can receive relevance. A mask cannot: where it is zero its relevance is
#: zero, and where it switches a score off the multiplier is zero.
RECEIVING = frozenset((Role.CONTENT, Role.POSITION, Role.SEGMENT, Role.PARAMETER, Role.MIXED))
#: Sets of rules for the softmax of attention. That of a classifier's output is not one: stopped
#: there, nothing would be left to explain.
_OF_ATTENTION = frozenset(("stopped", "tempered"))
_ACTIVE = frozenset((Role.CONTENT, Role.POSITION, Role.MIXED))


@dataclass(frozen=True)
class Step:
    """One node to visit.

    Attributes:
        node: The node.
        entry: Its rule; ``None`` for the lookup of an explained input, where the walk ends.
        axes_of: Content value whose axes the node's first output has.
    """

    node: ir.Node
    entry: RuleEntry | None
    axes_of: ir.Value


@dataclass(frozen=True)
class Plan:
    """Everything a walk needs that does not depend on numbers.

    Attributes:
        analysis: The annotated graph.
        method: The method.
        output: The explained output.
        steps: Nodes in reverse topological order.
        scaling: Operands that scale like constants under this method, and receive nothing.
        alibi: ALiBi-like biases, measured from the query's own position.
        scores_of: Softmax operand of a product → its scores before the softmax.
        biases: Linear layer → bias that the ``Add`` directly after it adds.
        kernels: Nodes whose results the forward pass takes from an integer kernel.
        real_masks: Masks that are added and hold any numbers of a real input. Their relevance goes
            to the ledger; that of other masks is zero.
        self_gated: Products of two functions of one value, if both are content under this method.
        start: Id of the token from whose embedding content is measured; ``None`` for zero.
    """

    analysis: Analysis
    method: Method
    output: ir.Value
    steps: tuple[Step, ...]
    scaling: frozenset[Operand]
    alibi: frozenset[Operand] = frozenset()
    scores_of: Mapping[Operand, ir.Value] = field(default_factory=dict)
    biases: Mapping[ir.Node, ir.Value] = field(default_factory=dict)
    kernels: frozenset[ir.Node] = frozenset()
    real_masks: frozenset[Operand] = frozenset()
    self_gated: frozenset[ir.Node] = frozenset()
    start: int | None = None

    @cached_property
    def seen_scores(self) -> frozenset[ir.Value]:
        """Scores that the consumers of their softmax see."""
        return frozenset(self.scores_of.values())

    @cached_property
    def next_to_attention(self) -> frozenset[ir.Node]:
        """Linear layers that make values of attention or read its result."""
        return attention_layers(self.analysis)

    def first_share(self, node: ir.Node) -> float:
        """Share of the first of two activations in their product.

        The parameters ``scores``, ``gate`` and ``rotation`` of the method are those of attention
        probabilities, of activated branches and of positions that multiply element by element.
        """
        numbers, analysis = self.method.numbers, self.analysis
        operands = (node, 0), (node, 1)
        kinds = {
            "scores": [o in analysis.probabilities for o in operands],
            "gate": [is_gate(analysis, o) for o in operands],
            "rotation": [_is_position(analysis, o) for o in operands],
        }
        if node.op_type != "Mul" and any(kinds["rotation"]):
            return 0.5  # the walk counts on it: such a position need not have the axes of tokens
        for name, (first, second) in kinds.items():
            if first != second:
                own = numbers.get(name, 0.5)
                return own if first else 1.0 - own
        return 0.5

    @cached_property
    def fed(self) -> set[ir.Value]:
        """Values that depend on an input of the graph, if only on its shape."""
        return fed_values(self.analysis.model.graph)

    def view(self, step: Step, values: Callable[[ir.Value], T]) -> View[T]:
        """The node of a step as rules see it."""
        return View(self, step.node, values)


class View(Generic[T]):
    """A node with its forward values: :class:`palrp_onnx.rules.Node`."""

    def __init__(self, plan: Plan, node: ir.Node, values: Callable[[ir.Value], T]) -> None:
        self._plan = plan
        self._node = node
        self._values = values
        self.op_type = node.op_type
        self.opset = plan.analysis.model.graph_opset
        self.arity = len(node.inputs)

    def input(self, index: int) -> T:
        """Forward value of an input."""
        return self._values(self._operand(index))

    def output(self, index: int = 0) -> T:
        """Forward value of an output."""
        return self._result(self._node.outputs[index])

    def guarded_output(self) -> T:
        """The first output, with 0 in place of NaN where the graph itself replaces NaN by 0."""
        return self._result(guard_of(self._node.outputs[0]))

    def only_guards(self) -> bool:
        """Whether a ``Where`` only replaces NaN by 0."""
        source = self._node.inputs[-1]
        return source is not None and guard_of(source) is self._node.outputs[0]

    def _result(self, value: ir.Value) -> T:
        return self._values(value)

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self._node.inputs) and self._node.inputs[index] is not None

    def rank(self, index: int) -> int:
        """Number of axes of an input."""
        return len(self._plan.analysis.shapes[self._operand(index)])

    def active(self, index: int) -> bool:
        """Whether an operand takes a share of a product."""
        operand = (self._node, index)
        fact = self._plan.analysis.operands.get(operand)
        return fact is not None and fact.role in _ACTIVE and operand not in self._plan.scaling

    def value(self, value: ir.Value) -> T:
        """Forward value of a result."""
        return self._values(value)

    def result_rank(self, value: ir.Value) -> int:
        """Number of axes of a result."""
        return len(self._plan.analysis.shapes[value])

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of a stored input."""
        return self._plan.analysis.shapes[self._operand(index)]

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute, or its default."""
        attribute = self._node.attributes.get(name)
        return default if attribute is None else attribute.value

    def integers(self, index: int) -> tuple[int, ...]:
        """The entries of a constant integer input."""
        return tuple(int(v) for v in self._constant(index).ravel())

    def reals(self, index: int) -> tuple[float, ...]:
        """The entries of a constant real input; empty where it has none."""
        return tuple(float(v) for v in self._constant(index).ravel())

    def number(self, index: int) -> float:
        """The one entry of a constant real input."""
        array = self._constant(index)
        if array.size != 1:
            raise NotImplementedError(f"input {index} is not a single number")
        return float(array.ravel()[0])

    def stored(self, index: int) -> float | None:
        """The one entry of a real input that is an initializer; ``None`` where it is computed."""
        tensor = self._operand(index).const_value
        return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None

    def scores(self, index: int) -> T | None:
        """Pre-softmax scores of this operand if it is a softmax output, else ``None``."""
        found = self._plan.scores_of.get((self._node, index))
        return None if found is None else self._values(found)

    def consumers_see_scores(self) -> bool:
        """Whether every consumer of this softmax is a product that can see its scores."""
        return self._node.inputs[0] in self._plan.seen_scores

    def is_weight(self, index: int) -> bool:
        """Whether the operand is a parameter."""
        fact = self._plan.analysis.operands.get((self._node, index))
        return fact is not None and fact.role is Role.PARAMETER

    def bias(self) -> T | None:
        """Bias that the ``Add`` directly after this node adds, if there is one."""
        found = self._plan.biases.get(self._node)
        return None if found is None else self._values(found)

    def first_share(self) -> float:
        """Share of the first of two activations in their product, ½ unless the method says so."""
        return self._plan.first_share(self._node)

    def next_to_attention(self) -> bool:
        """Whether this layer makes values of attention or reads its result."""
        return self._node in self._plan.next_to_attention

    def self_gated(self) -> bool:
        """Whether this product is an activation whose factors are functions of one value."""
        return self._node in self._plan.self_gated

    def batch_axis(self) -> int:
        """The axis of the first output that runs over samples alone, counted from the right."""
        flags = self._plan.analysis.axes[self._node.outputs[0]]
        axis = sample_axis(flags)
        if axis is None:
            raise NotImplementedError("samples share their axis with something else")
        return axis

    def parameter(self, name: str) -> float:
        """A parameter of the method."""
        return self._plan.method.number(name)

    def _operand(self, index: int) -> ir.Value:
        value = self._node.inputs[index]
        assert value is not None
        return value

    def _constant(self, index: int) -> np.ndarray[Any, Any]:
        value = self._operand(index)
        if value.const_value is not None:
            return value.const_value.numpy()
        known = self._plan.analysis.trial.get(value.name or "")
        if known is None and value not in self._plan.fed:
            known = self._plan.analysis.indices.get(value.name or "")
        if known is None or value in self._plan.analysis.content or from_entries(value):
            raise NotImplementedError(f"input {index} is not constant")
        return known


def guard_of(value: ir.Value) -> ir.Value:
    """``Where(IsNaN(x), 0, x)`` in the graph, or ``x`` itself."""
    guards = (node for node, index in value.uses() if node.op_type == "Where" and index == 2)
    for guard in guards:
        test = guard.inputs[0].producer() if guard.inputs[0] is not None else None
        if test is not None and test.op_type == "IsNaN" and test.inputs[0] is value:
            return guard.outputs[0]
    return value


def make_plan(
    analysis: Analysis,
    output: ir.Value,
    method: Method,
    alibi: frozenset[Operand] = frozenset(),
) -> Plan:
    """Find the nodes to visit and their rules.

    Args:
        analysis: The annotated graph.
        output: The explained output.
        method: The method.
        alibi: See :class:`Plan`.

    Raises:
        TargetError: The output does not depend on the explained input.
        UnsupportedError: A node on the way has no rule; all such nodes are named.
    """
    if output not in analysis.content:
        raise TargetError(
            "The output does not depend on the explained input", place=f"output {output.name}"
        )
    opened = opened_operands(analysis, method)
    if opened:
        content = dict.fromkeys(opened, Fact(Role.CONTENT, "depends on the explained input"))
        analysis = replace(analysis, operands={**analysis.operands, **content})
    scaling = scaling_operands(analysis, method)
    visited = visited_nodes(analysis, output, scaling)
    ending = ending_of(output)
    by_default = attention_layers(analysis) if method.spared else frozenset()
    steps, refused = [], []
    for node in reversed(list(analysis.model.graph)):
        if node not in visited:
            continue
        if node in analysis.inputs.lookups:
            steps.append(Step(node, None, node.outputs[0]))
            continue
        sets = () if node in by_default else method.rules
        if ending is not None and node is ending.node:
            sets = tuple(each for each in sets if each not in _OF_ATTENTION)
        entry = find_rule(node.domain, node.op_type, analysis.model.graph_opset, sets)
        if entry is None:
            refused.append(refusal(node))
            continue
        steps.append(Step(node, entry, visited[node]))
    if refused:
        raise UnsupportedError(
            f"No rule for {len(refused)} node(s) on the path of relevance",
            place="; ".join(refused[:10]) + ("; …" if len(refused) > 10 else ""),
            hint="`palrp-onnx inspect` lists every operation and its rule.",
        )
    return Plan(
        analysis=analysis,
        method=method,
        output=output,
        steps=tuple(steps),
        scaling=scaling,
        alibi=alibi,
        scores_of=find_scores(analysis),
        biases=added_biases(analysis),
        kernels=kernel_nodes(analysis.model),
        real_masks=_real_masks(analysis),
        self_gated=frozenset(n for n, _ in opened if n.outputs[0] in analysis.activations),
        start=_start(analysis, method),
    )


def _start(analysis: Analysis, method: Method) -> int | None:
    """The parameter ``baseline`` of the method, if it is an id.

    Raises:
        UsageError: It is no whole number, or a table of embeddings has no such row.
        UnsupportedError: The explained input has no ids, or its embeddings are not rows of a table.
    """
    number = method.numbers.get("baseline", -1.0)
    if number == -1.0:
        return None
    place, hint = f"method {method.text}", "Leave baseline out: embeddings are measured from zero."
    others = [describe(n) for n in analysis.inputs.lookups if n.op_type != "Gather"]
    if others or set(analysis.inputs.lookups.values()) != set(analysis.inputs.explained()):
        problem = f"not a lookup in a table: {', '.join(others)}" if others else "no ids of tokens"
        raise UnsupportedError(
            f"A baseline token is for embeddings of tokens ({problem})", place=place, hint=hint
        )
    rows = min(map(table_rows, analysis.inputs.lookups))
    if number != int(number) or not 0.0 <= number < rows:
        raise UsageError(
            f"baseline = {number:g} is no token of the model", place=place, hint=f"0 … {rows - 1}."
        )
    return int(number)


def _real_masks(analysis: Analysis) -> frozenset[Operand]:
    """Terms of sums that are masks, made of real inputs by real numbers."""
    graph, named = analysis.model.graph, analysis.inputs.named(Role.MASK)
    made = {v for v in graph.inputs if v.name in named and is_float(v)}
    for node in graph if made else ():
        if any(v in made for v in node.inputs):
            made.update(v for v in node.outputs if is_float(v) and v not in analysis.content)
    return frozenset(
        (node, index)
        for (node, index), fact in analysis.operands.items()
        if fact.role is Role.MASK and has(node, Trait.SUM) and node.inputs[index] in made
    )


def describe(node: ir.Node) -> str:
    """``Domain.Operation 'name'``."""
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{kind} {node.name!r}"


def refusal(node: ir.Node) -> str:
    """A node without a rule, and why it has none."""
    why = node.meta.get(REFUSED) or reason(node.domain, node.op_type)
    return f"{describe(node)} ({why})" if why else describe(node)


def opened_operands(analysis: Analysis, method: Method) -> frozenset[Operand]:
    """Constant factors that are content under the method: gates, statistics and normalisers.

    With derivatives of functions alone they are the factors of self-gated activations.
    """
    statistics = (o for o, fact in analysis.operands.items() if fact.role is Role.STATISTIC)
    found = frozenset(o for o in statistics if o[0].inputs[o[1]] in analysis.content)
    if method.every_path:
        return found
    if not method.own_slopes:
        return frozenset()
    return frozenset(o for o in found if o[0].outputs[0] in analysis.activations)


def scaling_operands(analysis: Analysis, method: Method) -> frozenset[Operand]:
    """Operands of products that the method treats as constant factors."""
    found: set[Operand] = set()
    if "attention" not in method.shares:
        found |= analysis.probabilities
    for operand, fact in analysis.operands.items():
        if "positions" not in method.shares and fact.role is Role.POSITION:
            found.add(operand)
        if "gates" not in method.shares and is_gate(analysis, operand):
            found.add(operand)
    return frozenset(found)


def _is_position(analysis: Analysis, operand: Operand) -> bool:
    fact = analysis.operands.get(operand)
    return fact is not None and fact.role is Role.POSITION


def is_gate(analysis: Analysis, operand: Operand) -> bool:
    """Whether an operand is the activated branch of a gated unit, next to content."""
    node, index = operand
    if node.op_type != "Mul" or node.inputs[index] not in analysis.activations:
        return False
    other = analysis.operands.get((node, 1 - index))
    return other is not None and other.role is Role.CONTENT


def role_of(analysis: Analysis, operand: Operand, scaling: frozenset[Operand]) -> Role | None:
    """Role of an operand under a method.

    Content that counts as a position is content again where positions take no share.
    """
    fact = analysis.operands.get(operand)
    if fact is None:
        return None
    node, index = operand
    if fact.role is Role.POSITION and operand in scaling and node.inputs[index] in analysis.content:
        return Role.CONTENT
    return fact.role


_PRODUCTS = Trait.SCALE | Trait.PRODUCT | Trait.LAYER


def visited_nodes(
    analysis: Analysis, output: ir.Value, scaling: frozenset[Operand]
) -> dict[ir.Node, ir.Value]:
    """Nodes that relevance can reach, each with the content value whose axes its output has."""
    found: dict[ir.Node, ir.Value] = {}
    queue = [(output, output)]
    while queue:
        value, axes_of = queue.pop()
        node = value.producer()
        if node is None or node in found:
            continue
        found[node] = axes_of
        if node in analysis.inputs.lookups:
            continue
        for index, operand in enumerate(node.inputs):
            role = role_of(analysis, (node, index), scaling)
            if operand is None or role is None:
                continue
            if has(node, _PRODUCTS) and (node, index) in scaling:
                continue
            if role is Role.CONTENT:
                queue.append((operand, operand))
            elif role is Role.MIXED:
                queue.append((operand, axes_of))
    return found


def needed_values(plan: Plan, walk: Callable[..., object]) -> list[ir.Value]:
    """Forward values that the walk reads, found by a walk in a language that computes nothing."""
    seen: dict[ir.Value, None] = {}

    def values(value: ir.Value) -> object:
        seen[value] = None
        return object()

    walk(_Recorder(), plan, values, object())
    return list(seen)


def entries_read(plan: Plan, walk: Callable[..., object]) -> set[ir.Value]:
    """Forward values whose entries the walk reads, not their shapes alone."""
    known: dict[ir.Value, object] = {}
    recorder = _Reader()
    walk(recorder, plan, lambda v: known.setdefault(v, object()), object(), by_products=True)
    return {value for value, each in known.items() if id(each) in recorder.read}


class _Recorder:
    """A language in which every operation returns a new object."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *args, **kwargs: object()

    def split_like(self, a: object, likes: list[object], axis: int) -> tuple[object, ...]:
        return tuple(object() for _ in likes)

    def chunks(self, a: object, count: int, axis: int) -> tuple[object, ...]:
        return tuple(object() for _ in range(count))

    def scan(
        self,
        step: Callable[..., object],
        states: Sequence[object],
        along: Sequence[object],
        *,
        reverse: bool,
    ) -> object:
        return step(self, states, along)


#: Parameters of operations of which the shape alone is read.
_SHAPES = ("like", "likes", "reduced")


class _Reader(_Recorder):
    """The same, which notes the operands whose entries are read.

    Attributes:
        read: These operands, by identity.
    """

    def __init__(self) -> None:
        self.read: dict[int, object] = {}

    def __getattr__(self, name: str) -> Callable[..., object]:
        names = list(inspect.signature(getattr(Language, name)).parameters)[1:]

        def operation(*args: object, **kwargs: object) -> object:
            for parameter, value in (*zip(names, args, strict=False), *kwargs.items()):
                if parameter not in _SHAPES:
                    several = value if isinstance(value, list | tuple) else [value]
                    self.read.update((id(each), each) for each in several)
            return object()

        return operation

    def scan(
        self,
        step: Callable[..., object],
        states: Sequence[object],
        along: Sequence[object],
        *,
        reverse: bool,
    ) -> object:
        self.read.update((id(each), each) for each in (*states, *along))
        return super().scan(step, states, along, reverse=reverse)
