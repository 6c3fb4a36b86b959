"""Which values depend on the explained input, at what depth, and what other values depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from palrp_onnx.analysis.inputs import InputRoles
from palrp_onnx.analysis.roles import Role
from palrp_onnx.model.follow import uses_of
from palrp_onnx.model.ops import Trait, has
from palrp_onnx.model.values import is_float


def content_values(graph: ir.Graph, roles: InputRoles) -> dict[ir.Value, None]:
    """Real values that depend on the explained inputs by a real path, in topological order.

    Integers and truth values carry no relevance, so a path ends where a value is compared,
    counted, rounded to an index or reduced to its shape.
    """
    explained = roles.named(Role.CONTENT)
    content: dict[ir.Value, None] = {
        v: None for v in graph.inputs if is_float(v) and v.name in explained
    }
    for node in graph:
        if has(node, Trait.MEASURES):
            continue
        if node in roles.lookups or any(v in content for v in node_inputs(node)):
            content.update(dict.fromkeys(v for v in node.outputs if v.name and is_float(v)))
    return content


def node_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of a node that are not left out, and outer values that its subgraphs read."""
    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from (v for v in inner.inputs if v is not None and v.graph is node.graph)


#: Operations whose result does not depend on the entries of their operands.
_NOT_ENTRIES = Trait.MEASURES | Trait.LENGTH
#: Operations that choose nothing: they count.
_NOT_CHOICES = _NOT_ENTRIES | Trait.COUNT


def dependencies(graph: ir.Graph, sources: Iterable[str]) -> dict[ir.Value, frozenset[str]]:
    """Value → the inputs among ``sources`` whose entries (not only their shape) it depends on."""
    wanted = set(sources)
    found: dict[ir.Value, frozenset[str]] = {
        v: frozenset((v.name,)) for v in graph.inputs if v.name in wanted and v.name is not None
    }
    for node in graph:
        if has(node, _NOT_ENTRIES):
            continue
        reached = frozenset().union(*(found.get(v, frozenset()) for v in node_inputs(node)))
        if reached:
            found.update(dict.fromkeys(node.outputs, reached))
    return found


def chosen_values(graph: ir.Graph, content: Mapping[ir.Value, None]) -> set[ir.Value]:
    """Values without content that depend on content by comparisons or indices of largest entries.

    Values that are counted along an axis are not among them: those are positions.
    """
    found: set[ir.Value] = set()
    for node in graph:
        if has(node, _NOT_CHOICES):
            continue
        if any(v in content or v in found for v in node_inputs(node)):
            found.update(v for v in node.outputs if v not in content)
    return found


def routed_values(graph: ir.Graph, content: Mapping[ir.Value, None]) -> set[ir.Value]:
    """Integers and truth values that content determines: indices of its largest entries, counts.

    Their entries in a trial run say nothing of their entries for other inputs.
    """
    found: set[ir.Value] = set()
    for node in graph:
        if has(node, _NOT_ENTRIES):
            continue
        if any(v in content or v in found for v in node_inputs(node)):
            found.update(v for v in node.outputs if v not in content and not is_float(v))
    return found


def fed_values(graph: ir.Graph) -> set[ir.Value]:
    """Values that depend on an input, if only on its shape."""
    found = {v for v in graph.inputs if not v.is_initializer()}
    for node in graph:
        if any(v in found for v in node_inputs(node)):
            found.update(node.outputs)
    return found


def attention_depth(graph: ir.Graph, content: Mapping[ir.Value, None]) -> dict[ir.Value, int]:
    """Content value → the number of attention layers before it, on the longest path.

    An attention layer is a softmax of content whose probabilities are multiplied, as a matrix,
    with other content.
    """
    depth: dict[ir.Value, int] = {}
    for node in graph:
        before = [depth.get(v, 0) for v in node_inputs(node) if v in content]
        own = node.op_type == "Softmax" and bool(_weighted_products(node.outputs[0], content))
        level = max(before, default=0) + int(own)
        depth.update(dict.fromkeys((v for v in node.outputs if v in content), level))
    return depth


#: Operations between attention probabilities and the product that weights values with them.
_PROBABILITY_MOVES = (Trait.SUM | Trait.SCALE | Trait.CHOICE | Trait.ROUNDS | Trait.RETYPES) | (
    Trait.RESHAPE | Trait.RANK | Trait.PERMUTE | Trait.REPEAT | Trait.CUT
)


def probability_operands(
    graph: ir.Graph, content: Mapping[ir.Value, None]
) -> set[tuple[ir.Node, int]]:
    """Operands (node, index) of matrix products that hold attention probabilities."""
    return {
        operand
        for node in graph
        if node.op_type == "Softmax" and node.outputs[0] in content
        for operand in _weighted_products(node.outputs[0], content)
    }


def _weighted_products(
    value: ir.Value, content: Mapping[ir.Value, None]
) -> list[tuple[ir.Node, int]]:
    def onward(node: ir.Node, _: int) -> Iterable[ir.Value]:
        return [v for v in node.outputs if v in content and has(node, _PROBABILITY_MOVES)]

    return [
        (node, index)
        for node, index in uses_of([value], onward)
        if has(node, Trait.PRODUCT) and all(v in content for v in node.inputs)
    ]
