"""The annotated graph: what every value is to the explanation, and why.

Roles come from data flow and from the values of one trial run, never from names. A value that does
not depend on content is judged where it meets content: along the axes that run over tokens it
either varies (position, token type or mask, told apart by what it depends on and by its values)
or it is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.errors import InputError, RoleError, UsageError
from palrp_onnx.graph.axes import BATCH, TOKEN, Axes, Shape, axes_of
from palrp_onnx.graph.content import (
    attention_depth,
    content_values,
    dependencies,
    fed_values,
    probability_operands,
)
from palrp_onnx.graph.convolutions import attended, convolution_terms
from palrp_onnx.graph.gates import Scaling, activation_values, find_scaling
from palrp_onnx.graph.inputs import InputRoles, input_roles, is_float
from palrp_onnx.graph.model import Model
from palrp_onnx.graph.probe import probe_feeds
from palrp_onnx.graph.roles import SAID, Fact, Overrides, Role
from palrp_onnx.graph.sources import PRODUCTS, factor_axes, picked_tables
from palrp_onnx.graph.terms import BROADCASTING, SUMS, TERM, move_terms
from palrp_onnx.graph.weights import computed_weights

Array = NDArray[Any]
Feeds = Mapping[str, Array]
#: Runs the graph: (feeds, names of the values wanted) → values.
Runner = Callable[[Feeds, Iterable[str]], Mapping[str, Array]]
Operand = tuple[ir.Node, int]

#: Below this an entry switches a score off rather than shifting it.
MASKED = -50.0


@dataclass(frozen=True)
class Analysis:
    """The graph of ``model`` with its annotations.

    Attributes:
        said: Roles that were given rather than found.
        inputs: Roles of the graph inputs, and the content lookups.
        content: Values that depend on the explained inputs, in topological order.
        operands: Role of every operand (node, index) that meets content.
        meets: For every operand the content value whose axes it is aligned with.
        axes: Batch and token axes of every content value.
        depth: Number of attention layers before every content value.
        probabilities: Operands of matrix products that hold attention probabilities.
        activations: Outputs of activation functions.
        trial: Values of the trial run that are not content: what roles were judged by.
        indices: Values of the trial run that are not real.
        shapes: Shapes of the trial run.
    """

    model: Model
    said: Overrides
    inputs: InputRoles
    content: Mapping[ir.Value, None]
    operands: Mapping[Operand, Fact]
    meets: Mapping[Operand, ir.Value]
    axes: Mapping[ir.Value, Axes]
    depth: Mapping[ir.Value, int]
    probabilities: set[Operand]
    activations: set[ir.Value]
    trial: Mapping[str, Array] = field(repr=False)
    indices: Mapping[str, Array] = field(repr=False)
    shapes: Mapping[ir.Value, Shape] = field(repr=False)

    def caught_axes(self, name: str) -> Axes:
        """Axes of what is caught for an explained input: its own, or those of looked-up rows."""
        source = next(v for v in self.model.graph.inputs if v.name == name)
        return self.axes.get(source, (BATCH, TOKEN, 0))


def analyse(model: Model, feeds: Feeds, run: Runner, said: Overrides | None = None) -> Analysis:
    """Annotate the graph of ``model``; ``feeds`` is an example of what it will be given.

    Args:
        model: The model. A sum that several layers share may be copied for each of them, and one
            that is moved before it meets content becomes a sum of moved terms.
        feeds: An example.
        run: Runs the graph.
        said: Roles of inputs, and of values without content, that a person has given.

    Raises:
        RoleError: No input can be explained, or the trial run fails.
        UsageError: A value with a given role is not there or cannot have it.
    """
    analysis, lost = _annotate(model, feeds, run, said or {})
    while move_terms(analysis):
        analysis, lost = _annotate(model, feeds, run, said or {})
    if lost:
        raise UsageError(
            "A role was given to a value that is no input and never meets activations",
            place=f"value {lost[0]!r}",
            hint="`palrp-onnx inspect MODEL --why NAME` tells what a value is.",
        )
    return analysis


def _annotate(
    model: Model, feeds: Feeds, run: Runner, said: Overrides
) -> tuple[Analysis, list[str]]:
    """The analysis, and those names in ``said`` that nothing was found for."""
    graph = model.graph
    inputs = input_roles(graph, feeds, said)
    content = content_values(graph, inputs)
    indexing, weights = _indexing(graph, content), computed_weights(graph)
    names = [v.name for v in _values(graph) if v.name and is_float(v) and v not in weights]
    values = _trial(model, inputs, feeds, run, [*names, *indexing])
    trial = {name: array for name, array in values.items() if name not in indexing}
    shapes: dict[ir.Value, Shape] = {
        v: tuple(v.const_value.shape.numpy())
        for v in graph.initializers.values()
        if v.const_value is not None
    }
    shapes.update(weights)
    shapes.update((v, values[v.name].shape) for v in _values(graph) if v.name and v.name in values)
    missing = [v.name for v in content if v not in shapes]
    if missing:
        raise RoleError("The trial run did not yield a value", place=str(missing[0]))
    indices = {name: values[name] for name in indexing}
    axes = axes_of(graph, inputs, content, shapes, indices)
    scaling = find_scaling(graph, content)
    depth = attention_depth(graph, content)
    judge = _Judge(graph, inputs, content, axes, trial, scaling, shapes, said)
    judge.decide()
    model.changes.add("sum copied", judge.copies)
    judge.decide_branches(convolution_terms(graph, content, axes, shapes), depth)
    analysis = Analysis(
        model=model,
        said=said,
        inputs=inputs,
        content=content,
        operands=judge.operands,
        meets=judge.meets,
        axes=axes,
        depth=depth,
        probabilities=probability_operands(graph, content),
        activations=activation_values(graph, content, scaling),
        trial=trial,
        indices=indices,
        shapes=shapes,
    )
    return analysis, judge.lost()


def _trial(
    model: Model, inputs: InputRoles, feeds: Feeds, run: Runner, names: Iterable[str]
) -> Mapping[str, Array]:
    """Values of a short run; of one sample where the graph takes no two."""
    try:
        return run(probe_feeds(model, inputs, feeds), names)
    except InputError:
        return run(probe_feeds(model, inputs, feeds, samples=1), names)


def _indexing(graph: ir.Graph, content: Mapping[ir.Value, None]) -> dict[str, None]:
    """Names of computed indices and conditions that select among content."""
    return {
        v.name: None
        for node in graph
        if any(output in content for output in node.outputs)
        for v in node.inputs
        if v is not None and v.name and v.producer() is not None and not is_float(v)
    }


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


class _Judge:
    """Decides the role of every operand that meets content."""

    def __init__(
        self,
        graph: ir.Graph,
        inputs: InputRoles,
        content: Mapping[ir.Value, None],
        axes: Mapping[ir.Value, Axes],
        trial: dict[str, Array],
        scaling: Scaling,
        shapes: dict[ir.Value, Shape],
        said: Overrides,
    ) -> None:
        self._said = said
        self._followed = {name for name in said if name in inputs.facts}
        self._shapes = shapes
        self._fed = fed_values(graph)
        self._picked = picked_tables(graph, content, shapes)
        self._graph = graph
        self._inputs = inputs
        self._content = content
        self._axes = axes
        self._trial = trial
        self._scaling = scaling.facts()
        self._segments = dependencies(graph, inputs.named(Role.SEGMENT))
        self.copies = 0
        self.operands: dict[Operand, Fact] = {}
        self.meets: dict[Operand, ir.Value] = {}

    def decide(self) -> None:
        for node in list(self._graph):
            meeting = next((v for v in node.outputs if v in self._content), None)
            if meeting is None:
                continue
            for index, value in enumerate(node.inputs):
                if value is not None:
                    fact = self._operand(node, index, value, self._axes[meeting])
                    self._record(node, index, value, fact, meeting)

    def decide_branches(
        self, branches: Mapping[Operand, str], depth: Mapping[ir.Value, int]
    ) -> None:
        """Convolutions added to what they were taken of, as positions where they stand for them.

        That is before the first attention, where no operand carries positions and there is but
        one of them: several in a row are layers.
        """
        none = not any(fact.role is Role.POSITION for fact in self.operands.values())
        first = [
            (node, index)
            for node, index in branches
            if not depth[node.outputs[0]] and attended(node, depth)
        ]
        for (node, index), reason in branches.items():
            value = node.inputs[index]
            assert value is not None
            name, found = value.name or "", none and first == [(node, index)]
            if name in self._said:
                found, reason = self._said[name] is Role.POSITION, SAID
                if self._said[name] not in (Role.POSITION, Role.CONTENT):
                    continue
                self._followed.add(name)
            if found:
                self.operands[node, index] = Fact(Role.POSITION, reason)

    def _record(
        self, node: ir.Node, index: int, value: ir.Value, fact: Fact, meeting: ir.Value
    ) -> None:
        if fact.role is Role.MIXED and len(value.uses()) > 1:
            value = self._own_copy(node, index, value)
        self.operands[node, index] = fact
        self.meets[node, index] = meeting
        producer = value.producer()
        if fact.role is not Role.MIXED or producer is None:
            return
        for position, term in enumerate(producer.inputs):
            if term is not None:
                inner = self._term(producer, term, self._axes[meeting])
                self._record(producer, position, term, inner, meeting)

    def _own_copy(self, node: ir.Node, index: int, value: ir.Value) -> ir.Value:
        """A sum of mask and position that several layers share, made once more for this one.

        So every layer has a sink of its own.
        """
        producer = value.producer()
        assert producer is not None
        self.copies += 1
        copy = ir.node(
            producer.op_type,
            producer.inputs,
            domain=producer.domain,
            name=f"{producer.name}/own/{self.copies}",
        )
        copy.attributes.update(producer.attributes)
        own = copy.outputs[0]
        own.name, own.type, own.shape = f"{value.name}/own/{self.copies}", value.type, value.shape
        self._graph.insert_before(node, copy)
        node.replace_input_with(index, own)
        if value.name in self._trial:
            self._trial[own.name] = self._trial[value.name]
        self._shapes[own] = self._shapes[value]
        if value in self._segments:
            self._segments[own] = self._segments[value]
        return own

    def _term(self, node: ir.Node, value: ir.Value, flags: Axes) -> Fact:
        if not is_float(value):
            return Fact(Role.INDEX, "not a real operand")
        return self._free(node, value, flags)

    def _operand(self, node: ir.Node, index: int, value: ir.Value, flags: Axes) -> Fact:
        if (node, index) in self._scaling:
            return self._scaling[node, index]
        if value in self._content:
            if not_a_number(value, self._trial):
                return Fact(Role.INDEX, "what is not a number carries nothing")
            return Fact(Role.CONTENT, "depends on the explained input")
        if not is_float(value) or node in self._inputs.lookups:
            return Fact(Role.INDEX, "not a real operand")
        return self._free(node, value, flags)

    def _free(self, node: ir.Node, value: ir.Value, flags: Axes) -> Fact:
        """Role of a value without content where it meets content with axes ``flags``."""
        array = self._value(value)
        for name in (value.name, value.meta.get(TERM)):
            if name in self._said:
                return self._follow(str(name), array, flags)
        if node.op_type in PRODUCTS and array is not None:
            return self._factor(node, value, array, flags)
        if not _aligned(node, flags):
            return Fact(Role.PARAMETER, f"a parameter of {node.op_type}")
        if array is None:
            return Fact(Role.PARAMETER, "constant")
        if is_mask(-array if _subtracted(node, value) else array):
            return Fact(Role.MASK, "zero or very negative: switches scores off")
        token_axes = varying_axes(array, flags)
        segment = self._segments.get(value)
        if not token_axes:
            if segment:
                return Fact(Role.SEGMENT, f"looked up by {', '.join(sorted(segment))}")
            return Fact(Role.PARAMETER, "the same for every token")
        if self._parts(value, flags):
            return Fact(Role.MIXED, "a sum of operands with different roles")
        if segment:
            return Fact(Role.SEGMENT, f"varies with {', '.join(sorted(segment))}")
        if np.isin(array, (0.0, 1.0)).all():
            return Fact(Role.MASK, "zeros and ones that vary along the sequence")
        return Fact(
            Role.POSITION,
            f"does not depend on content, varies along the token axis "
            f"{', '.join(str(a) for a in token_axes)}",
        )

    def _follow(self, name: str, array: Array | None, flags: Axes) -> Fact:
        role = self._said[name]
        self._followed.add(name)
        if role is Role.CONTENT:
            raise UsageError("Only inputs of the graph can be content", place=f"value {name!r}")
        if role is Role.POSITION and (array is None or not varying_axes(array, flags)):
            raise UsageError(
                "It is the same for every token, so it is no position", place=f"value {name!r}"
            )
        return Fact(role, SAID)

    def lost(self) -> list[str]:
        """Names of values that a role was given to, but that never meet content."""
        return [name for name in self._said if name not in self._followed]

    def _factor(self, node: ir.Node, value: ir.Value, array: Array, flags: Axes) -> Fact:
        """Role of a factor of a matrix product whose other factor is content.

        Weights depend on nothing. A table that was made for this length does, and one that was
        folded into the file runs along the tokens of the product.
        """
        index = list(node.inputs).index(value)
        sources = factor_axes(node, index, self._shapes)
        along = [a for a, own in sources.items() if own is not None and flags[a] & TOKEN]
        if (node, index) in self._picked:
            reason = "a factor whose entries are picked by relative position"
        elif along:
            reason = f"a factor that runs along the token axis {along[0]}"
        elif value in self._fed:
            reason = "a factor that is made from the length of the input"
        else:
            return Fact(Role.PARAMETER, f"a parameter of {node.op_type}")
        if value in self._segments or _selects(array):
            return Fact(Role.PARAMETER, "selects or averages tokens")
        return Fact(Role.POSITION, reason)

    def _value(self, value: ir.Value) -> Array | None:
        if value.name and value.name in self._trial:
            return self._trial[value.name]
        return value.const_value.numpy() if value.const_value is not None else None

    def _parts(self, value: ir.Value, flags: Axes) -> bool:
        """Whether ``value`` is a sum whose terms play different roles."""
        node = value.producer()
        if node is None or node.op_type not in SUMS:
            return False
        terms = [v for v in node.inputs if v is not None and is_float(v)]
        roles = {self._free(node, v, flags).role for v in terms}
        return Role.MIXED in roles or len(roles) > 1


def _subtracted(node: ir.Node, value: ir.Value) -> bool:
    return node.op_type == "Sub" and node.inputs[1] is value


def _aligned(node: ir.Node, flags: Axes) -> bool:
    """Whether a node's operands are aligned with its result by right-aligned broadcasting."""
    if node.op_type == "Concat":
        return not flags[node.attributes.get_int("axis", 0) % len(flags)] & TOKEN
    return node.op_type in BROADCASTING


def not_a_number(value: ir.Value, trial: Mapping[str, Array]) -> bool:
    """Whether a value is nothing but NaN, as where a quantiser made scales infinite."""
    array = trial.get(value.name or "")
    return array is not None and array.size > 0 and bool(np.isnan(array).all())


def _selects(array: Array) -> bool:
    """Whether a matrix holds zeros and one other number."""
    return len(np.unique(array)) <= 2


def is_mask(array: Array) -> bool:
    """Whether an additive operand only switches scores off: zeros and very negative entries."""
    values = np.unique(array[~np.isnan(array)])
    low = values[values < MASKED]
    return bool(low.size and np.isin(values[values >= MASKED], (0.0,)).all())


def varying_axes(array: Array, flags: Axes) -> tuple[int, ...]:
    """Token axes (negative, from the right) along which the operand is not constant."""
    found = []
    for axis in range(-min(array.ndim, len(flags)), 0):
        if flags[axis] & TOKEN and array.shape[axis] > 1:
            first = np.take(array, [0], axis=axis)
            if not np.array_equal(np.broadcast_to(first, array.shape), array, equal_nan=True):
                found.append(axis)
    return tuple(found)
