"""Recurrent nodes return their hidden states, in branches too."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from building import proto, real

from palrp_onnx.model.passes.hidden_states import name_hidden_states

WEIGHTS = {"w": real(1, 9, 4), "r": real(1, 9, 3)}


@pytest.mark.parametrize("left_out", [True, False])
def test_the_first_output_has_a_name(left_out: bool) -> None:
    body = f"{'' if left_out else 'a'}, y = GRU<hidden_size=3>(x, w, r)"
    model = ir.from_proto(proto(body, {"x": real(2, 3, 4)}, WEIGHTS))
    name_hidden_states(model)
    assert [v.name for v in model.graph.node(0).outputs] == ["y/hidden" if left_out else "a", "y"]


def test_nodes_of_branches_too() -> None:
    inner = proto(", y = GRU<hidden_size=3>(x, w, r)", {"x": real(2, 3, 4)}, WEIGHTS).graph
    del inner.input[:], inner.initializer[:]
    node = onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    outer = proto("z = Identity(x)", {"x": real(2, 3, 4), "c": np.array(True)}, WEIGHTS)
    outer.graph.node[0].CopyFrom(node)
    model = ir.from_proto(outer)
    name_hidden_states(model)
    assert all(v.name for each in model.graph.all_nodes() for v in each.outputs)
