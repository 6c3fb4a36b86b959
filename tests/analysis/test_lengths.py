"""Lengths that follow from numbers, in files where inputs have fixed lengths."""

from __future__ import annotations

import numpy as np
import pytest
from building import Array, ints, opened, proto, real

from palrp_onnx import Explainer
from palrp_onnx.analysis.lengths import follow_from_numbers
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

T, F = 8, 6
WEIGHTS = {
    "words": real(30, F, seed=1),
    "places": real(1, T, F, seed=2),
    "mix": real(F, F, seed=3),
    "head": real(F, 3, seed=4),
    "none": np.array(0, np.int64),
    "step": np.array(1, np.int64),
    "zero": ints(0),
    "one": ints(1),
    "flat": ints(-1),
    "scale": real(F, seed=5),
    "shift": real(F, seed=6),
}
CUTS = {
    "slice": "n = ReduceSum<keepdims=0>(mask)  k = Unsqueeze(n, zero)  c = Slice(x, zero, k, one)",
    "range": "n = ReduceSum<keepdims=0>(mask)  r = Range(none, n, step)  c = Gather<axis=1>(x, r)",
    "compress": "b = Cast<to=9>(mask)  f = Reshape(b, flat)  c = Compress<axis=1>(x, f)",
    "nothing": "f = Cast<to=1>(mask)  u = Unsqueeze(f, two)  c = Mul(x, u)",
    "its shape": "s = Shape(mask)  q = Concat<axis=0>(s, flat)  c = Reshape(x, q)",
}


def _body(cut: str) -> str:
    return (
        f"e = Gather(words, ids)  x = Add(e, places)  {CUTS[cut]}  m = MatMul(c, mix)  "
        "a = Relu(m)  l = LayerNormalization(a, scale, shift)  "
        "p = ReduceMean<keepdims=0>(l, one)  y = MatMul(p, head)"
    )


def _feeds(kept: int) -> dict[str, Array]:
    mask = (np.arange(T) < kept).astype(np.int64)[None]
    return {"ids": ints(list(range(3, 3 + T))), "mask": mask}


@pytest.mark.parametrize("cut", CUTS)
def test_the_graph_takes_no_length_for_fixed_that_numbers_decide(cut: str) -> None:
    model = opened(proto(_body(cut), _feeds(T), {**WEIGHTS, "two": ints(2)}, free=()))
    assert follow_from_numbers(model.graph) is (cut in ("slice", "range", "compress"))
    compiled, eager = Explainer(model), Explainer(model, engine="numpy", dtype="float64")
    for kept in (T, 6, 3, 1):
        given = Sample("x", "tensors", _feeds(kept), InputFacts(kind="tensors"))
        maps = [each.explain(given, "0")[0].record.relevance.total for each in (compiled, eager)]
        np.testing.assert_allclose(*maps, atol=1e-4 * np.abs(maps[1]).max())
