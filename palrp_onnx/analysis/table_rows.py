"""How many rows the tables have in which an input is looked up.

On a CPU a lookup outside of a table stops the run; on a GPU it reads zeros, without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import AxisRule, Trait, has, row_of

#: Rules of axes of operations whose result holds all numbers of their first operand.
_ALL = (AxisRule.RESHAPED, AxisRule.RANKED, AxisRule.PERMUTED)


def table_rows(graph: ir.Graph) -> dict[str, int]:
    """Rows of the smallest table in which an input is looked up as it is, by its name.

    A table whose rows are as many as an input has tokens does not count.
    """
    found = {v.name or "": min(_rows(v), default=0) for v in graph.inputs}
    return {name: rows for name, rows in found.items() if rows}


def _rows(value: ir.Value) -> Iterator[int]:
    for node, index in uses_of([value], _onward):
        table = node.inputs[0]
        if node.op_type == "Gather" and index == 1 and table is not None and table.shape:
            rows = table.shape[node.attributes.get_int("axis", 0)]
            if isinstance(rows, int):
                yield rows


def _onward(node: ir.Node, index: int) -> Iterable[ir.Value]:
    same = has(node, Trait.RETYPES) or row_of(node).axes in _ALL
    return node.outputs if index == 0 and same else ()
