"""Weights that are computed from initializers, as by dequantising.

They are large and the same for every input, so that a trial run need not yield them.
"""

from __future__ import annotations

import onnx_ir as ir

from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.types import Shape

#: Operations that read weights: dequantising, in one operation or several, and movement.
_READING = Trait.DEQUANTISE | Trait.RETYPES | Trait.RESHAPE | Trait.RANK | Trait.PERMUTE | Trait.CUT


def _reads(node: ir.Node) -> bool:
    # (q − zero point) · scale, and the numbers of few bits in every byte
    return has(node, _READING) or node.op_type in ("Sub", "Mul", "Gather")


def computed_weights(graph: ir.Graph) -> dict[ir.Value, Shape]:
    """Real values that depend on initializers alone and are only weights of products → shapes."""
    found: dict[ir.Value, Shape] = {}
    for node in graph:
        value = node.outputs[0] if node.outputs else None
        if value is None or not _reads(node) or not _is_stored(node, found):
            continue
        shape = value.shape.numpy() if value.shape is not None and _is_fixed(value.shape) else None
        if shape is not None and len(shape) > 1 and _only_weighs(value):
            found[value] = tuple(shape)
    return found


def _is_stored(node: ir.Node, found: dict[ir.Value, Shape]) -> bool:
    return all(v is None or v in found or v.is_initializer() for v in node.inputs)


def _is_fixed(shape: ir.Shape) -> bool:
    return all(isinstance(d, int) for d in shape)


def _only_weighs(value: ir.Value) -> bool:
    """Whether every use of a value ends as the second operand of a product."""

    def onward(node: ir.Node, _: int) -> tuple[ir.Value, ...]:
        return tuple(node.outputs) if _reads(node) else ()

    return not value.is_graph_output() and all(
        _reads(node) or (has(node, Trait.LEARNT) and index == 1)
        for node, index in uses_of([value], onward)
    )
