"""Softmax that is written as exponentials over their sum becomes one operation.

``exp(x) / Σ exp(x)``, with or without the largest score subtracted first, and
``exp(x − log Σ exp(x))`` are ``Softmax(x)``. So the same function gets the same rule in any
notation, and scores that are switched off receive no relevance; by the rule of an exponential they
would.
"""

from __future__ import annotations

import onnx_ir as ir

from palrp_onnx.model.changes import Changes
from palrp_onnx.model.values import constant_axes


def join_softmax(model: ir.Model) -> Changes:
    """Replace each such softmax by one node, in place; the log counts them."""
    graph = model.graph
    if graph.opset_imports.get("", 0) < 13:  # Softmax runs over an axis and all later ones there
        return Changes()
    found = [(node, known) for node in graph if (known := _scores(node)) is not None]
    for node, (scores, axis) in found:
        made = ir.node("Softmax", [scores], {"axis": axis}, name=f"{node.name}/softmax")
        old, new = node.outputs[0], made.outputs[0]
        new.type, new.shape = old.type, old.shape
        graph.insert_before(node, made)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name, new.name = None, old.name
        graph.remove(node, safe=True)
    return Changes.of({"softmax written out": len(found)})


def _scores(node: ir.Node) -> tuple[ir.Value, int] | None:
    """Scores and axis of the softmax that a node yields, if it yields one."""
    if node.op_type == "Div":
        return _divided(_maker(node.inputs[0], "Exp"), _maker(node.inputs[1], "ReduceSum"))
    if node.op_type == "Mul":
        for k in (0, 1):
            inverse = _maker(node.inputs[1 - k], "Reciprocal")
            total = _maker(inverse.inputs[0], "ReduceSum") if inverse is not None else None
            if (found := _divided(_maker(node.inputs[k], "Exp"), total)) is not None:
                return found
    return (
        _less(_maker(node.inputs[0], "Sub"), "ReduceLogSumExp") if node.op_type == "Exp" else None
    )


def _divided(exp: ir.Node | None, total: ir.Node | None) -> tuple[ir.Value, int] | None:
    if exp is None or total is None or total.inputs[0] is not exp.outputs[0]:
        return None
    axis, scores = _along(total), exp.inputs[0]
    if axis is None or scores is None:
        return None
    shifted = _less(_maker(scores, "Sub"), "ReduceMax")
    return shifted if shifted is not None and shifted[1] == axis else (scores, axis)


def _less(shift: ir.Node | None, op_type: str) -> tuple[ir.Value, int] | None:
    """Scores and axis, where ``shift`` subtracts a reduction of the scores from them."""
    taken = _maker(shift.inputs[1], op_type) if shift is not None else None
    if shift is None or taken is None or taken.inputs[0] is not shift.inputs[0]:
        return None
    axis, scores = _along(taken), shift.inputs[0]
    return None if axis is None or scores is None else (scores, axis)


def _maker(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node of this type that yields a value, before copies."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node if node is not None and node.op_type == op_type else None


def _along(node: ir.Node) -> int | None:
    """The axis of a reduction over a single axis that it keeps, else ``None``."""
    axes = constant_axes(node)
    single = axes is not None and len(axes) == 1 and node.attributes.get_int("keepdims", 1) == 1
    return axes[0] if axes is not None and single else None
