"""What numbers of an input pick: rows of a table, places of a one-hot vector."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has, row_of

#: Operations behind which numbers no longer say which entry they were: counts, lengths, places.
_COUNTING = Trait.ARGUMENT | Trait.COUNT | Trait.LENGTH | Trait.REDUCTION
#: Where numbers meet others, as values or as one-hot vectors.
_MEETING = Trait.COMPARISON | Trait.PRODUCT | Trait.LAYER
#: What real content may pass on its way to whole numbers.
_THROUGH = ELEMENTWISE | Trait.WHOLE


def picked_by(
    source: ir.Value, content: Collection[ir.Value], lookups: Collection[ir.Node]
) -> set[ir.Value]:
    """Values without content that numbers of ``source`` pick, and what is made of them.

    Not where numbers are counted or summed up first, nor by truth values that tell one number from
    all others: these are masks, or make positions.
    """
    found: dict[ir.Value, None] = {}

    def onward(node: ir.Node, index: int) -> Iterable[ir.Value]:
        if node in lookups or _forgets(node, index):
            return ()
        if _picks(node, index):
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
    """Whether a result no longer says which number an operand was."""
    if has(node, _COUNTING):
        return True
    return has(node, Trait.COMPARISON) and not _several(node.inputs[1 - index])


def _picks(node: ir.Node, index: int) -> bool:
    if has(node, _MEETING):
        return True
    return row_of(node).index == index


def _several(value: ir.Value | None) -> bool:
    """Whether numbers are held against more than one stored number."""
    stored = value.const_value if value is not None else None
    return stored is not None and stored.size > 1
