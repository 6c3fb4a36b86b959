"""Units of a grid that the reader knows: those beyond it are padding, and not on the map."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from building import Array, ints, opened, proto, real

from palrp_onnx import Explainer
from palrp_onnx.describe import Explanation
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.jobs.batcher import _form
from palrp_onnx.record import InputFacts, Units

F, KEPT, ALL = 6, 4, 6
PATCHES = real(1, KEPT, 12)
BODY = """
    e = MatMul(a, w)  x = Add(e, p)
    q = MatMul(x, v)  t = Transpose<perm=[0, 2, 1]>(x)  s = MatMul(q, t)
    open = Cast<to=9>(m)  row = Where(open, nothing, low)  bias = Unsqueeze(row, one)
    b = Add(s, bias)  c = Softmax<axis=-1>(b)  o = MatMul(c, x)
    n = Cast<to=1>(m)  k = Unsqueeze(n, last)  z = Mul(o, k)
    h = ReduceSum<keepdims=0>(z, one)  y = MatMul(h, head)
"""


def explained(number: int, mask: list[int], engine: Literal["numpy", "onnxruntime"]) -> Explanation:
    weights: dict[str, Array] = {
        "w": real(12, F),
        "v": real(F, F, seed=3),
        "p": real(ALL, F, seed=4)[:number],
        "head": real(F, 3, seed=2),
        "one": ints(1),
        "last": ints(-1),
        "nothing": np.float32(0),
        "low": np.float32(-1e9),
    }
    patches = np.pad(PATCHES, ((0, 0), (0, number - KEPT), (0, 0)))
    feeds = {"a": patches, "m": np.array([mask])}
    model = opened(proto(BODY, feeds, weights))
    units = Units(kind="patch", grid=(2, 2))
    sample = Sample("a", "image", feeds, InputFacts(kind="image"), units=units, subject="a")
    (found,) = Explainer(model.path, engine=engine).explain(sample, "1")
    return found


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
def test_padding_is_not_on_the_map(engine: Literal["numpy", "onnxruntime"]) -> None:
    whole = explained(KEPT, [1] * KEPT, engine).record
    padded = explained(ALL, [1] * KEPT + [0] * (ALL - KEPT), engine).record
    assert padded.units == whole.units == Units(kind="patch", grid=(2, 2))
    for name in ("content", "position", "total"):
        one, other = getattr(padded.relevance, name), getattr(whole.relevance, name)
        np.testing.assert_allclose(one, other, atol=1e-5)
    for site, same in zip(padded.sites, whole.sites, strict=True):
        np.testing.assert_allclose(site.relevance, same.relevance, atol=1e-5)
        assert site.off_map == pytest.approx(0, abs=1e-6)
    assert np.sum(padded.relevance.content) == pytest.approx(padded.ledger["content"], abs=1e-5)


def test_only_images_of_one_grid_are_joined() -> None:
    def sample(*grid: int) -> Sample:
        units = Units(kind="patch", grid=(grid[0], grid[1]))
        return Sample("a", "image", {"a": PATCHES}, InputFacts(kind="image"), units=units)

    keys = [_form(sample(*grid), "a", fixed=True) for grid in ((2, 2), (2, 2), (4, 1))]
    assert (keys[0] == keys[1], keys[0] == keys[2]) == (True, False)
