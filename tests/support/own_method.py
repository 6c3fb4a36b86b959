"""A method and rules that this package does not have, as a user writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from palrp_onnx import Parameter, method
from palrp_onnx.rules import Node, products, rule
from palrp_onnx.rules.registry import T
from palrp_onnx.tensor.language import Language

SET = "uneven in tests"


@rule("MatMul", under=SET)
def uneven(op: Language[T], node: Node[T], m: T) -> Sequence[T | None]:
    """The first of two activations gets the share λ, the second the rest."""
    first, second = products.matmul(op, node, m)
    if first is None or second is None:
        return first, second
    share = node.parameter("share")
    return op.scale(first, 2 * share), op.scale(second, 2 * (1 - share))


MINE = replace(
    method("pa-lrp"),
    name="uneven-in-tests",
    rules=(SET,),
    parameters={"share": Parameter(0.5, 0.0, 1.0, "share of the first")},
)
