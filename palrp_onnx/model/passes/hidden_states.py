"""Recurrent nodes return their hidden states of all steps, which their rules read."""

from __future__ import annotations

import onnx_ir as ir

from palrp_onnx.model.ops import Trait, has


def name_hidden_states(model: ir.Model) -> None:
    """Give the first output of recurrent nodes a name where it has none; no value changes."""
    for node in model.graph:
        if has(node, Trait.RECURRENT) and not node.outputs[0].name:
            last = next(v for v in node.outputs if v.name)
            node.outputs[0].name = f"{last.name}/hidden"
            node.outputs[0].type = last.type
