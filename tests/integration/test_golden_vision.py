"""Agreement with the PA-LRP code for vision transformers, per feature and per pixel.

That code seeds 1 at the class and stabilises every denominator with an ε. They alone account for
what is left: with those of residual sums, norms and attention put in, its values are met to 2e-5.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from committed import GOLDEN
from numpy.typing import NDArray

from palrp_onnx import Explainer
from palrp_onnx.analysis.roles import Role
from palrp_onnx.engines import NumpyEngine
from palrp_onnx.relevance.linear_layers import attention_layers
from palrp_onnx.relevance.plan import Plan, Step
from palrp_onnx.relevance.result import RawRelevance
from palrp_onnx.relevance.walk import _Walk
from palrp_onnx.runtime.forward import ReferenceForward

Array = NDArray[Any]
CASE = GOLDEN / "palrp_deit_tiny"
MODEL = GOLDEN / "palrp_vision_eval" / "model.onnx"
EXPECTED = np.load(CASE / "expected.npz")
FEEDS = {"pixel_values": np.load(CASE / "pixel_values.npz")["pixel_values"]}
CLASSES = ["pred", "second"]
#: The settings of the tables, and of the figures.
METHODS = {"pa-lrp-gamma": "full", "pa-lrp-alpha": "demo"}
EXACT = 2e-5
TOLERANCE = 1.5e-3
PATCHES, SIDE = 14, 16


@cache
def opened(method: str, dtype: str) -> tuple[NumpyEngine, dict[str, Array]]:
    engine = Explainer(MODEL, engine="numpy", method=method, dtype=dtype).engine(FEEDS)
    assert isinstance(engine, NumpyEngine)
    return engine, engine.forward(FEEDS)


@cache
def every_value() -> dict[str, Array]:
    """All forward values in float64."""
    engine, _ = opened("pa-lrp-gamma", "float64")
    analysis = engine.planned.analysis
    names = [v.name for v in analysis.content if v.name and v.producer() is not None]
    return ReferenceForward(analysis.model, names)(FEEDS)


def propagated(method: str, which: str, dtype: str) -> tuple[RawRelevance, Array]:
    """Relevance for 1 at a class, and that of the rows before positions are added."""
    engine, values = opened(method, dtype)
    output = values[engine.planned.output]
    seed = np.zeros(output.shape)
    index = int(EXPECTED[f"{which}_index"])
    seed[0, index] = 1 / output[0, index]
    (site,) = engine.planned.sites
    node, operand = site.operand
    rows = node.inputs[1 - operand]
    assert rows is not None
    m = engine.multipliers(values, seed, [rows])[rows]
    return engine.propagate(values, seed), m[0] * every_value()[rows.name or ""][0]


def close(ours: Array, reference: Array, tolerance: float) -> None:
    assert ours.shape == reference.shape
    assert np.abs(ours - reference).max() <= tolerance * np.abs(reference).max()


def compare(method: str, which: str, dtype: str, tolerance: float) -> None:
    relevance, rows = propagated(method, which, dtype)
    kind = METHODS[method]
    (table,) = relevance.sinks
    assert (table.kind, table.part) == ("learned", "table")
    close(table.relevance[0], EXPECTED[f"{which}_{kind}_pos_feat"], tolerance)
    close(rows, EXPECTED[f"{which}_{kind}_sem_feat"], tolerance)
    if kind == "demo":
        return
    position = table.relevance[0, 1:].sum(axis=-1).reshape(PATCHES, PATCHES) / SIDE**2
    spread = position.repeat(SIDE, axis=0).repeat(SIDE, axis=1)
    pixels = relevance.content[0].sum(axis=0)
    maps = {"ours": pixels + spread, "attnlrp": pixels, "pe_only": spread}
    for name, found in maps.items():
        if f"{which}_map_{name}" in EXPECTED:
            close(np.maximum(found, 0)[::4, ::4], EXPECTED[f"{which}_map_{name}"], tolerance)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("which", CLASSES)
@pytest.mark.parametrize("method", METHODS)
def test_content_and_positions(method: str, which: str, dtype: str) -> None:
    compare(method, which, dtype, TOLERANCE)


@pytest.mark.parametrize("which", CLASSES)
@pytest.mark.parametrize("method", METHODS)
def test_the_reference_epsilon_explains_the_rest(
    method: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R / (y + ε) is m · y / (y + ε)."""
    engine, _ = opened(method, "float64")
    plan, visit = engine.planned.plan, _Walk._visit
    inside = biases_inside(plan)
    values = every_value()  # opened before the walk is another

    def damped(self: Any, step: Step, sent: list[Any]) -> None:
        epsilon = reference_epsilon(plan, step.node, METHODS[method], inside)
        if epsilon and sent[0] is not None:
            y, (first, *rest) = values[step.node.outputs[0].name or ""], sent
            y = y if first.rows is None else first.rows.take(self._op, y)
            sent = [replace(first, m=first.m * y / (y + epsilon)), *rest]
        visit(self, step, sent)

    monkeypatch.setattr(_Walk, "_visit", damped)
    compare(method, which, "float64", EXACT)


def biases_inside(plan: Plan) -> set[ir.Node]:
    """Sums that add the bias of a layer of attention."""
    layers = attention_layers(plan.analysis) & plan.biases.keys()
    return {node for layer in layers for node, _ in layer.outputs[0].uses()}


def reference_epsilon(plan: Plan, node: ir.Node, kind: str, inside: set[ir.Node]) -> float:
    """What the reference adds to the denominator of a node."""
    roles = [plan.analysis.operands.get((node, k)) for k in range(len(node.inputs))]
    active = all(r is not None and r.role in (Role.CONTENT, Role.POSITION) for r in roles)
    if node.op_type == "LayerNormalization":
        return node.attributes.get_float("epsilon", 1e-5)
    if kind == "demo":
        return 0.0
    if node.op_type == "Add" and active:
        return 1e-6
    if node.op_type == "MatMul" and active:
        return 5e-7
    return 1e-8 if node in inside else 0.0


@pytest.mark.parametrize("method", METHODS)
def test_the_halves_that_are_dropped_are_in_the_ledger(method: str) -> None:
    relevance, _ = propagated(method, "pred", "float64")
    assert np.abs(relevance.ledger["residual_relative"]).max() < 1e-12
    assert np.abs(relevance.ledger["softmax"]).min() > 0.1


def test_the_baseline_has_the_same_content() -> None:
    with_positions, _ = propagated("pa-lrp-gamma", "pred", "float64")
    alone, _ = propagated("attnlrp-gamma", "pred", "float64")
    np.testing.assert_array_equal(alone.content, with_positions.content)
