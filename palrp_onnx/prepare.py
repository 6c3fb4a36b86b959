"""From an opened model and an example of its input to a plan of the walk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import onnx_ir as ir
from msgspec import UNSET

from palrp_onnx.analysis.analysis import (
    GIVEN_EXAMPLE,
    Analysis,
    analyse,
    check_overrides,
    check_selected,
    positions_among_masks,
)
from palrp_onnx.analysis.axes import BATCH, sample_place
from palrp_onnx.analysis.example import forms, make_feeds, none_runs
from palrp_onnx.analysis.faults import find_faults
from palrp_onnx.analysis.inputs import CACHED, input_roles
from palrp_onnx.analysis.layout import Source
from palrp_onnx.analysis.observations import observe
from palrp_onnx.analysis.output_facts import ends_of_answers, output_facts
from palrp_onnx.analysis.output_mask import hides_where_set, mask_of_input, mask_of_output
from palrp_onnx.analysis.patches import patch_size
from palrp_onnx.analysis.probability import ending_of
from palrp_onnx.analysis.roles import Overrides, Role
from palrp_onnx.analysis.sites import SinkSite, find_sites
from palrp_onnx.analysis.slopes import alibi_operands
from palrp_onnx.analysis.table_rows import table_rows
from palrp_onnx.analysis.uncertain import find_uncertain
from palrp_onnx.analysis.unit_kinds import unit_kind
from palrp_onnx.errors import InputError, TargetError, UnsupportedError, UsageError
from palrp_onnx.head import probability_warnings
from palrp_onnx.model.branches import has_decisions, questions, take_branches
from palrp_onnx.model.ends import name_of_ends
from palrp_onnx.model.follow import values_before
from palrp_onnx.model.locate import parts_of
from palrp_onnx.model.open import Model
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.passes.written_softmax import join_softmax
from palrp_onnx.model.signature import check_feeds, shapes_of
from palrp_onnx.record import ModelFacts, UnitKind, Warning_
from palrp_onnx.relevance.method import Method
from palrp_onnx.relevance.plan import Plan, make_plan
from palrp_onnx.relevance.routes import Route, Routes, bring_to_tokens, to_input
from palrp_onnx.rewrite.answers import join_answer
from palrp_onnx.rewrite.mixed_sums import copy_shared_sums, rewritten, separate_sums
from palrp_onnx.rewrite.moved_lookups import move_lookups
from palrp_onnx.runtime.forward import RuntimeForward
from palrp_onnx.subject import FurtherInput, ImageAxes, Subject
from palrp_onnx.tensor.language import Language
from palrp_onnx.types import Array, Feeds

T = TypeVar("T")
#: Axes of an output that holds all pairs of two kinds of samples.
_TABLE = 2


@dataclass(frozen=True)
class Planned:
    """An analysed model with the plan of a walk.

    Attributes:
        analysis: The annotated graph.
        plan: The nodes to visit and their rules.
        sites: All sites of positions.
        explained: Name of the input whose units the record describes.
        further: Names of the other inputs that get a map.
        required: Names of the inputs that must get relevance.
        batch: The axis of samples that are explained; ``None`` where there is one sample.
        output_batch: Axis of samples of the explained output, ``None`` where it is of one sample.
        crossed: Whether a value holds all pairs of samples of two inputs, or samples that are
            between tokens along an axis, or whether samples share an explained input.
        foreign: Whether the rows of the output are samples of another input.
        unverified: Whether results are not verified against the original file at run time.
        doubts: Further warnings for every record.
    """

    analysis: Analysis
    plan: Plan
    sites: tuple[SinkSite, ...]
    explained: str
    further: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    batch: Source | None = None
    output_batch: int | None = 0
    crossed: bool = False
    foreign: bool = False
    unverified: bool = False
    doubts: tuple[Warning_, ...] = ()

    @property
    def output(self) -> str:
        """Name of the explained output."""
        return self.plan.output.name or ""

    @cached_property
    def views(self) -> tuple[Planned, ...]:
        """The plan as it is for each explained input, the first one first."""
        return self, *(replace(self, explained=name, further=()) for name in self.further)

    @property
    def rows(self) -> int | None:
        """The axis of the explained input that runs over samples other than those explained."""
        axis = self.analysis.input_axes(self.explained).batch
        return None if batch_of(self.analysis, self.explained) == self.batch else axis

    def tokens(self, op: Language[T], relevance: T) -> T:
        """Relevance of the explained input as [B, T, F]; of an image as [B, C, H, W]."""
        return bring_to_tokens(
            op, relevance, self.analysis.input_axes(self.explained), rows=self.rows
        )

    @property
    def of_this_input(self) -> bool:
        """Whether trial runs, or lengths in them, were those of one input."""
        form = self.analysis.form
        return form is None or form.whole

    @property
    def subject(self) -> Subject:
        """The properties of the model that readers of the result need."""
        analysis = self.analysis
        visited = [step.axes_of for step in self.plan.steps]
        measures = _measures_batches(analysis)
        mixing = [m for v in visited if (m := analysis.layouts.mixing.get(v))]
        # What runs of single samples show comes from shared scales, where there are any.
        found = [m.reason for m in mixing if m.sources or not measures]
        if self.foreign:
            found.append(f"the rows of output {self.output!r} are samples of another input")
        facts = output_facts(analysis, self.plan.output, self.explained, self.output_batch)
        mask = mask_of_output(analysis, self.plan.output, self.output_batch)
        unit_mask = mask_of_input(analysis, self.explained)
        further = tuple(view.further_input for view in self.views[1:])
        found_masks = (mask, unit_mask, *(each.unit_mask for each in further))
        masks = dict.fromkeys(name for name in found_masks if name is not None)
        return Subject(
            source=model_facts(analysis.model),
            output=self.output,
            axes=len(analysis.shapes[self.plan.output]) + (self.output_batch is None),
            input=self.explained,
            batched=batched_inputs(analysis, self.explained),
            masks=analysis.inputs.named(Role.MASK),
            output_batch=self.output_batch,
            mask=mask,
            unit_mask=unit_mask,
            hiding=tuple(name for name in masks if hides_where_set(analysis, name)),
            image=self._image(),
            patch=patch_size(analysis, self.explained),
            kind=self.kind,
            further=further,
            columns=self._columns(),
            mixed=found[0] if found else None,
            crossed=self.crossed,
            measured=measures or any(v in analysis.layouts.ragged for v in visited),
            tables=table_rows(analysis.model.graph),
            faults=(
                *(Warning_(code=code, message=text) for code, text in self._faults()),
                *(Warning_(code=c, message=text) for c, text in probability_warnings(facts)),
                *self.doubts,
            ),
            facts=facts,
        )

    def _columns(self) -> str | None:
        """The further input whose samples the last axis of the output runs along."""
        output, analysis = self.plan.output, self.analysis
        if len(analysis.shapes[output]) != _TABLE:
            return None
        batch = analysis.layouts.batch(output, -1)
        rows = (view.explained for view in self.views if view.rows is not None)
        return next((name for name in rows if batch_of(analysis, name) == batch), None)

    @property
    def further_input(self) -> FurtherInput:
        """What the subject says of a further explained input."""
        return FurtherInput(
            input=self.explained,
            kind=self.kind,
            unit_mask=mask_of_input(self.analysis, self.explained),
            image=self._image(),
            patch=patch_size(self.analysis, self.explained),
            rows=self.rows,
        )

    @property
    def kind(self) -> UnitKind:
        """What the units of the explained input are."""
        return unit_kind(self.analysis, self.explained, placed=bool(self.sites))

    def _image(self) -> ImageAxes | None:
        axes = self.analysis.input_axes(self.explained)
        if axes.channels is None:
            return None
        assert axes.batch is not None
        *pictures, rows, columns = axes.units
        return ImageAxes(axes.batch, axes.channels, rows, columns, *pictures)

    @cached_property
    def routes(self) -> Routes:
        """Finds how tokens of sites are moved back to the explained input."""
        return Routes(self.plan, self.explained)

    def to_input(
        self, op: Language[T], values: Callable[[ir.Value], T], route: Route, tokens: T
    ) -> T:
        """Numbers of a site's tokens [B, T] by entries of the explained input: as ``tokens``."""
        axes = self.analysis.input_axes(self.explained)
        return to_input(op, self.plan, values, route, tokens, axes, self.rows)

    def _faults(self) -> Iterator[tuple[str, str]]:
        yield from find_faults(self.analysis)
        visited = {step.node for step in self.plan.steps}
        reached = [site for site in self.sites if site.operand[0] in visited]
        for each in find_uncertain(self.analysis, reached):
            yield "uncertain", f"{each.name} was taken for {each.role}, but {each.doubt}"
        if self.analysis.given:
            yield "uncertain", GIVEN_EXAMPLE
        if self.unverified and (decided := self.analysis.model.decided):
            yield (
                "branches",
                f"what an input decides ({len(decided)} branches taken, rounds of loops, lengths "
                "of sequences) was compiled as one example decides it; an input that decides "
                "otherwise is explained as if it did not",
            )


def model_facts(model: Model) -> ModelFacts:
    """The model as records and reports show it."""
    parts = parts_of(model.path)
    several = len(parts) > 1
    return ModelFacts(
        sha256=model.sha256,
        opset=model.opset,
        producer=model.producer,
        nodes=model.nodes,
        name=UNSET if several else model.path.name,
        files=[each.name for each in parts] if several else UNSET,
    )


def plan_model(
    model: Model,
    feeds: Feeds | None,
    method: Method,
    *,
    output: str | None = None,
    explain_input: Sequence[str] = (),
    roles: Overrides | None = None,
    answers: bool = False,
) -> Planned:
    """Analyse ``model`` and plan the walk.

    Args:
        model: The model, which is not changed.
        feeds: Arrays that it accepts, if there are any.
        method: The method.
        output: Name of the explained output; by default the first that depends on the input, or
            the score that it is the probability of.
        explain_input: Names of the explained inputs; by default all that the output depends on.
        roles: Overrides of roles.
        answers: Whether two outputs that say where an answer starts and ends are explained as one.

    Raises:
        InputError: The arrays do not fit the graph.
        ModelError: The model cannot be explained in this way.
    """
    if feeds is not None:
        check_feeds(model.inputs, feeds)
    analysis = analyse_model(model, feeds, roles)
    if answers and output is None and (ends := _ends(analysis, explain_input)):
        analysis = rewritten(analysis, lambda facts, _: join_answer(facts, ends), _runs)
        output = name_of_ends(ends)
    return plan_analysis(analysis, method, output=output, explain_input=explain_input)


def plan_analysis(
    analysis: Analysis,
    method: Method,
    *,
    output: str | None = None,
    explain_input: Sequence[str] = (),
) -> Planned:
    """Plan the walk through an analysed model, as :func:`plan_model` does.

    Raises:
        ModelError: The model cannot be explained in this way.
    """
    observed = analysis
    chosen, explained = choose(analysis, output, explain_input)
    layouts = analysis.layouts
    own, other = batch_of(analysis, explained), layouts.batch(chosen)
    batches = {each for each in (own, other) if each is not None and own is not None}
    if batches or own is None:
        analysis = replace(analysis, axes=layouts.flags(batches))
    sites = find_sites(analysis)
    plan = make_plan(analysis, chosen, method, alibi_operands(analysis, sites))
    output_batch = _output_batch(observed, chosen, own)  # after an operation without a rule
    reached = {v.name for v in values_before([chosen]) if v.is_graph_input()}
    shared = [name for name in analysis.known if name in reached and name != explained]
    facts = analysis.inputs.facts
    others = explain_input or [name for name in shared if facts[name].reason != CACHED]
    crossed = any(own != batch_of(analysis, name) for name in shared) or any(
        layouts.crossed(v) or sample_place(analysis.axes[v], layouts.layouts[v]).between
        for v in (step.axes_of for step in plan.steps)
    )
    planned = Planned(
        analysis,
        plan,
        sites,
        explained,
        further=tuple(name for name in others if name != explained),
        required=tuple(explain_input or (explained,)),
        batch=own,
        output_batch=output_batch,
        crossed=crossed,
        foreign=len(batches) > 1,
    )
    _refuse_mixing(planned)
    return planned


def _output_batch(analysis: Analysis, output: ir.Value, batch: Source | None) -> int | None:
    """The axis of an output that runs over samples; ``None`` where it is of one sample.

    Raises:
        TargetError: The output has no such axis.
    """
    if batch is None:
        return None
    if (found := analysis.layouts.along(output, batch)) is not None:
        return found
    if analysis.layouts.starts_with(output, batch):
        return 0
    counted = set(values_before([output]))
    if any(value in counted and m.alone for value, m in analysis.layouts.mixing.items()):
        return None
    name, axis = batch
    if next(s.shape for s in analysis.model.inputs if s.name == name)[axis] == 1:  # type: ignore[index]
        return 0 if analysis.shapes[output][:1] == (1,) else None
    raise TargetError(
        "No axis of the output runs over the samples of the input alone",
        place=f"output {output.name}",
        hint="--output NAME explains another output, or a value inside.",
    )


def _refuse_mixing(planned: Planned) -> None:
    """Refuse a graph that mixes samples in a way that prevents explaining even one of them."""
    layouts = planned.analysis.layouts
    for step in planned.plan.steps:
        mixing = layouts.mixing.get(step.axes_of)
        if mixing is not None and not mixing.alone:
            raise UnsupportedError(
                f"The first axis of the input is not a batch of separate samples: {mixing.reason}",
                place=f"value {step.axes_of.name!r}",
                hint="--output NAME explains a value before samples are combined.",
            )


def batch_of(analysis: Analysis, name: str) -> Source | None:
    """The batch of an explained input; ``None`` where the whole input is one sample."""
    axis = analysis.input_axes(name).batch
    return None if axis is None else analysis.layouts.canonical((name, axis))


def batched_inputs(analysis: Analysis, explained: str) -> dict[str, int]:
    """The axis that runs over the samples of the explained input, of every input that has one.

    Masks and positions are among them where an axis has the same symbol.
    """
    own = batch_of(analysis, explained)
    if own is None:
        return {}
    shapes = {s.name: s.shape or () for s in analysis.model.inputs}
    batch = analysis.input_axes(explained).batch or 0
    length = shapes[explained][batch] if shapes[explained] else None
    found = {explained: batch}
    for name, shape in shapes.items():
        if analysis.inputs.facts[name].role is Role.CONTENT:
            axis = analysis.input_axes(name).batch
            if axis is not None and batch_of(analysis, name) == own:
                found[name] = axis
        elif isinstance(length, str) and length in shape:
            found[name] = shape.index(length)
        elif shape[:1] == (length,):
            found[name] = 0
    return found


def make_example(model: Model, given: Feeds | None = None) -> Feeds:
    """One synthetic sample that the model accepts, without masked tokens.

    Args:
        model: The model.
        given: Arrays that it is known to accept, for the case that no synthetic example runs.

    Raises:
        RoleError: It runs on no synthetic example, and no arrays were given.
        InputError: It does not run on the given arrays either.
    """
    roles = input_roles(model.graph)
    # The runtime crashes where text is copied from its device.
    numbers = [v.name or "" for v in model.graph.outputs if v.dtype is not ir.DataType.STRING]
    # A loop that might not end runs for a limited number of rounds.
    runs, _ = questions(model) if has_decisions(model) else (model, [])
    forward = RuntimeForward(runs, numbers)
    problem = ""
    for form in forms(model, None if given is None else shapes_of(given)):
        feeds = make_feeds(model, roles, replace(form, samples=1, masked=False))
        try:
            forward(feeds)
        except InputError as error:
            problem = error.hint or error.message
        else:
            return feeds
    if given is None:
        raise none_runs(problem)
    try:
        forward(given)
    except InputError as error:
        raise InputError("The model does not run on the example", hint=error.hint) from error
    return given


def analyse_model(
    model: Model, feeds: Feeds | None = None, roles: Overrides | None = None
) -> Analysis:
    """Annotate the graph, with trial runs in ONNX Runtime on synthetic examples.

    Passes that need only the graph come first, then observations, then passes that need roles. If
    an input that looked like a mask turns out to be positions, the graph is observed once more, on
    new examples.

    Args:
        model: The model, which is not changed.
        feeds: Arrays that it accepts. They decide conditional branches, their shapes are used for
            free lengths of real inputs, and the trial run uses them where no synthetic example
            runs.
        roles: Overrides of roles.

    Raises:
        RoleError: A role cannot be decided, or no example runs.
        UnsupportedError: Words are moved by an operation that cannot be followed.
        UsageError: An override is impossible, or has no effect.
    """
    shapes = None if feeds is None else shapes_of(feeds)
    if has_decisions(model):
        example = feeds if feeds is not None else make_example(model)
        model = take_branches(model, example, run_graph)
    else:
        model = model.copy()  # passes change the graph
    model = model.rewritten(lambda m: move_lookups(m.graph, input_roles(m.graph, roles)))
    model = model.rewritten(join_softmax)
    seen = observe(model, _runs, overrides=roles, shapes=shapes, given=feeds)
    facts = rewritten(analyse(seen), copy_shared_sums, _runs)
    check_selected(facts)
    facts = separate_sums(facts, _runs)
    if revised := positions_among_masks(facts):
        seen = observe(
            model,
            _runs,
            overrides=roles,
            shapes=shapes,
            given=feeds,
            revised=revised,
            form=facts.form,
        )
        facts = separate_sums(analyse(seen), _runs)
    check_overrides(facts)
    return facts


def _runs(model: Model, names: Iterable[str]) -> Callable[[Feeds], Mapping[str, Array]]:
    """Runs of a graph in ONNX Runtime: feeds → values by name, including the feeds."""
    fed = {s.name for s in model.inputs}
    forward = RuntimeForward(model, [n for n in names if n not in fed])
    return lambda feeds: {**feeds, **forward(feeds)}


def _measures_batches(analysis: Analysis) -> bool:
    """Whether activations are quantised with scales that are measured over a whole batch."""
    measured = (n.inputs[0] for n in analysis.model.graph if has(n, Trait.MEASURES))
    axes = analysis.axes
    return any(flag & BATCH for v in measured if v is not None for flag in axes.get(v, ()))


def run_graph(model: Model, feeds: Feeds, names: Iterable[str]) -> Mapping[str, Array]:
    """Values of one run by name, including the feeds."""
    wanted = [n for n in names if n not in feeds]
    return {**feeds, **RuntimeForward(model, wanted)(feeds)}


def choose(
    analysis: Analysis, output: str | None, explain_input: Sequence[str] = ()
) -> tuple[ir.Value, str]:
    """Choose the explained output and the input whose samples are explained.

    By default they are the first output and input with the same batch. That matters for two towers
    whose output holds all pairs of their samples: its rows belong to one tower, its columns to the
    other.

    Raises:
        TargetError: There is no such output, or no output depends on an explained input.
        UsageError: The named input cannot be explained.
    """
    facts = analysis.inputs.facts
    names = sorted(analysis.inputs.explained(), key=lambda name: facts[name].reason == CACHED)
    if unknown := [name for name in explain_input if name not in names]:
        raise UsageError(
            f"{unknown[0]!r} is not an input that can be explained",
            hint=f"Explained inputs: {', '.join(names)}.",
        )
    outputs = [find_output(analysis, output)] if output else _default_outputs(analysis)
    inputs = list(explain_input or names)
    for value in outputs:
        batch = analysis.layouts.batch(value)
        for name in inputs:
            if batch is None or batch == batch_of(analysis, name):
                return value, name
    return outputs[0], inputs[0]


def _ends(analysis: Analysis, explain_input: Sequence[str]) -> tuple[str, str] | None:
    """Names of the outputs that say where an answer starts and ends, of a model in one file."""
    if len(analysis.model.files) > 1:
        return None
    output, explained = choose(analysis, None, explain_input)
    return ends_of_answers(analysis, output, _default_outputs(analysis), explained)


def _dependent_outputs(analysis: Analysis) -> list[ir.Value]:
    found = [v for v in analysis.model.graph.outputs if v in analysis.content]
    if not found:
        raise TargetError(
            "No output depends on the explained input by a real-valued path",
            hint=f"Explained inputs: {', '.join(analysis.inputs.explained())}.",
        )
    # Some decoders list their caches [2, B, …] before the logits.
    return sorted(found, key=lambda v: analysis.axes[v][:1] != (BATCH,))


def _default_outputs(analysis: Analysis) -> list[ir.Value]:
    """Outputs that may be explained; of a probability the score before it.

    A softmax that is nearly sure passes almost no relevance on. The score has to have the axes of
    the output, except such of length 1, so that a target means the same of both.
    """
    found = _dependent_outputs(analysis)
    endings = [ending_of(value) for value in found]
    return [
        end.before if end is not None and _is_score(analysis, end.before, value) else value
        for value, end in zip(found, endings, strict=True)
    ]


def _is_score(analysis: Analysis, value: ir.Value, output: ir.Value) -> bool:
    if value not in analysis.content or value.producer() is None:
        return False
    own, whole = ([n for n in analysis.shapes[v] if n != 1] for v in (value, output))
    return own == whole


def find_output(analysis: Analysis, name: str) -> ir.Value:
    """The output of this name, or the content value inside the graph.

    Raises:
        TargetError: There is no such value.
    """
    outputs = {v.name: v for v in analysis.model.graph.outputs}
    return outputs[name] if name in outputs else _inner_value(analysis, name)


def _inner_value(analysis: Analysis, name: str) -> ir.Value:
    """A real value inside the graph that depends on the explained input."""
    found = next((v for v in analysis.content if v.name == name and v.producer()), None)
    if found is None:
        names = ", ".join(str(v.name) for v in analysis.model.graph.outputs)
        raise TargetError(
            f"There is no output {name!r}, nor a real value of this name that depends on the "
            "explained input",
            hint=f"Outputs: {names}.",
        )
    return found
