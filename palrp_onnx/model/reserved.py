"""Names that ONNX Runtime gives to values of its own, found in files that it has saved.

Loading a graph, it makes such values again, by the name of a value and a prefix, without a look at
names that are there: a rewritten graph in which one of them is left could not be loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence

import onnx

#: Before the names of weights that it converts from half precision for single kernels.
_PREFIX = "InsertedPrecisionFreeCast_"


def free_reserved_names(proto: onnx.ModelProto) -> None:
    """Rename values inside the graph that have names which ONNX Runtime makes, in place."""
    outside = {v.name for v in (*proto.graph.input, *proto.graph.output)}
    for graph in _graphs(proto.graph):
        for node in graph.node:
            for names in (node.input, node.output):
                _rename(names, outside)
        for value in (*graph.initializer, *graph.value_info):
            if value.name.startswith(_PREFIX) and value.name not in outside:
                value.name = f"saved/{value.name}"


def _rename(names: MutableSequence[str], outside: set[str]) -> None:
    for index, name in enumerate(names):
        if name.startswith(_PREFIX) and name not in outside:
            names[index] = f"saved/{name}"


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)
