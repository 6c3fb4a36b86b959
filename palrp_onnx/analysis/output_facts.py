"""What the graph says about its explained output: endings, tables, axes, causal attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis
from palrp_onnx.analysis.axes import TOKEN
from palrp_onnx.analysis.inputs import table_of
from palrp_onnx.analysis.layout import Source, factors
from palrp_onnx.analysis.probability import blends_probabilities, ending_of, followed_by
from palrp_onnx.model.ends import name_of_ends
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.subject import OutputFacts
from palrp_onnx.types import Array

#: Attention that is hidden is smaller.
_HIDDEN = 1e-6
#: Numbers that say where a box is.
_BOX = 4
#: Outputs that say where an answer starts and ends.
_ENDS = 2
#: Number of axes of an output with one vector for each sample [B, D].
_POOLED = 2


def output_facts(
    analysis: Analysis, output: ir.Value, explained: str, batch: int | None
) -> OutputFacts:
    """Facts of the graph about an output, or about a value inside the graph.

    Args:
        analysis: The annotated graph.
        output: The value.
        explained: Name of the explained input.
        batch: Its axis of samples; ``None`` where it is of one sample.
    """
    graph, ending = analysis.model.graph, ending_of(output)
    rank, opset = len(analysis.shapes[output]), analysis.model.graph_opset
    tables = {table_of(node) for node in analysis.inputs.lookups}
    rows = {analysis.shapes[v][0] for v in tables if v is not None and analysis.shapes.get(v)}
    axes = [k for k in range(rank) if k != batch]
    layout = analysis.layouts.layouts.get(output, ())
    shape = tuple(analysis.shapes[output][k] for k in axes)
    runs = [any(f.flag & TOKEN for f in factors(layout[k])) if layout else False for k in axes]
    units = analysis.input_axes(explained).units
    last = _sources(analysis, output, axes[-1]) if axes else set()
    firsts = {analysis.layouts.canonical((explained, u)) for u in units[:1]}
    choices = len(units) > 1 and analysis.input_axes(explained).channels is None
    boxes = next(_boxes(analysis, output), None)
    # Queries of a detector may be joined to tokens, but run along none of the input's.
    sourced = any(_sources(analysis, output, k) for k in axes[:-1])
    siblings = tuple(_siblings(analysis, output))
    along = _along(analysis, output, axes[:-1], explained)
    names, ends = [v.name for v in graph.outputs], analysis.model.ends
    return OutputFacts(
        ending=ending.kind if ending else None,
        before=ending.before.name if ending else None,
        followed=None if ending else followed_by(output, graph.outputs, rank, opset),
        blended=ending is None and blends_probabilities(output, analysis.content),
        inner=output not in graph.outputs,
        tokens=bool(runs and runs[-1] and rank > 1),
        vocabularies=tuple(sorted(rows)),
        shape=(1, *shape),
        sequence=any(runs[:-1]) and (boxes is None or sourced),
        choices=choices and bool(last) and last <= firsts,
        causal=_causal(analysis, along or explained),
        siblings=siblings,
        second=bool(siblings) and output in graph.outputs[names.index(siblings[0]) :],
        pooled=tuple(
            v.name or ""
            for v in graph.outputs
            if v is not output and v in analysis.content and len(analysis.shapes[v]) == _POOLED
        ),
        boxes=boxes,
        along=along,
        ends=ends if ends is not None and output.name == name_of_ends(ends) else None,
    )


def _along(analysis: Analysis, output: ir.Value, axes: Sequence[int], explained: str) -> str | None:
    """The one input whose tokens an output runs along, where that is not the explained one."""
    runs = {source for axis in axes for source in _sources(analysis, output, axis)}
    found = [name for name in analysis.inputs.explained() if runs & _units(analysis, name)]
    return found[0] if len(found) == 1 and found[0] != explained else None


def _units(analysis: Analysis, name: str) -> set[Source]:
    """The axes of units of an input."""
    axes = analysis.input_axes(name).units
    return {analysis.layouts.canonical((name, axis)) for axis in axes}


def _sources(analysis: Analysis, value: ir.Value, axis: int) -> set[Source]:
    """The axes of inputs that an axis of a value runs along."""
    layout = analysis.layouts.layouts.get(value, ())
    found = (f.source for f in (factors(layout[axis]) if layout else ()))
    return {analysis.layouts.canonical(source) for source in found if source is not None}


def _causal(analysis: Analysis, name: str) -> bool | None:
    """Whether all attention among the tokens of an input looks back only, in the trial run.

    Attention among unknown tokens counts where none is known to be among those of the input.
    """
    tokens = _units(analysis, name)
    looks = [
        (_sources(analysis, node.outputs[0], -1), weights)
        for node in analysis.model.graph
        if has(node, Trait.SOFTMAX) and node.outputs[0] in analysis.content
        if (weights := analysis.trial.get(node.outputs[0].name or "")) is not None
        if weights.ndim > 2 and weights.shape[-1] == weights.shape[-2] > 1 and weights.any()
    ]
    own = [weights for runs, weights in looks if runs and runs <= tokens]
    own = own or [weights for runs, weights in looks if not runs]
    return all(map(_looks_back, own)) if own else None


def _looks_back(weights: Array) -> bool:
    return bool(np.triu(np.nan_to_num(weights), k=1).max(initial=0.0) < _HIDDEN)


def _siblings(analysis: Analysis, output: ir.Value) -> Iterator[str]:
    """Other outputs whose axes run along the same and are as long."""
    for other in analysis.model.graph.outputs:
        if other in analysis.content and other is not output and alike(analysis, other, output):
            yield other.name or ""


def alike(analysis: Analysis, first: ir.Value, other: ir.Value) -> bool:
    """Whether the axes of two content values run along the same and are as long."""
    axes = range(len(analysis.shapes[first]))
    return analysis.shapes[first] == analysis.shapes[other] and all(
        _sources(analysis, first, k) == _sources(analysis, other, k) for k in axes
    )


def ends_of_answers(
    analysis: Analysis, output: ir.Value, outputs: Sequence[ir.Value], explained: str
) -> tuple[str, str] | None:
    """Names of the two outputs that say where an answer starts and ends, in this order.

    They are scores for every token of the explained input, and alone of their kind.

    Args:
        analysis: The annotated graph.
        output: One of them.
        outputs: All outputs that may be explained.
        explained: Name of the explained input.
    """
    flags = analysis.axes[output]
    one_text = len(analysis.input_axes(explained).units) == 1
    if len(flags) != _POOLED or not flags[-1] & TOKEN or not one_text:
        return None
    found = [v.name or "" for v in outputs if v is output or alike(analysis, v, output)]
    return (found[0], found[1]) if len(set(found)) == len(found) == _ENDS else None


def _boxes(analysis: Analysis, output: ir.Value) -> Iterator[str]:
    """Outputs [B, places, 4] beside an output [B, places, classes], or of itself."""
    shape = analysis.shapes[output]
    for other in analysis.model.graph.outputs:
        known = len(shape) == 3 and other is not output and other in analysis.content
        if known and analysis.shapes[other] == (*shape[:2], _BOX):
            yield other.name or ""
        elif known and shape[2] == _BOX and analysis.shapes[other][:2] == shape[:2]:
            yield output.name or ""
