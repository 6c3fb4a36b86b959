"""Fused, quantised and packed operations, rewritten into primitive ones: one file per family."""

from palrp_onnx.graph.lowering import (
    activations,
    attention,
    embedding,
    norms,
    products,
    rotary,
)
from palrp_onnx.graph.lowering.table import REFUSED, lower, lowerable

__all__ = [
    "REFUSED",
    "activations",
    "attention",
    "embedding",
    "lower",
    "lowerable",
    "norms",
    "products",
    "rotary",
]
