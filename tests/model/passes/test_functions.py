"""Operations that the standard defines by others: the same numbers, and a closed ledger."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from building import Array, proto, real, run
from onnx.reference import ReferenceEvaluator

from palrp_onnx.model.passes.functions import write_out_standard_functions

X = real(2, 3, 8, seed=3)
#: Operation → graph, weights, opset.
WRITTEN_OUT: dict[str, tuple[str, dict[str, Array], int]] = {
    "CausalConvWithState": (
        't = Transpose<perm=[0, 2, 1]>(x)  y, s = CausalConvWithState<activation="silu">(t, k)',
        {"k": real(8, 1, 3)},
        27,
    ),
    "LinearAttention": (
        "q = MatMul(x, w)  k = MatMul(x, v)  y, s = LinearAttention<q_num_heads=2, "
        'kv_num_heads=2, update_rule="linear">(q, k, x)',
        {"w": real(8, 8), "v": real(8, 8, seed=9)},
        27,
    ),
}


@pytest.mark.parametrize("op", WRITTEN_OUT)
def test_the_same_numbers_and_a_closed_ledger(op: str) -> None:
    body, weights, opset = WRITTEN_OUT[op]
    found = run(body, X, weights, opset=opset, free=(), dtype="float32")
    plain = proto(body, {"x": X}, weights, opset=opset, free=())
    assert op in [node.op_type for node in plain.graph.node]
    np.testing.assert_allclose(
        found.y, ReferenceEvaluator(plain).run(["y"], {"x": X})[0], rtol=1e-4, atol=1e-5
    )
    assert found.residual < 1e-6
    assert op in found.planned.analysis.model.lowered


def test_an_attribute_that_is_left_out() -> None:
    """The body refers to it; this version of ONNX Runtime has no such kernel."""
    model = ir.from_proto(proto("y = SwiGLU(x, x)", {"x": X}, opset=28))
    assert write_out_standard_functions(model)
    assert [node.op_type for node in model.graph] == ["Swish", "Mul"]
    assert model.graph[0].attributes["alpha"].as_float() == 1.0
