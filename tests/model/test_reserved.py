"""Names that ONNX Runtime makes itself, in files that it has saved."""

from __future__ import annotations

import numpy as np
import onnx
from building import ints, opened, proto, real

from palrp_onnx.runtime.forward import RuntimeForward

X = real(2, 3, 4)
NAME = "InsertedPrecisionFreeCast_w"


def saved(kind: str) -> onnx.ModelProto:
    """A graph with a weight, or a converted weight, of such a name."""
    weights = {"w": real(4), "axes": ints(-1)}
    if kind == "weight":
        made = proto("h = Mul(x, v)  y = ReduceSum(h, axes)", {"x": X}, weights)
        made.graph.initializer[0].name = NAME
        made.graph.node[0].input[1] = NAME
    else:
        body = "c = Cast<to=1>(w)  h = Mul(x, c)  y = ReduceSum(h, axes)"
        made = proto(body, {"x": X}, {**weights, "w": weights["w"].astype(np.float16)})
        made.graph.node[0].output[0] = made.graph.node[1].input[1] = NAME
    return made


def test_they_are_free() -> None:
    for kind in ("weight", "conversion"):
        model = opened(saved(kind))
        names = {v.name for node in model.graph for v in (*node.inputs, *node.outputs) if v}
        assert not any((name or "").startswith("Inserted") for name in names)
        found = RuntimeForward(model, ["y"])({"x": X})["y"]
        np.testing.assert_allclose(found, (X * real(4)).sum(-1, keepdims=True), rtol=1e-2)


def test_inputs_and_outputs_keep_theirs() -> None:
    made = proto("y = Neg(x)", {"x": X})
    made.graph.input[0].name = made.graph.node[0].input[0] = NAME
    assert [s.name for s in opened(made).inputs] == [NAME]
