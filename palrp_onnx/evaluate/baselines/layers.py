"""Attention layers as parts of the graph: what a layer adds of one key, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from palrp_onnx.analysis.analysis import Operand
from palrp_onnx.analysis.axes import BATCH, TOKEN
from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines.attention import Attention
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.relevance.linear_layers import attention_layers
from palrp_onnx.types import Array


@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer.

    Attributes:
        values: The values that probabilities weigh.
        key: Their axis of keys.
        added: What the layer adds [B, T, D], without a bias: the product of both, or of the layer
            with weights after it.
        end: The value at the end of the layer [B, T, D], which everything later is a function of.
    """

    values: ir.Value
    key: int
    added: ir.Value
    end: ir.Value


def find_layers(given: BaselineInput, attention: Attention) -> list[AttentionLayer]:
    """The layers of ``attention``, first layer first.

    A layer ends at the last value that has the shape of what it adds and that all paths from its
    product to the target pass, before the next layer's product.

    Raises:
        UsageError: All paths of a layer meet at no value [B, T, D].
    """
    analysis = given.engine.planned.analysis
    projections, shapes = attention_layers(analysis), analysis.shapes
    nearest = _post_dominators(given)
    results = [operand[0].outputs[0] for operand in attention.operands]
    found = []
    for place, operand in enumerate(attention.operands):
        later = _before(results[place + 1]) if place + 1 < len(results) else None
        streams: list[ir.Value] = []
        value: ir.Value | None = results[place]
        while value is not None and (later is None or value in later):
            streams += [value] if _is_stream(given, value) else []
            value = nearest.get(value)
        if not streams:
            raise UsageError(
                "A layer of attention has no result for every token that the next one reads",
                place=f"node {operand[0].name!r}",
            )
        added = next((v for v in streams if v.producer() in projections), streams[0])
        alike = [v for v in streams if shapes[v] == shapes[added]]
        values = _value(operand[0], 1 - operand[1])
        found.append(AttentionLayer(values, _key(operand, given), added, alike[-1]))
    return found


def _is_stream(given: BaselineInput, value: ir.Value) -> bool:
    """Whether a value is [B, T, D]."""
    flags = given.engine.planned.analysis.axes.get(value, ())
    return len(flags) == 3 and bool(flags[0] & BATCH) and bool(flags[1] & TOKEN)


def _key(operand: Operand, given: BaselineInput) -> int:
    """The axis of keys of the operand that probabilities weigh."""
    node, index = operand
    rank = len(given.engine.planned.analysis.shapes[_value(node, 1 - index)])
    if node.op_type == "MatMul":
        return rank - 2 if index == 0 else rank - 1
    terms, _, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    letters = terms.split(",")
    own, other = letters[index], letters[1 - index]
    (key,) = [a for a, c in enumerate(other) if c in own and c not in result]
    return key


def _value(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _before(value: ir.Value) -> set[ir.Value]:
    seen, queue = {value}, [value]
    while queue:
        node = queue.pop().producer()
        fresh = [v for v in (node.inputs if node else ()) if v is not None and v not in seen]
        seen.update(fresh)
        queue += fresh
    return seen


def _post_dominators(given: BaselineInput) -> Mapping[ir.Value, ir.Value]:
    """Value → the nearest value that all its paths to the output pass.

    Results of nodes are visited from the output on; the nearest is the common one of all users.
    """
    planned = given.engine.planned
    nearest: dict[ir.Value, ir.Value] = {}
    depth = {planned.plan.output: 0}

    def common(one: ir.Value, other: ir.Value) -> ir.Value:
        while one is not other:
            if depth[one] < depth[other]:
                one, other = other, one
            one = nearest[one]
        return one

    for step in planned.plan.steps:
        reached = [v for v in step.node.outputs if v in depth]
        if not reached:
            continue
        for value in step.node.inputs:
            if value is None or value not in planned.analysis.content:
                continue
            above = reached[0]
            if value in nearest:
                above = common(nearest[value], above)
            nearest[value], depth[value] = above, depth[above] + 1
    return nearest


def rolled(attention: Attention, mixings: list[Array]) -> Array:
    """Rollout of matrices [B, T, T] with rows divided by their sums, each with half of itself."""
    joint: Array = np.eye(attention.tokens)[None]
    for mixing in mixings:
        sums = mixing.sum(axis=-1, keepdims=True)
        shares = np.divide(mixing, sums, out=np.zeros(mixing.shape), where=sums > 0)
        joint = (0.5 * shares + 0.5 * np.eye(attention.tokens)) @ joint
    return attention.of_target(joint)
