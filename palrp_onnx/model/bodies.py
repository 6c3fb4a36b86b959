"""What nodes read, including what their bodies (of loops, branches and scans) read from outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir


def reads(node: ir.Node) -> Iterator[tuple[ir.Node, int, ir.Value]]:
    """(reader, index, value) of every operand of a node, and of what its bodies read."""
    bodies = list(_bodies(node))
    inner = [each for body in bodies for each in body]
    own = {v for body in bodies for v in body.inputs}.union(v for n in inner for v in n.outputs)
    for reader in (node, *inner):
        for index, value in enumerate(reader.inputs):
            if value is not None and value not in own:
                yield reader, index, value


def operands(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node and its bodies read."""
    return (value for _, _, value in reads(node))


class Users:
    """The nodes of a graph that read a value, themselves or in their bodies."""

    def __init__(self, nodes: Iterable[ir.Node]) -> None:
        self._owner = {inner: node for node in nodes for body in _bodies(node) for inner in body}

    def __call__(self, value: ir.Value) -> list[ir.Node]:
        """The readers of a value."""
        return [self._owner.get(user, user) for user, _ in value.uses()]


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The bodies of a node, and those inside of them."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        else:
            graphs = [*attribute.as_graphs()] if attribute.type == ir.AttributeType.GRAPHS else []
        for graph in graphs:
            yield graph
            for inner in graph:
                yield from _bodies(inner)
