"""Gradients and attention of exported models against PyTorch's own, for the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
from building import Array

from palrp_onnx import Model
from palrp_onnx.evaluate.baselines import BASELINES, Baseline
from palrp_onnx.relevance.target_parsing import parse_target

torch = pytest.importorskip("torch")

#: name → where the target is read from: a class token, the last token, a class token of an image.
FAMILIES = {"bert": 0, "llama-tc": 6, "vit": 0}
TARGET = "1"


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, shared: Path) -> tuple[str, Any, Path, dict[str, Array]]:
    """Name, model in PyTorch in float64, the exported file, and one sample of seven tokens."""
    path, model = families.exported(request.param, 18, shared), families.build(request.param)
    model.set_attn_implementation("eager")
    feeds = families.feeds_for(Model.open(path), tokens=7)
    return request.param, model.double(), path, {key: array[:1] for key, array in feeds.items()}


def differentiated(model: Any, feeds: dict[str, Array]) -> tuple[Array, list[Array], list[Array]]:
    """Gradient × input, and attention with its gradients, layer by layer."""
    caught: list[Any] = []

    def start_here(module: Any, given: Any, rows: Any) -> Any:
        caught.append(rows.detach().requires_grad_(True))
        return caught[-1]

    given = {key: torch.from_numpy(array) for key, array in feeds.items()}
    if "pixel_values" in given:
        caught.append(given["pixel_values"].double().requires_grad_(True))
        given["pixel_values"] = caught[-1]
    else:
        model.get_input_embeddings().register_forward_hook(start_here)
    found = model(**given, output_attentions=True)
    layers = list(found.attentions)
    slope, *slopes = torch.autograd.grad(found.logits[0, 1], [caught[-1], *layers])
    numbers = [layer.detach().numpy() for layer in layers]
    return (slope * caught[-1]).detach().numpy(), numbers, [s.numpy() for s in slopes]


def test_gradients_and_attention(pair: tuple[str, Any, Path, dict[str, Array]]) -> None:
    name, torched, path, feeds = pair
    expected, attention, slopes = differentiated(torched, feeds)
    model, target, row = Model.open(path), parse_target(TARGET), FAMILIES[name]
    engine = Baseline(model, BASELINES["ig"], dtype="float64").engine(feeds)
    outcome = engine.explain(feeds, target)
    found = outcome.tensors["pixels" if name == "vit" else "content"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert abs(outcome.ledger["residual_relative"]).max() < 1e-10

    rolled = weighed = np.eye(attention[0].shape[-1])
    for a, slope in zip(attention, slopes, strict=True):
        mixed = 0.5 * a[0].mean(axis=0) + 0.5 * np.eye(len(rolled))
        rolled = mixed / mixed.sum(axis=-1, keepdims=True) @ rolled
        weighed = weighed + np.maximum(a[0] * slope[0], 0.0).mean(axis=0) @ weighed
    prefix = 1 if name == "vit" else 0
    for method, matrix in (("rollout", rolled), ("chefer", weighed)):
        (ours,) = Baseline(model, BASELINES[method], dtype="float64").map(feeds, target)
        np.testing.assert_allclose(ours, matrix[row, prefix:], rtol=1e-5, err_msg=method)
