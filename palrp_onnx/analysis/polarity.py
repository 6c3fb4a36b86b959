"""Which entries of a mask keep a token: those that are not 0, or the zeros.

The part of the graph between the mask and the content that it is combined with is computed for a
mask of ones and for one of zeros. The larger number keeps a score or a feature; of a choice it is
the one that takes the content.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.masking import HIDING, Choices, combinations

#: Lengths of free axes of the masks that are tried.
_PLACES = 3


def keeps(mask: ir.Value, content: set[ir.Value], choices: Choices) -> bool | None:
    """Whether entries of ``mask`` that are not 0 keep a token; ``None`` where that is not known."""
    votes = set()
    for node, index, how in combinations([mask], content, choices):
        if how not in HIDING:
            return None
        votes.add(_vote(mask, node, index, content))
    return votes.pop() if len(votes) == 1 else None


def _vote(mask: ir.Value, node: ir.Node, index: int, content: set[ir.Value]) -> bool | None:
    operand = node.inputs[index]
    if operand is None or mask.graph is None:
        return None
    ones, zeros = (_computed(mask, operand, fill) for fill in (1, 0))
    if ones is None or zeros is None or ones == zeros:
        return None
    if node.op_type == "Where":
        first, second = (value in content for value in node.inputs[1:3])
        return None if first == second else (ones > zeros) == first
    if node.op_type == "Sub" and index == 1:
        return ones < zeros
    if node.op_type in ("Add", "Mul", "Min") or (node.op_type == "Sub"):
        return ones > zeros
    return None


def _computed(mask: ir.Value, operand: ir.Value, fill: int) -> float | None:
    """The smallest entry of ``operand`` for a mask that is ``fill`` everywhere."""
    from onnx.reference import ReferenceEvaluator

    graph = mask.graph
    if graph is None or operand is mask:
        return float(fill) if graph is not None else None
    try:
        part = ir.convenience.extract(graph, _inputs(graph), [operand])
        proto = ir.to_proto(ir.Model(part, ir_version=10))
        feeds = {v.name or "": _filled(v, fill if v.name == mask.name else 1) for v in part.inputs}
        with np.errstate(all="ignore"):
            (found,) = ReferenceEvaluator(proto).run(None, feeds)
        return float(np.asarray(found, np.float64).min())
    except Exception:  # an operation that the evaluator does not have: nothing is known
        return None


def _inputs(graph: ir.Graph | ir.Function) -> list[ir.Value]:
    return [value for value in graph.inputs if not value.is_initializer()]


def _filled(value: ir.Value, fill: int) -> np.ndarray:
    dims: Iterable[object] = value.shape or (1, _PLACES)
    shape = [d if isinstance(d, int) and d > 0 else _PLACES for d in dims]
    shape[:1] = [1] if len(shape) > 1 else shape[:1]
    kind = np.dtype(np.float32 if value.dtype is None else value.dtype.numpy())
    return np.full(shape, fill, kind)
