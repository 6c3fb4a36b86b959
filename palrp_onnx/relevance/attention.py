"""Attention whose softmax keeps its constant part for the values.

The softmax s(x) of scores is, to first order, linear in them but for a constant: s = J x + c with
J x = s ∘ (x − Σ s ∘ x). Usually relevance that reaches c is lost there. A product s V knows better
who shares it: its values.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis, Operand
from palrp_onnx.model.ops import Trait, has

#: What probabilities may pass on their way to a product, as they are.
_PASSING = Trait.RETYPES | Trait.CHOICE


def kept_scores(analysis: Analysis) -> Mapping[Operand, ir.Value]:
    """Scores behind every operand of probabilities whose softmax feeds only such operands."""
    found: dict[Operand, ir.Node] = {}
    for node, index in analysis.probabilities:
        softmax = _softmax_behind(analysis, node.inputs[index])
        if softmax is not None:
            found[node, index] = softmax
    sound = {s for s in found.values() if _ends(analysis, s.outputs[0]) <= found.keys()}
    return {
        operand: softmax.inputs[0]
        for operand, softmax in found.items()
        if softmax in sound and softmax.inputs[0] is not None
    }


def _softmax_behind(analysis: Analysis, value: ir.Value | None) -> ir.Node | None:
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
    """Operands that probabilities reach, where relevance may come from."""
    found: set[Operand] = set()
    for node, index in value.uses():
        if has(node, _PASSING):
            found |= _ends(analysis, node.outputs[0])
        elif any(v in analysis.content for v in node.outputs):
            found.add((node, index))
    return found
