"""Integrated gradients (Sundararajan et al. 2017)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.types import Array

STEPS = 32


def integrated_gradients(
    given: BaselineInput, *, steps: int = STEPS, unknown: int | None = None
) -> Array:
    """(x − x₀) ∘ mean of the gradients between the baseline x₀ and x, summed to [B, units].

    x is the embedding of the tokens, before anything is added to it, or the image itself. Gradients
    are computed in the middle of every step. Up to the error of the finite steps, a map sums to the
    target at x minus the target at x₀.

    Args:
        given: Input and target.
        steps: Number of steps.
        unknown: Id of the token whose embedding is the baseline; zeros by default. If a norm
            follows the embedding directly, as in Llama, the model changes abruptly near zero, which
            a small number of steps does not resolve.
    """
    ends = {v: given.values[v.name or ""] for v in _varied(given)}
    starts = _starts(given, list(ends), unknown)
    engine = given.engine
    looked_up = [v.name or "" for v in ends if not v.is_graph_input()]
    forward = engine.forward_from(looked_up) if looked_up else engine.forward
    sums = {v: np.zeros(end.shape) for v, end in ends.items()}
    for step in range(steps):
        share = (step + 0.5) / steps
        at = {v.name or "": starts[v] + share * (end - starts[v]) for v, end in ends.items()}
        values = forward({**given.feeds, **at})
        for value, slope in engine.multipliers(values, given.seed, list(ends)).items():
            sums[value] += slope
    parts = [(end - starts[v]) * sums[v] / steps for v, end in ends.items()]
    return given.per_unit(np.sum(parts, axis=0))


def _varied(given: BaselineInput) -> list[ir.Value]:
    """The embeddings that are looked up for the explained input, or the input itself."""
    analysis = given.engine.planned.analysis
    lookups = analysis.inputs.lookups.items()
    rows = [node.outputs[0] for node, name in lookups if name == given.explained]
    return rows or [v for v in analysis.model.graph.inputs if v.name == given.explained]


def _starts(
    given: BaselineInput, values: list[ir.Value], unknown: int | None
) -> dict[ir.Value, Array]:
    if unknown is None:
        return {v: np.zeros_like(given.values[v.name or ""]) for v in values}
    ids = np.full_like(given.feeds[given.explained], unknown)
    found = given.engine.forward({**given.feeds, given.explained: ids})
    return {v: found[v.name or ""] for v in values}
