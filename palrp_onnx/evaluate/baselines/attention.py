"""Attention probabilities of a model, layer by layer, found by the structure of the graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.analysis import Operand
from palrp_onnx.analysis.axes import batch_axis
from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.types import Array


class Attention:
    """Probabilities [B, heads, T, T] (queries, then keys) and their gradients, first layer first.

    Attributes:
        probabilities: One array per layer.
        operands: Where they enter a product.
        tokens: T.
        slopes: ∂ target / ∂ probabilities, of the same shapes.

    Raises:
        UsageError: There is no attention, or not every token attends to every other, as within
            windows or between two sequences.
    """

    def __init__(self, given: BaselineInput) -> None:
        self._given = given
        operands = _layers(given)
        slopes = given.gradients(list(operands))
        shown = {v: o for v, o in operands.items() if v in slopes}
        self.probabilities = [
            self._square(v, o, given.values[v.name or ""]) for v, o in shown.items()
        ]
        self.operands = list(shown.values())
        self.slopes = [self._square(v, o, slopes[v]) for v, o in shown.items()]
        shapes = {array.shape[2:] for array in self.probabilities}
        if len(shapes) != 1 or len(set(next(iter(shapes)))) != 1:
            raise UsageError(
                "Not every layer has attention between all tokens",
                place=f"(queries, keys) {sorted(shapes)}",
            )
        self.tokens = self.probabilities[0].shape[-1]

    def _square(self, value: ir.Value, operand: Operand, array: Array) -> Array:
        """[B, heads, queries, keys], whatever the order of axes in the graph."""
        analysis = self._given.engine.planned.analysis
        rank = array.ndim
        query, key = _query_and_key(operand, rank)
        batch = batch_axis(analysis.axes[value]) + rank
        heads = [a for a in range(rank) if a not in (batch, query, key)]
        moved = array.transpose(batch, *heads, query, key)
        size = len(self._given.seed)
        return np.asarray(moved.reshape(size, -1, *moved.shape[-2:]))

    def square(self, place: int, array: Array) -> Array:
        """Numbers of the probabilities of a layer as [B, heads, queries, keys]."""
        return self._square(self._value(place), self.operands[place], array)

    def name(self, place: int) -> str:
        """Name of the probabilities of a layer."""
        return self._value(place).name or ""

    def _value(self, place: int) -> ir.Value:
        node, index = self.operands[place]
        value = node.inputs[index]
        assert value is not None
        return value

    def of_target(self, matrix: Array) -> Array:
        """The row of [B, T, T] that the target depends on, as units [B, units].

        It is the mean over the queries of the last layer that have a gradient: one query for a
        class token, the last token or a position of a language model, several if tokens are pooled.
        Keys before the first unit, such as a class token before patches, are cut off.
        """
        read = self.slopes[-1].any(axis=(1, 3)).astype(np.float64)
        share = read / np.maximum(read.sum(axis=1, keepdims=True), 1.0)
        rows = np.einsum("bq,bqk->bk", share, matrix)
        units = self._units()
        if rows.shape[1] < units:
            raise UsageError(f"There are {units} units, but attention between {rows.shape[1]}")
        return np.asarray(rows[:, rows.shape[1] - units :])

    def _units(self) -> int:
        grid = self._given.grid()
        if grid is not None:
            return grid[0] * grid[1]
        return int(self._given.feeds[self._given.explained].shape[1])


def _layers(given: BaselineInput) -> Mapping[ir.Value, Operand]:
    """Attention probabilities on paths to the target, in order, with a product that they enter."""
    plan = given.engine.planned.plan
    found: dict[ir.Value, Operand] = {}
    for step in reversed(plan.steps):
        for index, value in enumerate(step.node.inputs):
            if value is not None and (step.node, index) in plan.analysis.probabilities:
                found.setdefault(value, (step.node, index))
    if not found:
        raise UsageError("The model has no attention layers")
    return found


def _query_and_key(operand: Operand, rank: int) -> tuple[int, int]:
    """Axes of queries and keys: a product sums over the keys, and its result has the queries."""
    node, index = operand
    if node.op_type == "MatMul":
        return (rank - 2, rank - 1) if index == 0 else (rank - 1, rank - 2)
    terms, _, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    letters = terms.split(",")
    own, other = letters[index], letters[1 - index]
    query = [a for a, c in enumerate(own) if c in result and c not in other]
    key = [a for a, c in enumerate(own) if c in other and c not in result]
    if len(query) != 1 or len(key) != 1:
        raise UsageError("Attention over several axes at once", place=f"node {node.name!r}")
    return query[0], key[0]


def identity(like: Array) -> Array:
    """The unit matrix [B, T, T] of as many tokens."""
    batch, _, tokens, _ = like.shape
    return np.broadcast_to(np.eye(tokens), (batch, tokens, tokens))
