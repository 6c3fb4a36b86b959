"""Observations of a graph: its structure, and the values of trial runs.

This part of the analysis runs the graph, once. Roles are judged from observations
(:mod:`palrp_onnx.analysis.operands`) and can be judged again without another run: a pass that
changes no value that depends on content only adds the values of its own nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import onnx_ir as ir

from palrp_onnx.analysis.axes import Layouts
from palrp_onnx.analysis.batches import Batches, find_batches
from palrp_onnx.analysis.content import (
    attention_depth,
    content_values,
    probability_operands,
    routed_values,
)
from palrp_onnx.analysis.example import Form, Shapes, another, forms, make_feeds, none_runs
from palrp_onnx.analysis.input_axes import InputAxes
from palrp_onnx.analysis.inputs import InputRoles, input_roles
from palrp_onnx.analysis.layout import Axes
from palrp_onnx.analysis.roles import Fact, Overrides
from palrp_onnx.analysis.self_gates import Scaling, activation_values, find_scaling
from palrp_onnx.analysis.separability import each_alone, mixed_values
from palrp_onnx.analysis.stored_weights import computed_weights
from palrp_onnx.errors import InputError, RoleError
from palrp_onnx.model.feeding import FACTS_OPSET, from_facts, with_facts
from palrp_onnx.model.open import Model
from palrp_onnx.model.values import constant, is_float
from palrp_onnx.types import Array, Feeds, Shape

#: One run of a graph: feeds → values by name, including those that are fed.
Values = Callable[[Feeds], Mapping[str, Array]]
#: A model, and names of values → a function that runs its graph and yields these.
Runner = Callable[[Model, Iterable[str]], Values]
Operand = tuple[ir.Node, int]

#: Where all values take at most so many bytes, each sample also runs alone, to find mixing.
_SMALL = 1 << 26
#: Of an input with more entries, values that depend on content are kept only if they are small.
_LARGE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Observations of the graph of ``model``.

    Attributes:
        model: The model.
        overrides: Roles that are set by ``--role``.
        inputs: Roles of the graph inputs, and the content lookups.
        content: Values that depend on the explained inputs, in topological order.
        known: Axes of every explained input.
        axes: Batch and token axes of every content value.
        layouts: Layouts of these axes.
        depth: Number of attention layers before every content value.
        probabilities: Operands of matrix products that hold attention probabilities.
        scaling: Operands of products that scale the other factor and receive nothing.
        activations: Outputs of activation functions.
        trial: Real values of the trial run, from which roles are judged.
        again: Values without content of a trial run on another example, if there was one.
        indices: Values of the trial run that are not real, nor made from content.
        shapes: Shapes of the trial run.
        examples: Feeds of these runs, in this order.
        form: Settings of the synthetic examples; ``None`` where the caller's arrays were used.
    """

    model: Model
    overrides: Overrides
    inputs: InputRoles
    content: Mapping[ir.Value, None]
    known: Mapping[str, InputAxes]
    axes: Mapping[ir.Value, Axes]
    layouts: Layouts = field(repr=False)
    depth: Mapping[ir.Value, int]
    probabilities: set[Operand]
    scaling: Scaling
    activations: set[ir.Value]
    trial: Mapping[str, Array] = field(repr=False)
    again: Mapping[str, Array] = field(repr=False)
    indices: Mapping[str, Array] = field(repr=False)
    shapes: Mapping[ir.Value, Shape] = field(repr=False)
    examples: tuple[Feeds, ...] = field(repr=False)
    form: Form | None

    @property
    def given(self) -> bool:
        """Whether the trial run used arrays of the caller, as no synthetic example runs."""
        return self.form is None

    def entries(self, value: ir.Value) -> Array | None:
        """Entries of a value without content: in the trial run, or stored."""
        found = self.trial.get(value.name or "")
        return constant(value) if found is None else found

    def input_axes(self, name: str) -> InputAxes:
        """Axes of an explained input."""
        return self.known[name]


@dataclass(frozen=True)
class _Runs:
    """Values of trial runs: of one example, of another one, and of each sample alone.

    The later runs are made by a thread, while what the first one shows is followed.

    Attributes:
        values: Values of the first run.
        form: Settings of its example; ``None`` where it is the caller's.
        first: The example.
        other: Another one, if there is one.
        again: The run of it.
        alone: Runs of each sample of the first.
    """

    values: Mapping[str, Array]
    form: Form | None
    first: Feeds
    other: Feeds | None = None
    again: Future[Mapping[str, Array]] | None = None
    alone: tuple[Future[Mapping[str, Array]], ...] = ()

    @cached_property
    def of_other(self) -> Mapping[str, Array]:
        """Values of the other example; none where there is none, or where it does not run."""
        try:
            return {} if self.again is None else self.again.result()
        except InputError:
            return {}

    @property
    def of_samples(self) -> Iterator[Mapping[str, Array]]:
        """Values of every sample alone; none from where one does not run."""
        for each in self.alone:
            try:
                yield each.result()
            except InputError:
                return

    @property
    def examples(self) -> tuple[Feeds, ...]:
        """The examples that run."""
        other = () if self.other is None or not self.of_other else (self.other,)
        return (self.first, *other)

    def stop(self) -> None:
        """Begin no further run."""
        for each in (self.again, *self.alone):
            if each is not None:
                each.cancel()


def observe(
    model: Model,
    run: Runner,
    *,
    overrides: Overrides | None = None,
    shapes: Shapes | None = None,
    given: Feeds | None = None,
    revised: Mapping[str, Fact] | None = None,
    form: Form | None = None,
    batches: Batches | None = None,
) -> Observations:
    """Observe the graph of ``model``, which is not changed, and its values in trial runs.

    Args:
        model: The model.
        run: Runs a graph.
        overrides: Roles of inputs, and of values without content, that are set by ``--role``.
        shapes: Shapes that the model is known to accept, for lengths that it leaves open.
        given: Arrays that it is known to accept, for the trial run if no synthetic example runs.
        revised: Roles of inputs that a judgement of earlier observations has corrected.
        form: Settings of an example that the graph is known to run on.
        batches: Axes of samples of the example that are not the first, if they are known.

    Raises:
        RoleError: No input can be explained, or no trial run succeeds.
    """
    graph = model.graph
    inputs = input_roles(graph, overrides)
    inputs = replace(inputs, facts={**inputs.facts, **(revised or {})})
    content = content_values(graph, inputs)
    indexing, weights = _indexing(graph, content), computed_weights(graph)
    names = [v.name for v in _values(graph) if v.name and is_float(v) and v not in weights]
    tried = forms(model, shapes) if form is None else iter([form])
    if batches is not None:
        tried = (replace(each, batches=batches) for each in tried)
    runs = _trial(model, inputs, tried, _TrialRun(model, run, [*names, *indexing], content), given)
    lengths: dict[ir.Value, Shape] = {
        v: tuple(v.const_value.shape.numpy())
        for v in graph.initializers.values()
        if v.const_value is not None
    }
    lengths.update(weights)
    lengths.update(
        (v, runs.values[v.name].shape) for v in _values(graph) if v.name and v.name in runs.values
    )
    missing = [v.name for v in content if v not in lengths]
    if missing:
        raise RoleError("The trial run did not yield this value", place=f"value {missing[0]}")
    _check_places(graph, inputs, lengths)
    indices = {name: runs.values[name] for name in indexing}
    known, layouts = find_batches(graph, inputs, content, lengths, indices)
    moved = {n: axes.batch for n, axes in known.items() if axes.flags and axes.batch != 0}
    if moved and runs.form is not None and not runs.form.batches and _any_free(model, moved):
        runs.stop()
        return observe(
            model,
            run,
            overrides=overrides,
            shapes=shapes,
            given=given,
            revised=revised,
            form=form,
            batches=moved,
        )
    mixed = mixed_values(graph, layouts.layouts, runs.values, runs.of_samples)
    layouts = replace(layouts, mixing={**mixed, **layouts.mixing})
    free = {v.name for v in _values(graph) if v not in content or v.is_graph_input()}
    scaling = find_scaling(graph, content)
    routed = {v.name for v in routed_values(graph, content)}
    return Observations(
        model=model,
        overrides=overrides or {},
        inputs=inputs,
        content=content,
        known=known,
        axes=layouts.flags(),
        layouts=layouts,
        depth=attention_depth(graph, content),
        probabilities=probability_operands(graph, content),
        scaling=scaling,
        activations=activation_values(graph, content, scaling),
        trial={name: array for name, array in runs.values.items() if name not in indexing},
        again={name: array for name, array in runs.of_other.items() if name in free},
        indices={name: array for name, array in indices.items() if name not in routed},
        shapes=lengths,
        examples=runs.examples,
        form=runs.form,
    )


def observe_more(seen: Observations, run: Runner, values: Iterable[ir.Value]) -> Observations:
    """Add observations of values without content that are new in the graph.

    Only the part of the graph that these values depend on is run.
    """
    new = {v.name or "": v for v in values}
    part = run(seen.model.cut_to(list(new)), list(new))
    found = [part(feeds) for feeds in seen.examples]
    first, *others = [{name: values[name] for name in new} for values in found]
    shapes = {v: first[name].shape for name, v in new.items()}
    return replace(
        seen,
        trial={**seen.trial, **{n: a for n, a in first.items() if is_float(new[n])}},
        again={**seen.again, **(others[0] if others else {})},
        shapes={**seen.shapes, **shapes},
    )


class _TrialRun:
    """Runs of the graph; of a large input, real values that depend on content are not kept.

    In their place there are arrays of their shapes, as nothing else is read of them. Where all
    values together are small they are kept.
    """

    def __init__(
        self, model: Model, run: Runner, names: Collection[str], content: Iterable[ir.Value]
    ) -> None:
        self._model, self._run, self._names = model, run, names
        real = {v.name or "" for v in content if is_float(v) and v.producer()}
        self._real = real.intersection(names)

    def __call__(self, feeds: Feeds) -> Mapping[str, Array]:
        """Values of one run."""
        small = all(array.size <= _LARGE for array in feeds.values())
        if small or self._model.graph_opset < FACTS_OPSET:
            return self._every(feeds)
        facts = self._facts(feeds)
        rest = {name: facts[name] for name in (*feeds, *self._names) if name in facts}
        values = {**from_facts(self._real, facts), **rest}
        return self._every(feeds) if _size(values) <= _SMALL else values

    @cached_property
    def _every(self) -> Values:
        return self._run(self._model, self._names)

    @cached_property
    def _facts(self) -> Values:
        copied, results = with_facts(self._model, self._real)
        return self._run(copied, [*results, *(n for n in self._names if n not in self._real)])


def _size(values: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in values.values())


def _trial(
    model: Model,
    inputs: InputRoles,
    known: Iterator[Form],
    values_of: Values,
    given: Feeds | None,
) -> _Runs:
    """Run the graph on the first of the ``known`` forms that it accepts, else on ``given``.

    Raises:
        RoleError: Nothing runs.
    """
    problem = ""
    for form in known:
        try:
            feeds = make_feeds(model, inputs, form)
            values = values_of(feeds)
        except InputError as error:
            problem = error.hint or error.message
            continue
        other = _other(model, inputs, form, feeds)
        small = _size(values) <= _SMALL
        alone = each_alone(model.inputs, feeds, form.batches) if small else []
        thread = ThreadPoolExecutor(1)
        again = None if other is None else thread.submit(values_of, other)
        later = tuple(thread.submit(values_of, each) for each in alone)
        thread.shutdown(wait=False)
        return _Runs(values, form, feeds, other, again, later)
    if given is not None:
        return _Runs(values_of(given), None, given)
    raise none_runs(problem)


def _any_free(model: Model, names: Collection[str]) -> bool:
    """Whether an input of these names has an axis of free length."""
    dims = (d for s in model.inputs if s.name in names for d in s.shape or ())
    return any(not isinstance(d, int) for d in dims)


def _other(model: Model, inputs: InputRoles, form: Form, first: Feeds) -> Feeds | None:
    """Another example, of another length and without padding.

    ``None`` where it would show nothing new: real inputs of the same shape.
    """
    try:
        feeds = make_feeds(model, inputs, another(form))
    except InputError:
        return None
    real = all(array.dtype.kind == "f" for array in feeds.values())
    same = all(feeds[name].shape == array.shape for name, array in first.items())
    return None if real and same else feeds


def _check_places(graph: ir.Graph, inputs: InputRoles, shapes: Mapping[ir.Value, Shape]) -> None:
    """Check that a lookup keeps every entry of an explained input in its place.

    Raises:
        RoleError: The places of the entries are unknown.
    """
    named = {v.name: v for v in graph.inputs}
    for node, name in inputs.lookups.items():
        own, found = shapes[named[name]], shapes.get(node.outputs[0])
        if found is None:
            raise RoleError(
                "Entries of an input are looked up inside a loop or a branch, where they cannot be "
                "followed",
                place=f"input {name}, {node.op_type} {node.name!r}",
            )
        if found[: len(own)] != own:
            raise RoleError(
                f"Entries of an input of shape {list(own)} become values of shape {list(found)}, "
                "where they cannot be followed",
                place=f"input {name}, {node.op_type} {node.name!r}",
            )


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
