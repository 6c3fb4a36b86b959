"""How relevance passes back through one operation: one function per operation."""

from palrp_onnx.rules import (
    activation,
    epsilon,
    gradient,
    linear,
    lossless_softmax,
    movement,
    norm,
    pooling,
    products,
    reduction,
    resizing,
    rounding,
    signed,
    softmax,
    sums,
)
from palrp_onnx.rules.registry import NO_PATH, Node, RuleEntry, Shares, find_rule, supported

__all__ = [
    "NO_PATH",
    "Node",
    "RuleEntry",
    "Shares",
    "activation",
    "epsilon",
    "find_rule",
    "gradient",
    "linear",
    "lossless_softmax",
    "movement",
    "norm",
    "pooling",
    "products",
    "reduction",
    "resizing",
    "rounding",
    "signed",
    "softmax",
    "sums",
    "supported",
]
