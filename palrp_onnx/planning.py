"""From an opened model and an example of its input to a plan of the walk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.attribution import ModelFacts, Warning_
from palrp_onnx.errors import InputError, TargetError, UsageError
from palrp_onnx.forward import RuntimeForward
from palrp_onnx.graph.analysis import Analysis, analyse
from palrp_onnx.graph.axes import BATCH
from palrp_onnx.graph.branches import take_branches
from palrp_onnx.graph.example import example_feeds
from palrp_onnx.graph.faults import find_faults
from palrp_onnx.graph.model import Model
from palrp_onnx.graph.origins import counted_operands
from palrp_onnx.graph.patches import patch_size
from palrp_onnx.graph.roles import Overrides, Role
from palrp_onnx.graph.signature import GraphInput
from palrp_onnx.graph.sites import Site, find_sites
from palrp_onnx.head import output_facts, probability_warnings
from palrp_onnx.manifest import Subject
from palrp_onnx.relevance.plan import Plan, make_plan
from palrp_onnx.relevance.presets import Preset

Array = NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Planned:
    """A model analysed and planned for one way of explaining it.

    Attributes:
        explained: Name of the input whose units the record is about.
        unchecked: Whether what is explained later is no longer held against the file.
        doubts: What else every record must say.
    """

    analysis: Analysis
    plan: Plan
    sites: tuple[Site, ...]
    explained: str
    unchecked: bool = False
    doubts: tuple[Warning_, ...] = ()

    @property
    def output(self) -> str:
        """Name of the explained output."""
        return self.plan.output.name or ""

    @property
    def subject(self) -> Subject:
        """What readers of the result must know of the model."""
        axes = self.analysis.axes
        met = (step.meeting for step in self.plan.steps)
        mixed = next((v for v in met if sum(bool(f & BATCH) for f in axes[v]) > 1), None)
        facts = output_facts(self.analysis, self.plan.output)
        return Subject(
            source=model_facts(self.analysis.model),
            output=self.output,
            axes=len(self.analysis.shapes[self.plan.output]),
            input=self.explained,
            masks=self.analysis.inputs.named(Role.MASK),
            patch=patch_size(self.analysis, self.explained),
            mixed=mixed.name if mixed is not None else None,
            faults=(
                *(Warning_(code=code, message=text) for code, text in self._faults()),
                *(Warning_(code=c, message=text) for c, text in probability_warnings(facts)),
                *self.doubts,
            ),
            facts=facts,
        )

    def _faults(self) -> Iterator[tuple[str, str]]:
        yield from find_faults(self.analysis)
        branches = self.analysis.model.lowered.get("If", 0)
        if self.unchecked and branches:
            yield (
                "branches",
                f"conditional branches ({branches}) were compiled as a short example took them; an "
                "input that takes others is explained as if it did not",
            )


def model_facts(model: Model) -> ModelFacts:
    """The model as records and reports show it."""
    return ModelFacts(
        sha256=model.sha256, opset=model.opset, producer=model.producer, nodes=model.nodes
    )


def plan_model(
    model: Model,
    feeds: Feeds,
    preset: Preset,
    *,
    output: str | None = None,
    explain_input: str | None = None,
    roles: Overrides | None = None,
) -> Planned:
    """Analyse ``model`` with ``feeds`` as an example, and plan the walk.

    Raises:
        InputError: The arrays are not what the graph takes.
        ModelError: The model cannot be explained as asked.
    """
    check_feeds(model.inputs, feeds)
    analysis = analyse_model(model, feeds, roles)
    chosen = find_output(analysis, output)
    axes = analysis.axes.get(chosen, (BATCH,))
    if not axes or not axes[0] & BATCH:
        raise TargetError(
            "The first axis of the output is not the batch", place=f"output {chosen.name}"
        )
    sites = find_sites(analysis)
    plan = make_plan(analysis, chosen, preset, counted_operands(analysis, sites))
    return Planned(analysis, plan, sites, _find_explained(analysis, explain_input))


def check_feeds(inputs: Sequence[GraphInput], feeds: Feeds) -> None:
    """Refuse arrays that do not fit the graph's inputs, differ in batch size or are not finite."""
    wanted = [s.name for s in inputs]
    missing = [name for name in wanted if name not in feeds]
    unknown = [name for name in feeds if name not in wanted]
    if missing or unknown:
        problem = f"missing {missing}" if missing else f"unknown {unknown}"
        raise InputError(
            f"The arrays do not fit the graph's inputs: {problem}", hint=f"Inputs: {wanted}."
        )
    sizes = {len(array) for array in feeds.values() if array.ndim}
    if len(sizes) != 1 or 0 in sizes:
        raise InputError(f"The arrays have batch sizes {sorted(sizes)}; one was expected")
    for name, array in feeds.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError("The input holds NaN or infinity", place=f"input {name}")


def make_example(model: Model) -> Feeds:
    """An example of what the model takes, made up from its graph.

    Raises:
        RoleError: None was found that it runs on.
    """
    return example_feeds(model, RuntimeForward(model, [s.name for s in model.outputs]))


def analyse_model(model: Model, feeds: Feeds, roles: Overrides | None = None) -> Analysis:
    """Annotate the graph, with the trial run in ONNX Runtime."""
    model = take_branches(model, feeds, run_graph)

    def run(probe: Feeds, names: Iterable[str]) -> Mapping[str, Array]:
        return run_graph(model, probe, names)

    return analyse(model, feeds, run, roles)


def run_graph(model: Model, feeds: Feeds, names: Iterable[str]) -> Mapping[str, Array]:
    """Values of one run by name; those that are fed are among them."""
    wanted = [n for n in names if n not in feeds]
    return {**feeds, **RuntimeForward(model, wanted)(feeds)}


def find_output(analysis: Analysis, name: str | None) -> ir.Value:
    """The output of this name, or the first that depends on the explained input.

    The name may also be that of a value inside the graph.

    Raises:
        TargetError: There is none.
    """
    outputs = {v.name: v for v in analysis.model.graph.outputs}
    if name is not None:
        return outputs[name] if name in outputs else _inner_value(analysis, name)
    found = next((v for v in outputs.values() if v in analysis.content), None)
    if found is None:
        raise TargetError("No output depends on the explained input by a real-valued path")
    return found


def _inner_value(analysis: Analysis, name: str) -> ir.Value:
    """A real value inside the graph that depends on the explained input."""
    found = next((v for v in analysis.content if v.name == name and v.producer()), None)
    if found is None:
        names = ", ".join(str(v.name) for v in analysis.model.graph.outputs)
        raise TargetError(
            f"There is no output {name!r}, nor a real value inside that depends on the explained "
            "input",
            hint=f"Outputs: {names}.",
        )
    return found


def _find_explained(analysis: Analysis, name: str | None) -> str:
    names = analysis.inputs.named(Role.CONTENT)
    if name is None:
        return names[0]
    if name not in names:
        raise UsageError(
            f"{name!r} is not an input that can be explained",
            hint=f"Explained inputs: {', '.join(names)}.",
        )
    return name
