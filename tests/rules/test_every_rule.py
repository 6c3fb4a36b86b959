"""Every rule against a second derivation, through the whole path, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from building import gradient, opened, proto, wide
from rough_gradient import rough_gradient
from rule_cases import CASES, GRADIENT_CASES, STATED_CASES, Case, usual, walked

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts
from palrp_onnx.rules import find_rule, supported


@pytest.mark.quick
def test_every_rule_is_in_the_table() -> None:
    tried = set()
    for case in CASES:
        entry = find_rule("", case.op, case.opset)
        assert entry is not None, case.op
        tried.add(("", case.op, entry.since))
    assert tried == set(supported())


@pytest.mark.quick
@pytest.mark.parametrize("case", STATED_CASES, ids=str)
def test_multiplier_is_as_stated(case: Case) -> None:
    found = usual(case)
    assert case.law is not None
    weights = {k: wide(v) if v.dtype.kind == "f" else v for k, v in case.weights.items()}
    expected = case.law(wide(case.feed), found.y, found.seed, weights)
    tolerance = 1e-6 if case.dtype == "float64" else 1e-4
    np.testing.assert_allclose(found.multiplier, expected, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("case", GRADIENT_CASES, ids=str)
def test_multiplier_is_the_gradient(case: Case) -> None:
    found = usual(case)
    if case.dtype == "float64":
        np.testing.assert_allclose(found.multiplier, gradient(found), rtol=1e-6, atol=1e-7)
    else:  # a step as large as the numbers: these cases are linear
        slopes = rough_gradient(found)
        np.testing.assert_allclose(found.multiplier, slopes, rtol=1e-4, atol=1e-4)


@pytest.mark.quick
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_ledger_closes(case: Case) -> None:
    assert usual(case).residual < (1e-12 if case.dtype == "float64" else 1e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_rule_is_visited_and_float32_agrees(case: Case) -> None:
    rough, exact = walked(case, dtype="float32"), usual(case)
    steps = rough.planned.plan.steps
    assert case.op in {step.node.op_type for step in steps}
    np.testing.assert_allclose(rough.y, exact.y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rough.content, exact.content, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_emitted_rule_computes_the_same(case: Case) -> None:
    """One place of the output after another, through both engines."""
    model = opened(
        proto(case.body, {"x": case.feed}, case.weights, opset=case.opset, free=case.free)
    )
    sample = Sample("x", "tensors", {"x": case.feed}, InputFacts(kind="tensors"))
    shape = usual(case).y.shape
    if len(shape) < 2 or shape[0] != len(case.feed):
        pytest.skip("the output has no element in every sample")
    numpy, compiled = Explainer(model, engine="numpy"), Explainer(model)
    for place in (0.0, 0.5, 0.99):
        target = ",".join(str(int(place * size)) for size in shape[1:])
        expected, found = (e.explain(sample, target) for e in (numpy, compiled))
        for ours, reference in zip(found, expected, strict=True):
            for name, array in reference.tensors.items():
                scale = max(np.abs(array).max(), 1e-6)
                np.testing.assert_allclose(ours.tensors[name], array, atol=1e-4 * scale)
