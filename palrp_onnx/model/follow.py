"""Following a value through the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

import onnx_ir as ir

#: (node, index of the operand) → the results whose uses to follow.
Onward = Callable[[ir.Node, int], Iterable[ir.Value]]


def uses_of(values: Iterable[ir.Value], onward: Onward) -> Iterator[tuple[ir.Node, int]]:
    """Every use (node, operand index) of ``values``, and of the results that ``onward`` returns."""
    queue = list(values)
    seen = set(queue)
    while queue:
        for node, index in queue.pop().uses():
            yield node, index
            fresh = [value for value in onward(node, index) if value not in seen]
            seen.update(fresh)
            queue.extend(fresh)


def values_before(
    values: Iterable[ir.Value], through: Callable[[ir.Node], bool] = lambda _: True
) -> Iterator[ir.Value]:
    """``values``, and the values that they are computed from by nodes that ``through`` accepts."""
    queue = list(values)
    seen = set(queue)
    while queue:
        value = queue.pop()
        yield value
        node = value.producer()
        if node is not None and through(node):
            fresh = {v for v in node.inputs if v is not None and v not in seen}
            seen.update(fresh)
            queue.extend(fresh)


def from_inputs(value: ir.Value, through: Callable[[ir.Node], bool]) -> bool:
    """Whether a value is computed from an input of the graph by nodes that ``through`` accepts."""
    before = values_before([value], through)
    return any(v.is_graph_input() and not v.is_initializer() for v in before)


class Reaching:
    """Whether a search from a value succeeds; linear in the graph for any number of values.

    Args:
        step: Value → whether the search succeeds or fails there, or the values to continue from.
            No value may be reached from itself.
    """

    def __init__(self, step: Callable[[ir.Value], bool | Collection[ir.Value]]) -> None:
        self._step = step
        self._known: dict[ir.Value, bool] = {}
        self._onward: dict[ir.Value, Collection[ir.Value]] = {}

    def __call__(self, value: ir.Value) -> bool:
        """Whether the search from ``value`` succeeds."""
        left = [value]
        while left:
            current = left[-1]
            if current not in self._known:
                unknown = self._unknown(current)
                left += unknown
                if unknown:
                    continue
            left.pop()
        return self._known[value]

    def _unknown(self, value: ir.Value) -> list[ir.Value]:
        """Values to search first; none once the result for ``value`` is known."""
        if value not in self._onward:
            found = self._step(value)
            if isinstance(found, bool):
                self._known[value] = found
                return []
            self._onward[value] = found
        onward = self._onward[value]
        if any(self._known.get(each) for each in onward):
            self._known[value] = True
            return []
        unknown = [each for each in onward if each not in self._known]
        if not unknown:
            self._known[value] = False
        return unknown
