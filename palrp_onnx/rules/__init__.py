"""How relevance passes back through one operation: one function per operation."""

from palrp_onnx.rules import (
    activation,
    epsilon,
    gradient,
    kept,
    linear,
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
from palrp_onnx.rules.registry import NO_PATH, Entry, Node, Shares, find_rule, supported

__all__ = [
    "NO_PATH",
    "Entry",
    "Node",
    "Shares",
    "activation",
    "epsilon",
    "find_rule",
    "gradient",
    "kept",
    "linear",
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
