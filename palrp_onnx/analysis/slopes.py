"""ALiBi-like biases have no origin: adding a number to all keys does not change a softmax."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from palrp_onnx.analysis.analysis import Analysis, Operand
from palrp_onnx.analysis.arrays import MASKED
from palrp_onnx.analysis.sites import SinkSite, values_of
from palrp_onnx.model.ops import Trait, has

#: Operations between scores and their softmax.
_PASSED = Trait.SUM | Trait.CHOICE | Trait.RETYPES | Trait.RESHAPE | Trait.RANK | Trait.REPEAT


def alibi_operands(analysis: Analysis, sites: Iterable[SinkSite]) -> frozenset[Operand]:
    """ALiBi-like biases of scores that only a softmax along the keys reads.

    There the multipliers of the scores of one query add up to zero, so that the bias can be
    measured from the query's own position: (b_ij − b_ii) ∘ m.
    """
    return frozenset(
        site.operand
        for site in sites
        if site.kind == "alibi"
        and values_of(analysis, site.value).min() > MASKED
        and _ends_in_softmax(site.operand[0].outputs[0])
    )


def _ends_in_softmax(value: ir.Value) -> bool:
    """Whether every use of scores ends, after sums and movement, in a softmax along the keys."""
    left, seen = [value], {value}
    while left:
        current = left.pop()
        uses = current.uses()
        for node, _ in uses:
            if has(node, _PASSED):
                fresh = [v for v in node.outputs[:1] if v not in seen]
                seen.update(fresh)
                left += fresh
            elif node.op_type != "Softmax" or not _along_keys(node, current):
                return False
        if not uses:
            return False
    return True


def _along_keys(softmax: ir.Node, scores: ir.Value) -> bool:
    return softmax.attributes.get_int("axis", -1) in (-1, _last(scores))


def _last(value: ir.Value) -> int:
    return value.shape.rank() - 1 if value.shape is not None else -1
