"""What numbers of an input pick: rows of a table, places of a one-hot vector."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

from palrp_onnx.analysis.inputs import INDEX_ARITHMETIC, INDEX_MOVES
from palrp_onnx.analysis.self_gates import ELEMENTWISE
from palrp_onnx.model.follow import uses_of

_COMPARING = frozenset("Equal Greater GreaterOrEqual Less LessOrEqual".split())
#: Operations behind which numbers no longer say which entry they were: counts, lengths, places.
_COUNTING = frozenset("ArgMax ArgMin CumSum NonZero Shape Size".split())
#: Operations that pick by the numbers of an operand, and which operand that is.
_PICKING = {
    "Gather": 1,
    "GatherElements": 1,
    "GatherND": 1,
    "OneHot": 0,
    "ScatterElements": 1,
    "ScatterND": 1,
}
_WEIGHTED = frozenset("Conv Einsum Gemm MatMul".split())


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
        passes = node.inputs[index] not in content or node.op_type in _THROUGH
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


#: What real content may pass on its way to whole numbers.
_THROUGH = ELEMENTWISE | INDEX_ARITHMETIC | INDEX_MOVES.keys()


def _forgets(node: ir.Node, index: int) -> bool:
    """Whether a result no longer says which number an operand was."""
    if node.op_type in _COUNTING or node.op_type.startswith("Reduce"):
        return True
    return node.op_type in _COMPARING and not _several(node.inputs[1 - index])


def _picks(node: ir.Node, index: int) -> bool:
    if node.op_type in _COMPARING | _WEIGHTED:
        return True
    return _PICKING.get(node.op_type) == index


def _several(value: ir.Value | None) -> bool:
    """Whether numbers are held against more than one stored number."""
    stored = value.const_value if value is not None else None
    return stored is not None and stored.size > 1
