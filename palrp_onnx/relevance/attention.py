"""Products of attention probabilities whose rule can see the scores before the softmax.

To first order, the softmax of scores x is s = J x + c with J x = s ∘ (x − Σ s ∘ x) and a constant
c. By default the relevance of c is lost at the softmax. A rule for the product s V that sees x can
pass it on to the values V instead (see ``rules/lossless_softmax.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis, Operand
from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import Trait, has

#: Operations that probabilities may pass unchanged between the softmax and the product.
_PASSING = Trait.RETYPES | Trait.CHOICE


def find_scores(analysis: Analysis) -> Mapping[Operand, ir.Value]:
    """Softmax operands of products and their scores, if all consumers of the softmax are such."""
    found: dict[Operand, ir.Node] = {}
    for node, index in analysis.probabilities:
        softmax = _softmax_before(analysis, node.inputs[index])
        if softmax is not None:
            found[node, index] = softmax
    sound = {s for s in set(found.values()) if _ends(analysis, s.outputs[0]) <= found.keys()}
    return {
        operand: softmax.inputs[0]
        for operand, softmax in found.items()
        if softmax in sound and softmax.inputs[0] is not None
    }


def _softmax_before(analysis: Analysis, value: ir.Value | None) -> ir.Node | None:
    shape = None if value is None else analysis.shapes.get(value)
    while value is not None:
        node = value.producer()
        if node is None or shape is None or analysis.shapes.get(value) != shape:
            return None
        if node.op_type == "Softmax":
            axis = node.attributes.get_int("axis", -1) % len(shape)
            return node if axis == len(shape) - 1 else None
        value = node.inputs[-1 if has(node, Trait.CHOICE) else 0]
        if not has(node, _PASSING) or value not in analysis.content:
            return None
    return None


def _ends(analysis: Analysis, value: ir.Value) -> set[Operand]:
    """Operands that use these probabilities and can send relevance to them."""

    def onward(node: ir.Node, _: int) -> Sequence[ir.Value]:
        return node.outputs[:1] if has(node, _PASSING) else ()

    return {
        (node, index)
        for node, index in uses_of([value], onward)
        if not has(node, _PASSING) and any(v in analysis.content for v in node.outputs)
    }
