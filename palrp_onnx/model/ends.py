"""Two outputs as one: the scores of where an answer starts, followed by those of where it ends."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir


def name_of_ends(ends: Sequence[str]) -> str:
    """Name of the joined output."""
    return " + ".join(ends)


def join_ends(graph: ir.Graph, ends: Sequence[str]) -> ir.Value | None:
    """Add an output [B, 2 T] that joins two values [B, T]; ``None`` where one does not exist.

    Args:
        graph: The graph, which is changed.
        ends: Names of the two values.
    """
    known = {v.name: v for node in graph for v in node.outputs}
    if any(name not in known for name in ends):
        return None
    first, last = (known[name] for name in ends)
    node = ir.node("Concat", [first, last], {"axis": -1}, name=name_of_ends(ends))
    joined = node.outputs[0]
    joined.name, joined.type = name_of_ends(ends), first.type
    graph.append(node)
    graph.outputs.append(joined)
    return joined
