"""Rewriting fused, quantised and packed operations into primitive ones: one file per family."""

from palrp_onnx.model.lowering import (
    activations,
    attention,
    blocked,
    blocks,
    embedding,
    experts,
    integers,
    nchwc,
    norms,
    packed,
    products,
    qlinear,
    quantise,
    recurrent,
    rotary,
    tabular,
)
from palrp_onnx.model.lowering.builder import product_name
from palrp_onnx.model.lowering.table import REFUSED, lower, lowerable

__all__ = [
    "REFUSED",
    "activations",
    "attention",
    "blocked",
    "blocks",
    "embedding",
    "experts",
    "integers",
    "lower",
    "lowerable",
    "nchwc",
    "norms",
    "packed",
    "product_name",
    "products",
    "qlinear",
    "quantise",
    "recurrent",
    "rotary",
    "tabular",
]
