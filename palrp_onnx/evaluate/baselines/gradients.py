"""Integrated gradients (Sundararajan et al. 2017)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from palrp_onnx.evaluate.baselines.question import Question
from palrp_onnx.types import Array

STEPS = 32


def integrated_gradients(
    question: Question, *, steps: int = STEPS, unknown: int | None = None
) -> Array:
    """(x − x₀) ∘ mean of the gradients between the baseline x₀ and x, summed to [B, units].

    x is what is looked up for the tokens, before anything is added to it, or the image itself.
    Gradients are taken in the middle of every step. The sum of a map is the target at x less that
    at x₀, but for the error of the steps.

    Args:
        question: Input and target.
        steps: Number of steps.
        unknown: Id of the token whose row is the baseline; zeros without. Where a norm comes before
            anything is added, as in Llama, the model jumps near zero, and no few steps find that.
    """
    ends = {v: question.values[v.name or ""] for v in _varied(question)}
    starts = _starts(question, list(ends), unknown)
    engine = question.engine
    looked_up = [v.name or "" for v in ends if not v.is_graph_input()]
    forward = engine.forward_from(looked_up) if looked_up else engine.forward
    sums = {v: np.zeros(end.shape) for v, end in ends.items()}
    for step in range(steps):
        share = (step + 0.5) / steps
        at = {v.name or "": starts[v] + share * (end - starts[v]) for v, end in ends.items()}
        values = forward({**question.feeds, **at})
        for value, slope in engine.multipliers(values, question.seed, list(ends)).items():
            sums[value] += slope
    parts = [(end - starts[v]) * sums[v] / steps for v, end in ends.items()]
    return question.per_unit(np.sum(parts, axis=0))


def _varied(question: Question) -> list[ir.Value]:
    """The rows that are looked up for the explained input, or that input."""
    analysis = question.engine.planned.analysis
    lookups = analysis.inputs.lookups.items()
    rows = [node.outputs[0] for node, name in lookups if name == question.explained]
    return rows or [v for v in analysis.model.graph.inputs if v.name == question.explained]


def _starts(
    question: Question, values: list[ir.Value], unknown: int | None
) -> dict[ir.Value, Array]:
    if unknown is None:
        return {v: np.zeros_like(question.values[v.name or ""]) for v in values}
    ids = np.full_like(question.feeds[question.explained], unknown)
    found = question.engine.forward({**question.feeds, question.explained: ids})
    return {v: found[v.name or ""] for v in values}
