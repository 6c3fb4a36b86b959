"""``DynamicQuantizeLSTM`` and quantised rows that are moved before they become real numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from building import Array, ints, opened, proto, real
from checking import compare, model, ms, node
from onnxruntime.quantization import quantize_dynamic

from palrp_onnx import Explainer, Model
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Attribution, InputFacts

FEATURES, H = 5, 4
X = real(6, 2, FEATURES, seed=9)


def stored(numbers: Array, *, channels: bool) -> tuple[Array, Array, Array]:
    """Weights [D, 4 H, features] as bytes [D, features, 4 H], with scales and zero points.

    With a scale for every channel the kernel only takes zero points that are zero.
    """
    moved = numbers.transpose(0, 2, 1)
    axes = (1,) if channels else (1, 2)
    low, high = np.minimum(moved.min(axes), 0), np.maximum(moved.max(axes), 0)
    if channels:
        scale, kind = np.maximum(-low, high) / 127, np.int8
        zero = np.zeros(scale.shape)
    else:
        scale, kind = (high - low) / 255, np.uint8
        zero = np.rint(-low / scale)
    steps = moved / np.expand_dims(scale, axes) + np.expand_dims(zero, axes)
    return np.rint(steps).astype(kind), scale.astype(np.float32), zero.astype(kind)


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("outputs", ["y h c", "_ h _", "_ _ c"])
def test_the_same_as_the_kernel(
    channels: bool, direction: str, outputs: str, tmp_path: Path
) -> None:
    d = 2 if direction == "bidirectional" else 1
    w = stored(real(d, 4 * H, FEATURES, seed=1, low=-0.6, high=0.6), channels=channels)
    r = stored(real(d, 4 * H, H, seed=2, low=-0.6, high=0.6), channels=channels)
    names = [f"{letter}{part}" for letter in "wr" for part in ("", "s", "z")]
    weights = dict(zip(names, (*w, *r), strict=True)) | {"b": real(d, 8 * H, seed=3)}
    made = ms(
        "DynamicQuantizeLSTM",
        "x w r b _ _ _ _ ws wz rs rz",
        outputs.replace("_", "none"),
        hidden_size=H,
        direction=direction,
    )
    for k, name in enumerate(made.output):
        made.output[k] = name.replace("none", "")
    names = [name for name in outputs.split() if name != "_"]
    whole = model([made], {"x": X}, weights, outputs=names)
    lowered = compare(whole, {"x": X}, tmp_path, tolerance=3e-2)
    assert "com.microsoft.DynamicQuantizeLSTM" in lowered.lowered


def explained(model: Model, ids: Array, **options: str) -> list[Attribution]:
    given = Sample("x", "tensors", {"ids": ids}, InputFacts(kind="tensors"))
    return [e.record for e in Explainer(model, **options).explain(given, "1")]


def classifier(folder: Path) -> Path:
    """Words, an LSTM and a linear layer, quantised as exporters do."""
    body = """
        e = Gather(table, ids)  t = Transpose<perm=[1, 0, 2]>(e)
        a, h = LSTM<hidden_size=4>(t, w, r, b)  s = Squeeze(h, first)  y = Gemm(s, v, c)
    """
    weights = {
        "table": real(30, FEATURES, seed=4),
        "w": real(1, 4 * H, FEATURES, seed=1),
        "r": real(1, 4 * H, H, seed=2),
        "b": real(1, 8 * H, seed=3),
        "first": ints(0),
        "v": real(H, 3),
        "c": real(3),
    }
    source, path = folder / "real.onnx", folder / "model.onnx"
    onnx.save(proto(body, {"ids": ids()}, weights, free=(0, 1)), source)
    quantize_dynamic(source, path)
    return path


def ids() -> Array:
    return ints([3, 9, 17, 4, 8], [21, 2, 6, 29, 1])


def test_a_quantised_classifier_is_explained_as_it_runs(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    names = {n.op_type for n in onnx.load(path).graph.node}
    assert {"DynamicQuantizeLSTM", "DequantizeLinear"} <= names
    found = [
        explained(Model.open(path), ids(), **options)
        for options in ({}, {"engine": "numpy"}, {"engine": "numpy", "dtype": "float64"})
    ]
    whole = explained(Model.open(tmp_path / "real.onnx"), ids())
    for records in zip(*found, whole, strict=True):
        *quantised, exact = records
        for one in quantised:
            assert one.fidelity.difference < 1e-5
            assert abs(one.ledger["residual_relative"]) < 1e-5
            assert abs(one.ledger["kernel"]) < 0.05 * abs(one.target.value)
            ours, theirs = (np.array(r.relevance.total) for r in (one, exact))
            assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


def test_rows_are_dequantised_before_they_are_moved(tmp_path: Path) -> None:
    weights = {
        "q": np.arange(-60, 60, dtype=np.int8).reshape(30, 4),
        "s": np.array(0.25, np.float32),
        "z": np.array(3, np.int8),
    }
    made = [
        node("Gather", "q ids", "g"),
        node("Transpose", "g", "t", perm=[1, 0, 2]),
        node("Unsqueeze", "t one", "u"),
        node("DequantizeLinear", "u s z", "y"),
    ]
    compare(model(made, {"ids": ids()}, weights | {"one": ints(1)}), {"ids": ids()}, tmp_path)
    moved = "g = Gather(q, ids)  t = Transpose<perm=[0, 2, 1]>(g)  d = DequantizeLinear(t, s, z)"
    whole = "g = Gather(q, ids)  d = DequantizeLinear(g, s, z)  t = Transpose<perm=[0, 2, 1]>(d)"
    bodies = (f"{moved}  y = Flatten(d)", f"{whole}  y = Flatten(t)")
    ours, theirs = (
        explained(opened(proto(body, {"ids": ids()}, weights, free=())), ids()) for body in bodies
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.relevance.total == other.relevance.total
        assert any(one.relevance.total)
