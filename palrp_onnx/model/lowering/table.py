"""The table of lowerings, and the pass that applies it.

A lowering is a plain function ``lowering(b, node)``: it writes primitive operations with the
builder ``b`` and returns the value that replaces each output, ``None`` for an output that must not
be read; or ``None`` if the node, as it is used, is primitive already. It raises
``NotImplementedError`` for a node that it does not cover; that node stays, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import onnx_ir as ir
import onnx_ir.passes.common as passes

from palrp_onnx.model.changes import Changes
from palrp_onnx.model.declared import infer_shapes
from palrp_onnx.model.lowering.builder import Builder, Fused
from palrp_onnx.model.lowering.types import infer
from palrp_onnx.model.ops import Trait, has

MICROSOFT = "com.microsoft"
#: Key in the ``meta`` of a node that could not be lowered.
REFUSED = "refused"
#: Key in the ``meta`` of a value that became real: the type it has in the file.
_WAS = "was"

Lowering = Callable[[Builder, Fused], "Sequence[ir.Value | None] | None"]

_TABLE: dict[tuple[str, str], Lowering] = {}


def lowers(*op_types: str, domain: str = MICROSOFT) -> Callable[[Lowering], Lowering]:
    """Register a function as the lowering of ``op_types``.

    Raises:
        ValueError: One of them has a lowering already.
    """

    def register(function: Lowering) -> Lowering:
        for op_type in op_types:
            if (domain, op_type) in _TABLE:
                raise ValueError(f"{domain}.{op_type} has two lowerings")
            _TABLE[domain, op_type] = function
        return function

    return register


def lowerable() -> list[tuple[str, str]]:
    """(domain, operation) of every lowering, sorted."""
    return sorted(_TABLE)


def find_lowering(domain: str, op_type: str) -> Lowering:
    """The lowering of an operation that has one."""
    return _TABLE[domain, op_type]


def lower(model: ir.Model) -> Changes:
    """Rewrite fused and quantised operations of ``model`` into primitive ones, in place.

    Values keep their names. The nodes of the graph must be in topological order.

    Returns:
        How many nodes of each operation were rewritten.
    """
    graph, opset = model.graph, model.opset_imports.get("", 0)
    if not any((node.domain, node.op_type) in _TABLE for node in graph):
        return Changes()
    infer_shapes(model)
    done: Counter[str] = Counter()
    made, fresh = _Made(set(), set()), _fresh_names(graph)
    for node in list(graph):
        lowering = _TABLE.get((node.domain, node.op_type))
        source = node.inputs[0] if node.inputs else None
        if source is not None and _keeps_type(node, source):
            _replace(Builder(graph, node, opset, fresh), node.outputs[0], source, made)
            graph.remove(node, safe=True)
        elif lowering is None:
            _carry_on(Builder(graph, node, opset, fresh), node, made)
        elif _lower(Builder(graph, node, opset, fresh), Fused(node), lowering, made):
            graph.remove(node, safe=True)
            done[f"{node.domain}.{node.op_type}".lstrip(".")] += 1
    passes.RemoveUnusedNodesPass()(model)
    return Changes.of(done)


def _fresh_names(graph: ir.Graph) -> Callable[[str], str]:
    """Makes names unique: an explainer has operations of a file and what they are lowered to."""
    taken = {*graph.initializers, *(v.name for node in graph.all_nodes() for v in node.outputs)}

    def fresh(name: str) -> str:
        while name in taken:
            name += "'"
        taken.add(name)
        return name

    return fresh


class _Made(NamedTuple):
    """Values that lowering has changed.

    Attributes:
        real: Integers that are real numbers now.
        fresh: Values whose types or shapes are known better than from inference over the graph.
    """

    real: set[ir.Value]
    fresh: set[ir.Value]


def _lower(b: Builder, fused: Fused, lowering: Lowering, made: _Made) -> bool:
    try:
        results = lowering(b, fused)
    except NotImplementedError as error:
        fused.node.meta[REFUSED] = str(error)
        return False
    if results is None:
        infer(fused.node, b.opset)
        return False
    for old, new in zip(fused.node.outputs, results, strict=False):
        if new is not None:
            _replace(b, old, new, made)
    return True


#: Operations that hand on operands of one type, quantised ones too, or add to them.
_OF_ONE_TYPE = Trait.JOIN | Trait.PAD | Trait.EXTREME | Trait.CHOICE | Trait.SUM
_INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32)


def _carry_on(b: Builder, node: ir.Node, made: _Made) -> None:
    """Infer the types of a node that stays; make its other integer operands real if one is."""
    changed = [v for v in node.inputs if v is not None and v in made.real]
    before = [v.dtype for v in node.outputs]
    if changed and not node.domain:
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in _INTEGERS and has(node, _OF_ONE_TYPE):
                node.replace_input_with(index, b.cast_like(value, changed[0]))
        for value in node.outputs:
            value.type = None
    if infer(node, b.opset, again=any(v in made.fresh for v in node.inputs)):
        made.fresh.update(node.outputs)
    if changed:
        pairs = zip(node.outputs, before, strict=True)
        made.real.update(v for v, was in pairs if v.dtype != was)


def _keeps_type(node: ir.Node, source: ir.Value) -> bool:
    """Whether a node casts quantised numbers, which are real now, to the type they had."""
    was = source.meta.get(_WAS)
    return node.op_type == "Cast" and was is not None and node.attributes.get_int("to", 0) == was


def _replace(b: Builder, old: ir.Value, new: ir.Value, made: _Made) -> None:
    """Replace ``old`` by ``new``, which takes its name."""
    new = b.own(new)
    made.fresh.add(new)
    if old.dtype is not None and new.dtype != old.dtype:
        made.real.add(new)
        new.meta[_WAS] = int(old.dtype)
    new.type, new.shape = new.type or old.type, old.shape if new.shape is None else new.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name, new.name = None, old.name
