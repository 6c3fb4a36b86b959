"""Norms over groups of channels: the runtime, a second derivation of the rule, and both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from building import Array, opened, proto, real, run, wide
from checking import compare, single
from onnx import helper

from palrp_onnx import Explainer, Model
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

pytestmark = pytest.mark.quick

B, C, G = 2, 6, 3
IMAGE = real(B, C, 4, 5, seed=3)
SERIES = real(B, C, 7, seed=4)
GAMMA, BETA = real(C, seed=5), real(C, seed=6)
EPSILON = 0.25


def same(x: Array) -> Array:
    """Weights of a convolution that changes nothing; it says which axis has the channels."""
    return np.eye(C, dtype=np.float32).reshape(C, C, *(1,) * (x.ndim - 2))


def derived(x: Array, m: Array, gamma: Array) -> Array:
    """Multiplier of x: in each group diag(1/σ) (I − 1/n) with σ a constant, after γ."""
    result = np.empty(x.shape)
    for sample, group in np.ndindex(len(x), G):
        own = slice(group * C // G, (group + 1) * C // G)
        rows = wide(x[sample, own]).ravel()
        spread = np.repeat(wide(gamma[own]), rows.size // (C // G))
        u = m[sample, own].ravel() * spread / np.sqrt(rows.var() + EPSILON)
        result[sample, own] = (u - u.mean()).reshape(x[sample, own].shape)
    return result


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("x", [IMAGE, SERIES], ids=["image", "series"])
def test_group_normalization(x: Array, opset: int, tmp_path: Path) -> None:
    numbers = C if opset == 21 else G
    weights = {"g": GAMMA[:numbers], "b": BETA[:numbers]}
    more: dict[str, Any] = {"num_groups": G, "epsilon": EPSILON}
    names = ["x", "g", "b"]
    model = single(
        "GroupNormalization", names, {"x": x}, weights=weights, domain="", opset=opset, **more
    )
    compare(model, {"x": x}, tmp_path)
    found = run(
        f"h = Conv(x, same)  y = GroupNormalization<num_groups={G}, epsilon={EPSILON}>(h, g, b)",
        x,
        {**weights, "same": same(x)},
        opset=opset,
    )
    gamma = GAMMA if opset == 21 else np.repeat(GAMMA[:G], C // G)
    np.testing.assert_allclose(found.multiplier, derived(x, found.seed, gamma), rtol=1e-9)
    assert found.residual < 1e-12


def by_hand(x: Array, activation: int) -> Array:
    """[B, C, ..] in float64."""
    rows = wide(x).reshape(B, G, -1)
    normed = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + EPSILON)
    y = normed.reshape(x.shape) * GAMMA[:, None, None] + BETA[:, None, None]
    return np.asarray(y / (1 + np.exp(-y)) if activation else y)


SKIPS = {"places": real(B, C, 4, 5, seed=8), "channels": real(B, C, seed=9)}


@pytest.mark.parametrize("activation", [0, 1])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("skip", [None, *SKIPS])
def test_norms_without_a_kernel_on_cpus(
    skip: str | None, last: int, activation: int, tmp_path: Path
) -> None:
    turned = (lambda a: np.moveaxis(a, 1, -1).copy()) if last else (lambda a: a)
    weights = {"g": GAMMA, "b": BETA}
    if skip is not None:
        weights["s"] = turned(SKIPS[skip]) if skip == "places" else SKIPS[skip]
    body = f"""h = Conv(x, same)  {"t = Transpose <perm=[0, 2, 3, 1]> (h)" if last else ""}
        y = com.microsoft.{"SkipGroupNorm" if skip else "GroupNorm"}
        <groups={G}, epsilon={EPSILON}, channels_last={last}, activation={activation}>
        ({"t" if last else "h"}, g, b{", s" if skip else ""})
        z = ReduceMean <keepdims=0> (y, places)"""
    weights["places"] = np.array([1, 2] if last else [2, 3])
    made = proto(body, {"x": IMAGE}, {**weights, "same": same(IMAGE)}, outputs=["z"])
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model = opened(made)
    total = IMAGE + (SKIPS[skip].reshape(B, C, *SKIPS[skip].shape[2:] or (1, 1)) if skip else 0)
    expected = by_hand(total, activation).mean((2, 3))
    sample = Sample("x", "tensors", {"x": IMAGE}, InputFacts(kind="tensors", truncated=False))
    for options in ({}, {"engine": "numpy"}, {"dtype": "float64"}):
        found = Explainer(model.path, **options).explain(sample, "index:1")
        for each, row in zip(found, expected, strict=True):
            np.testing.assert_allclose(each.record.target.value, row[1], rtol=1e-4)
            ledger = each.record.ledger
            assert abs(ledger["residual_relative"]) < 1e-5
            assert skip is not None or ledger["position"] == 0
            assert each.record.fidelity is not None
            assert each.record.fidelity.unverified


def test_samples_of_a_group_norm_are_separate() -> None:
    weights = {"g": GAMMA, "b": BETA, "places": np.array([2, 3]), "same": same(IMAGE)}
    body = (
        f"n = GroupNormalization<num_groups={G}>(x, g, b)  y = ReduceMean <keepdims=0> (n, places)"
    )
    model: Model = opened(proto(body, {"x": IMAGE}, weights, opset=21))
    facts = InputFacts(kind="tensors", truncated=False)
    explainer = Explainer(model, dtype="float64")
    both = explainer.explain(Sample("x", "tensors", {"x": IMAGE}, facts), "index:1")
    for row, found in enumerate(both):
        sample = Sample("x", "tensors", {"x": IMAGE[row : row + 1]}, facts)
        (alone,) = explainer.explain(sample, "index:1")
        np.testing.assert_allclose(
            found.record.relevance.content, alone.record.relevance.content, rtol=1e-9
        )
