"""Following a value through the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import onnx_ir as ir

#: (node, index of the operand) → the outputs through which to go on.
Onward = Callable[[ir.Node, int], Iterable[ir.Value]]


def uses_of(values: Iterable[ir.Value], onward: Onward) -> Iterator[tuple[ir.Node, int]]:
    """Every use (node, operand index) of ``values`` and of what ``onward`` lets follow."""
    queue = list(values)
    seen = set(queue)
    while queue:
        for node, index in queue.pop().uses():
            yield node, index
            fresh = [value for value in onward(node, index) if value not in seen]
            seen.update(fresh)
            queue.extend(fresh)
