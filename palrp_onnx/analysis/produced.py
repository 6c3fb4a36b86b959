"""The input that holds the tokens that a sequence-to-sequence model has produced so far."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from palrp_onnx.analysis.inputs import InputRoles, table_rows
from palrp_onnx.model.follow import values_before
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import is_float


def produced_input(graph: ir.Graph, roles: InputRoles) -> str | None:
    """Name of the input with the decoder's tokens; ``None`` where the graph has no decoder.

    Every token of the decoder has its own row from the lookup to the scores of the vocabulary. What
    the encoder reads reaches these rows by attention alone, thus by a product of two computed
    values.
    """
    output = graph.outputs[0]
    shape = output.shape
    if len(roles.explained()) < 2 or shape is None or shape.rank() != 3:
        return None
    computed = _computed(graph, roles)

    def own_row(node: ir.Node) -> bool:
        return not (has(node, Trait.PRODUCT) and all(v in computed for v in node.inputs))

    own, every = (_read(output, roles, each) for each in (own_row, lambda _: True))
    rows = {table_rows(node) for node, name in roles.lookups.items() if name in own}
    return own.pop() if len(own) == 1 and len(every) > 1 and shape[-1] in rows else None


def _read(output: ir.Value, roles: InputRoles, through: Callable[[ir.Node], bool]) -> set[str]:
    """Names of the content that ``output`` depends on by real values and these nodes."""

    def onward(node: ir.Node) -> bool:
        return node not in roles.lookups and is_float(node.outputs[0]) and through(node)

    found = set()
    for value in values_before([output], onward):
        node = value.producer()
        if node is not None and node in roles.lookups:
            found.add(roles.lookups[node])
        elif value.is_graph_input() and is_float(value) and value.name in roles.explained():
            found.add(value.name)
    return found


def _computed(graph: ir.Graph, roles: InputRoles) -> set[ir.Value]:
    """Real values that depend on content by a real path."""
    found = {v for node in roles.lookups for v in node.outputs}
    found |= {v for v in graph.inputs if is_float(v) and v.name in roles.explained()}
    for node in graph:
        if any(v in found for v in node.inputs):
            found.update(v for v in node.outputs if is_float(v))
    return found
