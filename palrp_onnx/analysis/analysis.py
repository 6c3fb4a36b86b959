"""The annotated graph: what every value is to the explanation, and why.

Roles come from data flow and from the values of one trial run, never from names. A value that does
not depend on content is judged where it meets content: along the axes that run over tokens it
either varies (position, token type or mask, told apart by what it depends on and by its values)
or it is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.axes import BATCH, TOKEN, Axes, Layouts, axes_of, sources
from palrp_onnx.analysis.content import (
    attention_depth,
    chosen_values,
    content_values,
    dependencies,
    fed_values,
    probability_operands,
)
from palrp_onnx.analysis.convolutions import attended, convolution_terms
from palrp_onnx.analysis.example import Form, Shapes, another, forms, make_feeds, none_runs
from palrp_onnx.analysis.index_uses import picked_by
from palrp_onnx.analysis.input_axes import InputAxes, input_axes
from palrp_onnx.analysis.inputs import InputRoles, input_roles
from palrp_onnx.analysis.masking import accumulated, ends_in_choice
from palrp_onnx.analysis.roles import SAID, Fact, Overrides, Role
from palrp_onnx.analysis.self_gates import Scaling, activation_values, find_scaling
from palrp_onnx.analysis.separability import each_alone, mixed_values
from palrp_onnx.analysis.sources import factor_axes, picked_tables
from palrp_onnx.analysis.stored_weights import computed_weights
from palrp_onnx.errors import InputError, RoleError, UsageError
from palrp_onnx.model.open import Model
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import is_float
from palrp_onnx.rewrite.mixed_sums import TERM, is_aligned, is_sum, move_terms
from palrp_onnx.types import Array, Feeds, Shape

#: One run of the graph: feeds → values by name, what is fed among them.
Values = Callable[[Feeds], Mapping[str, Array]]
#: Names of the values wanted → runs of the graph.
Runner = Callable[[Iterable[str]], Values]
Operand = tuple[ir.Node, int]

#: What to say where the trial run was of arrays that a caller gave.
GIVEN = (
    "roles were told from the arrays that were given: the graph runs on none that could be made up"
)
#: Samples are run alone, to see whether others change them, where all values take so many bytes.
_SMALL = 1 << 26
#: Below this an entry switches a score off rather than shifting it.
MASKED = -50.0
#: Why an operand that differs from token to token is no position.
_KEPT = "the same for every token that is not masked"


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
        layouts: What these axes run along.
        depth: Number of attention layers before every content value.
        probabilities: Operands of matrix products that hold attention probabilities.
        activations: Outputs of activation functions.
        trial: Values of the trial run that are not content: what roles were judged by.
        indices: Values of the trial run that are not real.
        shapes: Shapes of the trial run.
        given: Whether the trial run was of arrays that a caller gave, as none of ours ran.
    """

    model: Model
    said: Overrides
    inputs: InputRoles
    content: Mapping[ir.Value, None]
    operands: Mapping[Operand, Fact]
    meets: Mapping[Operand, ir.Value]
    axes: Mapping[ir.Value, Axes]
    layouts: Layouts = field(repr=False)
    depth: Mapping[ir.Value, int]
    probabilities: set[Operand]
    activations: set[ir.Value]
    trial: Mapping[str, Array] = field(repr=False)
    indices: Mapping[str, Array] = field(repr=False)
    shapes: Mapping[ir.Value, Shape] = field(repr=False)
    given: bool = False

    def input_axes(self, name: str) -> InputAxes:
        """Axes of an explained input."""
        return input_axes(self.model.graph, self.inputs, name, self.shapes)


def analyse(
    model: Model,
    run: Runner,
    *,
    said: Overrides | None = None,
    shapes: Shapes | None = None,
    given: Feeds | None = None,
) -> Analysis:
    """Annotate the graph of ``model``.

    Args:
        model: The model. A sum that several layers share may be copied for each of them, and one
            that is moved before it meets content becomes a sum of moved terms.
        run: Runs the graph.
        said: Roles of inputs, and of values without content, that a person has given.
        shapes: Shapes that the model is known to take, where it leaves lengths open.
        given: Arrays that it is known to take: for the trial run, if nothing else runs.

    Raises:
        RoleError: No input can be explained, or no trial run succeeds.
        UsageError: A value with a given role is not there or cannot have it.
    """
    analyst = _Analyst(model, run, dict(said or {}), shapes, given)
    analysis, lost = analyst.annotate()
    check_words(analysis)
    while move_terms(analysis) or analyst.learn(analysis):
        analysis, lost = analyst.annotate()
    if lost:
        raise UsageError(
            "A role was given to a value that is no input and never meets activations",
            place=f"value {lost[0]!r}",
            hint="`palrp-onnx inspect MODEL --why NAME` tells what a value is.",
        )
    return analysis


class _Analyst:
    """Annotates one graph, again after every change."""

    def __init__(
        self,
        model: Model,
        run: Runner,
        said: dict[str, Role],
        shapes: Shapes | None,
        given: Feeds | None,
    ) -> None:
        self._model = model
        self._run = run
        self._said = said
        self._found: dict[str, Fact] = {}
        self._shapes = shapes
        self._given = given
        self._form: Form | None = None

    def annotate(self) -> tuple[Analysis, list[str]]:
        """The analysis, and those names with a given role that nothing was found for."""
        inputs = input_roles(self._model.graph, self._said)
        inputs = replace(inputs, facts={**inputs.facts, **self._found})
        model, graph = self._model, self._model.graph
        content = content_values(graph, inputs)
        indexing, weights = _indexing(graph, content), computed_weights(graph)
        names = [v.name for v in _values(graph) if v.name and is_float(v) and v not in weights]
        values, again, alone, given = self._trial(inputs, [*names, *indexing])
        trial = {name: array for name, array in values.items() if name not in indexing}
        shapes: dict[ir.Value, Shape] = {
            v: tuple(v.const_value.shape.numpy())
            for v in graph.initializers.values()
            if v.const_value is not None
        }
        shapes.update(weights)
        shapes.update(
            (v, values[v.name].shape) for v in _values(graph) if v.name and v.name in values
        )
        missing = [v.name for v in content if v not in shapes]
        if missing:
            raise RoleError("The trial run did not yield a value", place=str(missing[0]))
        _check_places(graph, inputs, shapes)
        indices = {name: values[name] for name in indexing}
        layouts = axes_of(graph, inputs, content, shapes, indices)
        mixed = mixed_values(graph, layouts.layouts, values, alone)
        layouts = replace(layouts, mixing={**mixed, **layouts.mixing})
        axes = layouts.flags()
        kept = {v.name for v in _values(graph) if v not in content or v.is_graph_input()}
        again = {name: array for name, array in again.items() if name in kept}
        scaling = find_scaling(graph, content)
        depth = attention_depth(graph, content)
        judge = _OperandRoles(
            graph, inputs, content, axes, trial, again, scaling, shapes, self._said, layouts
        )
        judge.decide()
        model.changes.add("sum copied", judge.copies)
        judge.decide_branches(convolution_terms(graph, content, axes, shapes), depth)
        analysis = Analysis(
            model=model,
            said=self._said,
            inputs=inputs,
            content=content,
            operands=judge.operands,
            meets=judge.meets,
            axes=axes,
            layouts=layouts,
            depth=depth,
            probabilities=probability_operands(graph, content),
            activations=activation_values(graph, content, scaling),
            trial=trial,
            indices=indices,
            shapes=shapes,
            given=given,
        )
        return analysis, judge.lost()

    def learn(self, analysis: Analysis) -> bool:
        """Inputs that were taken for masks and mask nothing count places; whether there are any."""
        idle = [name for name in idle_masks(analysis) if name not in self._found]
        reason = "what is made of it meets content and switches nothing off"
        self._found.update((name, Fact(Role.POSITION, reason)) for name in idle)
        return bool(idle)

    def _trial(
        self, inputs: InputRoles, names: list[str]
    ) -> tuple[Mapping[str, Array], Mapping[str, Array], Iterator[Mapping[str, Array]], bool]:
        """Values of a run on an example of ours, of one of another character, of each sample alone.

        And whether none of ours ran, but what was given.

        Raises:
            RoleError: Nothing runs.
        """
        problem = ""
        run = self._run(names)
        known = iter([self._form]) if self._form is not None else forms(self._model, self._shapes)
        for form in known:
            try:
                feeds = make_feeds(self._model, inputs, form)
                values = run(feeds)
            except InputError as error:
                problem = error.hint or error.message
                continue
            self._form = form
            again = self._again(inputs, form, feeds, run)
            small = sum(array.nbytes for array in values.values()) <= _SMALL
            return values, again, self._alone(feeds, run) if small else iter(()), False
        if self._given is not None:
            return run(self._given), {}, iter(()), True
        raise none_runs(problem)

    def _alone(self, feeds: Feeds, run: Values) -> Iterator[Mapping[str, Array]]:
        """Values of every sample of an example by itself; none where that does not run."""
        for each in each_alone(self._model.inputs, feeds):
            try:
                yield run(each)
            except InputError:
                return

    def _again(
        self, inputs: InputRoles, form: Form, first: Feeds, run: Values
    ) -> Mapping[str, Array]:
        """Values of another example, of another length and without padding.

        None where that would be no other one: real inputs of one shape.
        """
        try:
            feeds = make_feeds(self._model, inputs, another(form))
            real = all(array.dtype.kind == "f" for array in feeds.values())
            if real and all(feeds[name].shape == array.shape for name, array in first.items()):
                return {}
            return run(feeds)
        except InputError:
            return {}


def _check_places(graph: ir.Graph, inputs: InputRoles, shapes: Mapping[ir.Value, Shape]) -> None:
    """Every entry of an explained input is looked up in its own place.

    Raises:
        RoleError: It is not known where.
    """
    named = {v.name: v for v in graph.inputs}
    for node, name in inputs.lookups.items():
        own, found = shapes[named[name]], shapes.get(node.outputs[0])
        if found is None:
            raise RoleError(
                "Entries of an input are looked up inside a loop or a branch: where each of them "
                "goes cannot be followed",
                place=f"input {name}, {node.op_type} {node.name!r}",
            )
        if found[: len(own)] != own:
            raise RoleError(
                f"Entries of an input of shape {list(own)} become values of shape {list(found)}: "
                "where each of them goes cannot be followed",
                place=f"input {name}, {node.op_type} {node.name!r}",
            )


def check_words(analysis: Analysis) -> None:
    """Nothing that numbers of an input pick enters content but by a lookup that is followed.

    Raises:
        RoleError: Something does: they may name words.
    """
    for value in analysis.model.graph.inputs:
        fact = analysis.inputs.facts.get(value.name or "")
        unknown = fact is not None and fact.role in (Role.MASK, Role.CONTENT)
        if fact is None or not unknown or fact.reason == SAID:
            continue
        picked = picked_by(value, analysis.content, analysis.inputs.lookups)
        for (node, index), found in analysis.operands.items():
            if node.inputs[index] in picked and _enters(analysis, node, index, found):
                raise RoleError(
                    "What its numbers pick enters content, in a way that cannot be followed: they "
                    "may name words or count places",
                    place=f"input {value.name}, {node.op_type} {node.name!r}",
                    hint=f"If they count places, say --role {value.name}=position.",
                )


def _enters(analysis: Analysis, node: ir.Node, index: int, fact: Fact) -> bool:
    """Whether an operand without content adds to content what words may be."""
    value = node.inputs[index]
    if value in analysis.content or fact.reason == SAID:
        return False
    if ends_in_choice(analysis.meets[node, index]):
        return False  # attention scores
    added = is_sum(node) or has(node, Trait.JOIN)
    return fact.role in (Role.POSITION, Role.SEGMENT) or (fact.role is Role.PARAMETER and added)


def idle_masks(analysis: Analysis) -> list[str]:
    """Integer inputs taken for masks although nothing that they change switches anything off.

    One that is summed up along the tokens is a mask: positions are made by counting what it keeps.
    """
    found = []
    for name in analysis.inputs.named(Role.MASK):
        value = next(v for v in analysis.model.graph.inputs if v.name == name)
        if name in analysis.said or is_float(value) or value.dtype is ir.DataType.BOOL:
            continue
        if len(analysis.shapes[value]) < 2:
            continue
        changed = dependencies(analysis.model.graph, [name])
        met = [
            (operand, fact)
            for (node, index), fact in analysis.operands.items()
            if (operand := node.inputs[index]) in changed and operand not in analysis.content
        ]
        off = any(
            fact.role is Role.MASK
            or fact.reason in (SAID, _KEPT)
            or (operand is not None and operand.dtype is ir.DataType.BOOL)
            for operand, fact in met
        )
        reads = any(fact.role is not Role.INDEX for _, fact in met)
        if reads and not off and not accumulated(value):
            found.append(name)
    return found


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


class _OperandRoles:
    """Decides the role of every operand that meets content."""

    def __init__(
        self,
        graph: ir.Graph,
        inputs: InputRoles,
        content: Mapping[ir.Value, None],
        axes: Mapping[ir.Value, Axes],
        trial: dict[str, Array],
        again: Mapping[str, Array],
        scaling: Scaling,
        shapes: dict[ir.Value, Shape],
        said: Overrides,
        layouts: Layouts,
    ) -> None:
        self._said = said
        self._again = again
        self._layouts = layouts
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
        self._masking = dependencies(graph, inputs.named(Role.MASK))
        self._chosen = chosen_values(graph, content)
        self._brought = dependencies(graph, inputs.explained())
        self.copies = 0
        self._ending: dict[ir.Value, bool] = {}
        self.operands: dict[Operand, Fact] = {}
        self.meets: dict[Operand, ir.Value] = {}

    def decide(self) -> None:
        for node in list(self._graph):
            meeting = next((v for v in node.outputs if v in self._content), None)
            if meeting is None:
                continue
            for index, value in enumerate(node.inputs):
                if value is not None:
                    fact = self._operand(node, index, value, meeting)
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
                inner = self._term(producer, term, meeting)
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
        for found in (self._segments, self._masking):
            if value in found:
                found[own] = found[value]
        return own

    def _term(self, node: ir.Node, value: ir.Value, meeting: ir.Value) -> Fact:
        if not is_float(value):
            return Fact(Role.INDEX, "not a real operand")
        return self._free(node, value, meeting)

    def _operand(self, node: ir.Node, index: int, value: ir.Value, meeting: ir.Value) -> Fact:
        if (node, index) in self._scaling:
            return self._scaling[node, index]
        if value in self._content:
            if not_a_number(value, self._trial):
                return Fact(Role.INDEX, "what is not a number carries nothing")
            return Fact(Role.CONTENT, "depends on the explained input")
        if not is_float(value) or node in self._inputs.lookups:
            return Fact(Role.INDEX, "not a real operand")
        return self._free(node, value, meeting)

    def _free(self, node: ir.Node, value: ir.Value, meeting: ir.Value) -> Fact:
        """Role of a value without content where it meets the content value ``meeting``."""
        flags = self._axes[meeting]
        array = self._value(value)
        for name in (value.name, value.meta.get(TERM)):
            if name in self._said:
                return self._follow(str(name), array, flags)
        if has(node, Trait.PRODUCT) and array is not None:
            return self._factor(node, value, array, flags)
        if not _aligned(node, flags):
            return Fact(Role.PARAMETER, f"a parameter of {node.op_type}")
        if array is None:
            return Fact(Role.PARAMETER, "constant")
        if self._hides(node, value, array, meeting):
            return Fact(Role.MASK, "zero or very negative: switches scores off")
        token_axes = varying_axes(array, flags)
        segment = self._segments.get(value)
        if not token_axes:
            if segment:
                return Fact(Role.SEGMENT, f"looked up by {', '.join(sorted(segment))}")
            return Fact(Role.PARAMETER, "the same for every token")
        if self._of_mask(value, flags):
            off = bool((np.abs(array) > -MASKED).any()) and self._chosen_among(meeting)
            return Fact(Role.MASK if off or has(node, Trait.SCALE) else Role.PARAMETER, _KEPT)
        if (weights := self._per_column(node, array, meeting)) is not None:
            return Fact(Role.PARAMETER, weights)
        if self._parts(value, meeting):
            return Fact(Role.MIXED, "a sum of operands with different roles")
        if segment:
            return Fact(Role.SEGMENT, f"varies with {', '.join(sorted(segment))}")
        weighs = has(node, Trait.SCALE | Trait.CHOICE) or node.op_type == "Min"
        if weighs and np.isin(array, (0.0, 1.0)).all():
            return Fact(Role.MASK, "zeros and ones that weigh tokens")
        if value in self._chosen:
            return Fact(Role.PARAMETER, "chosen by content")
        return Fact(
            Role.POSITION,
            f"does not depend on content, varies along the token axis "
            f"{', '.join(str(a) for a in token_axes)}",
        )

    def _hides(self, node: ir.Node, value: ir.Value, array: Array, meeting: ir.Value) -> bool:
        """Whether an operand only switches off what a softmax or a maximum chooses among.

        Where one of the examples has no padding it may be zero everywhere. What is very negative
        everywhere is a constant, but for the choice that a ``Where`` makes; −∞ cannot be one.
        """
        known = [array, *(a for a in [self._again.get(value.name or "")] if a is not None)]
        signed = [-a if _subtracted(node, value) else a for a in known]
        if not any(map(is_mask, signed)) or not all(is_mask(a) or not a.any() for a in signed):
            return False
        if any(np.isneginf(a).any() for a in signed):
            return True
        some = node.op_type == "Where" or any((a == 0).any() for a in signed)
        return some and self._chosen_among(meeting)

    def _of_mask(self, value: ir.Value, flags: Axes | None = None) -> bool:
        """Whether an operand only differs along tokens (anywhere, without flags) by a mask."""
        again = self._again.get(value.name or "")
        if again is None or value not in self._masking or not again.size:
            return False
        return not (np.ptp(again) > 0 if flags is None else varying_axes(again, flags))

    def _chosen_among(self, meeting: ir.Value) -> bool:
        if meeting not in self._ending:
            self._ending[meeting] = ends_in_choice(meeting)
        return self._ending[meeting]

    def _per_column(self, node: ir.Node, array: Array, meeting: ir.Value) -> str | None:
        """Why numbers that differ from token to token are the weights of columns, if they are."""
        flags = self._axes[meeting]
        if flags == (BATCH, TOKEN) and self._columns(meeting):
            return "one number for every column"
        content = [v for v in node.inputs if v in self._content and v in self._shapes]
        wide = array.ndim and array.shape[-1] > 1 and not flags[-1] & TOKEN
        narrow = all(self._shapes[v] and self._shapes[v][-1] == 1 for v in content if v is not None)
        if node.op_type == "Mul" and content and wide and narrow:
            return "a linear layer for every column"
        return None

    def _columns(self, value: ir.Value) -> bool:
        """Whether a value holds columns of real inputs [B, F], as they are or picked."""
        inputs = {v.name: v for v in self._graph.inputs}
        found = {name for name, _ in sources(self._layouts.layouts[value][1])}
        names = found or self._brought.get(value, frozenset())
        return bool(names) and all(
            is_float(inputs[name]) and len(self._shapes[inputs[name]]) == 2 for name in names
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
        elif value in self._fed and self._by_length(value, array):
            reason = "a factor that is made from the length of the input"
        else:
            return Fact(Role.PARAMETER, f"a parameter of {node.op_type}")
        if self._of_mask(value):
            return Fact(Role.PARAMETER, _KEPT)
        if value in self._chosen:
            return Fact(Role.PARAMETER, "chosen by content")
        if value in self._segments or _selects(array):
            return Fact(Role.PARAMETER, "selects or averages tokens")
        return Fact(Role.POSITION, reason)

    def _by_length(self, value: ir.Value, array: Array) -> bool:
        """Whether what is made of the shape of the input is made of its length, not of its batch.

        It is where it differs between examples of two lengths, or where there is but one length.
        """
        inputs = [v for v in self._graph.inputs if not v.is_initializer()]
        other = self._again.get(value.name or "")
        if not any(_free(v) for v in inputs):
            return False
        again = [self._again.get(v.name or "") for v in inputs]
        same = all(
            a is None or a.shape == self._shapes[v] for v, a in zip(inputs, again, strict=True)
        )
        return same or other is None or not np.array_equal(other, array)

    def _value(self, value: ir.Value) -> Array | None:
        if value.name and value.name in self._trial:
            return self._trial[value.name]
        return value.const_value.numpy() if value.const_value is not None else None

    def _parts(self, value: ir.Value, meeting: ir.Value) -> bool:
        """Whether ``value`` is a sum whose terms play different roles."""
        node = value.producer()
        if node is None or not is_sum(node):
            return False
        terms = [v for v in node.inputs if v is not None and is_float(v)]
        roles = {self._free(node, v, meeting).role for v in terms}
        return Role.MIXED in roles or len(roles) > 1


def _free(value: ir.Value) -> bool:
    """Whether an axis of an input behind its first has no fixed length."""
    return value.shape is None or any(not isinstance(dim, int) for dim in list(value.shape)[1:])


def _subtracted(node: ir.Node, value: ir.Value) -> bool:
    return node.op_type == "Sub" and node.inputs[1] is value


def _aligned(node: ir.Node, flags: Axes) -> bool:
    """Whether a node's operands are aligned with its result by right-aligned broadcasting."""
    if node.op_type == "Concat":
        return not flags[node.attributes.get_int("axis", 0) % len(flags)] & TOKEN
    return is_aligned(node)


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
