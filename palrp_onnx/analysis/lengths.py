"""Whether lengths follow from numbers, and not from the lengths of inputs alone."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import UNKNOWN, Trait, has, row_of

#: Operations that read lengths, or places that these follow from, beside what they move.
_MEASURED = Trait.RESHAPE | Trait.REPEAT | Trait.CUT | Trait.PAD | Trait.RESIZE
#: Other operands that do, by index.
_OPERANDS = {"AffineGrid": 1, "OneHot": 1, "TopK": 1}
#: Operations whose result has as many entries as some numbers fulfil a condition.
_COUNTED = frozenset(("Compress", "NonZero"))


def follow_from_numbers(graph: ir.Graph) -> bool:
    """Whether the length of a value depends on the numbers in an input, as where padding is cut."""
    given = [value for value in graph.inputs if not value.is_initializer()]
    return any(_sets_length(node, index) for node, index in uses_of(given, _onward))


def _onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
    return () if has(node, Trait.LENGTH) else node.outputs


def _sets_length(node: ir.Node, index: int) -> bool:
    row = row_of(node)
    if row is UNKNOWN or node.op_type in _COUNTED or _OPERANDS.get(node.op_type) == index:
        return True
    return has(node, Trait.SOURCE) or (has(node, _MEASURED) and index > 0 and not row.moves(index))
