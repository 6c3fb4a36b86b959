"""Swin: the map of positions against places that PyTorch's own windows and merges are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from once import made_once
from recorded import reduced

from palrp_onnx import Explainer
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

SIZE, PATCH, WINDOW = 64, 4, 4
CONFIG: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": PATCH,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": WINDOW,
}


def exported(name: str, folder: Path) -> Path:
    def export(place: Path) -> None:
        torch.manual_seed(3)
        config = getattr(transformers, f"{name}Config")(**CONFIG)
        config._attn_implementation = "eager"
        model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.15)
        torch.onnx.export(
            _Logits(model),
            (torch.randn(2, 3, SIZE, SIZE),),
            str(place / "model.onnx"),
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes={"pixel_values": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )

    return made_once(folder / f"windows-{name}", export) / "model.onnx"


class _Logits(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Any) -> Any:
        return self.model(pixel_values).logits


def shares(layer: int) -> np.ndarray[Any, Any]:
    """Share of every patch in every place of a layer [windows × places, patches]."""
    from transformers.models.swin.modeling_swin import window_partition

    side = SIZE // PATCH
    units = torch.eye(side * side).reshape(1, side, side, side * side)
    stage, block = divmod(layer, 2)
    if stage:  # a merged place is made of two by two patches
        units = torch.nn.functional.avg_pool2d(units.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    if block:
        units = torch.roll(units, (-WINDOW // 2, -WINDOW // 2), dims=(1, 2))
    windows = window_partition(units, WINDOW)
    return np.asarray(windows.reshape(-1, side * side), np.float64)


@pytest.mark.parametrize("name", ["Swin", "Swinv2"])
def test_positions_are_at_their_patches(name: str, tmp_path_factory: Any) -> None:
    path = exported(name, tmp_path_factory.getbasetemp().parent)
    pixels = np.random.default_rng(0).normal(size=(2, 3, SIZE, SIZE)).astype(np.float32)
    sample = Sample("x", "tensors", {"pixel_values": pixels}, InputFacts(kind="tensors"))
    slow = Explainer(path, engine="numpy").explain(sample, "1")
    fast = Explainer(path).explain(sample, "1")
    for found, compiled in zip(slow, fast, strict=True):
        expected = np.zeros((SIZE // PATCH) ** 2)
        assert len(found.record.sites) == 8
        for site in found.record.sites:
            places = found.tensors[site.name][0].astype(np.float64)
            moved = shares(site.layer)
            expected += moved.T @ np.maximum(places, 0).sum(axis=1)
            signed = moved.T @ places.sum(axis=1)
            close = 1e-5 * np.abs(places).sum()
            np.testing.assert_allclose(site.relevance, signed, atol=close)
            assert sum(site.relevance) == pytest.approx(places.sum(), abs=close)
        close = 1e-5 * expected.sum()
        np.testing.assert_allclose(reduced(found.record.relevance), expected, atol=close)
        np.testing.assert_allclose(reduced(compiled.record.relevance), expected, atol=10 * close)
        assert "unaligned-site" not in [w.code for w in found.record.warnings]
