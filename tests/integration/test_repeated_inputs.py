"""An input that is as long as another in one call may be of length one, and repeated, in the next.

Which it is shows in the arrays alone: in the graph both lengths are open.
"""

from __future__ import annotations

import numpy as np
import pytest
from building import Array, ints, opened, proto, real

from palrp_onnx import Explainer, Model
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import InputFacts

F = 4
WEIGHTS = {"words": real(20, F), "mix": real(F, F), "last": real(F, F, seed=2), "one": ints(1)}
REPEATED = {
    "Add": "s = Add(e, d)",
    "Mul": "s = Mul(e, d)",
    "Expand": "n = Shape(e)  x = Expand(d, n)  s = Add(e, x)",
}


def _model(how: str) -> Model:
    body = (
        f"e = Gather(words, ids)  c = MatMul(other, mix)  d = Relu(c)  {REPEATED[how]}  "
        "l = MatMul(s, last)  r = Relu(l)  y = ReduceMean<keepdims=0>(r, one)"
    )
    model = proto(body, _feeds(3), WEIGHTS, free=(0, 1))
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "others"
    return opened(model)


def _feeds(length: int) -> dict[str, Array]:
    return {"ids": ints([1, 2, 3], [4, 5, 6]), "other": real(2, length, F, seed=5)}


@pytest.mark.parametrize("how", REPEATED)
@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_what_is_repeated_gets_the_sum(how: str, engine: str) -> None:
    explainer = Explainer(_model(how), engine=engine)

    def explain(other: Array) -> list[tuple[list[float], list[float]]]:
        feeds = {**_feeds(3), "other": other}
        given = Sample("x", "tensors", feeds, InputFacts(kind="tensors"))
        records = [each.record for each in explainer.explain(given, "0")]
        return [(r.relevance.total, (r.others or [])[0].relevance.total) for r in records]

    one = _feeds(1)["other"]
    repeated, single = explain(one.repeat(3, axis=1)), explain(one)
    for (own, several), (same, summed) in zip(repeated, single, strict=True):
        np.testing.assert_allclose(same, own, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(summed, [np.sum(several)], rtol=1e-4, atol=1e-5)
