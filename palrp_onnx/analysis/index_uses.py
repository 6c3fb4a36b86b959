"""Values that entries of an input select: rows of a table, places of a one-hot vector."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has, row_of

#: Operations whose result does not identify an entry: counts, lengths, indices, reductions.
_COUNTING = Trait.ARGUMENT | Trait.COUNT | Trait.LENGTH | Trait.REDUCTION
#: Operations that combine numbers with others, as values or as one-hot vectors.
_COMBINING = Trait.COMPARISON | Trait.PRODUCT | Trait.LAYER
#: Operations between real content and integers that are computed from it.
_THROUGH = ELEMENTWISE | Trait.WHOLE


def selected_by(
    source: ir.Value, content: Collection[ir.Value], lookups: Collection[ir.Node]
) -> set[ir.Value]:
    """Values without content that entries of ``source`` select, and all that depend on them.

    Entries that are counted or summed first are left out, and so are comparisons with a single
    number: their results are masks or positions.

    Args:
        source: An input.
        content: Content values.
        lookups: Nodes that look content up.
    """
    found: dict[ir.Value, None] = {}

    def onward(node: ir.Node, index: int) -> Iterable[ir.Value]:
        if node in lookups or _forgets(node, index):
            return ()
        if _selects(node, index):
            found.update(dict.fromkeys(v for v in node.outputs if v not in content))
        passes = node.inputs[index] not in content or _passes(node)
        return node.outputs if passes else ()

    def everywhere(node: ir.Node, index: int) -> Iterable[ir.Value]:
        fresh = [v for v in node.outputs if v not in content and not _forgets(node, index)]
        found.update(dict.fromkeys(fresh))
        return fresh

    for _ in uses_of([source], onward):
        pass
    for _ in uses_of(list(found), everywhere):
        pass
    return set(found)


def _passes(node: ir.Node) -> bool:
    return has(node, _THROUGH) or row_of(node).moved != ()


def _forgets(node: ir.Node, index: int) -> bool:
    """Whether the result does not identify an entry of the operand."""
    if has(node, _COUNTING):
        return True
    return has(node, Trait.COMPARISON) and not _several(node.inputs[1 - index])


def _selects(node: ir.Node, index: int) -> bool:
    if has(node, _COMBINING):
        return True
    return row_of(node).index == index


def _several(value: ir.Value | None) -> bool:
    """Whether a value is a constant of more than one entry."""
    stored = value.const_value if value is not None else None
    return stored is not None and stored.size > 1
