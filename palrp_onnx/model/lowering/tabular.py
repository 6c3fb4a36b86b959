"""Operations of classical machine learning (``ai.onnx.ml``) that are linear or element-wise.

Others are refused with the reason in ``rules/refused.py``: decision trees and votes are steps of
their input, and have no share for every feature that a rule could pass. So are kernels, which
compare it with stored samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.builder import Builder, Fused, length_of, rank_of
from palrp_onnx.model.lowering.table import lowers
from palrp_onnx.types import Array

DOMAIN = "ai.onnx.ml"


def class_labels(node: ir.Node) -> list[str]:
    """The labels that a node gives to the columns of its scores, as text."""
    for name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
        attribute = node.attributes.get(name)
        if attribute is not None:
            texts = name.endswith("strings")
            return list(map(str, attribute.as_strings() if texts else attribute.as_ints()))
    return []


@lowers("LinearRegressor", domain=DOMAIN)
def _linear_regressor(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """x Wᵀ + b."""
    return [_transformed(b, node, _scores(b, node, node.integer("targets", 1)))]


@lowers("LinearClassifier", domain=DOMAIN)
def _linear_classifier(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    """x Wᵀ + b; a single score s of two classes becomes (−s, s), or (1 − s, s) as it is."""
    labels = class_labels(node.node)
    count = len(_reals(node, "intercepts")) or len(labels)
    scores = _scores(b, node, count)
    two = count == 1 and len(labels) == 2
    best = None
    if node.wants(0):
        best = _best(b, scores, two)
        texts = "classlabels_strings" in node.node.attributes
        table = b.array(np.array(labels, object if texts else np.int64))
        best = b.op("Gather", table, best, axis=0)
    if two:
        logistic = node.text("post_transform", "NONE") == "LOGISTIC"
        other = b.op("Neg", scores) if logistic else b.op("Sub", b.real(1.0, scores), scores)
        scores = b.op("Concat", other, scores, axis=-1)
        if not logistic and node.text("post_transform", "NONE") == "SOFTMAX":
            return [best, scores]
    return [best, _transformed(b, node, scores)]


def _best(b: Builder, scores: ir.Value, two: bool) -> ir.Value:
    """Column of the largest score; of a single one, whether it is positive."""
    if not two:
        return b.op("ArgMax", scores, axis=-1, keepdims=0)
    positive = b.op("Greater", b.squeeze(scores, -1), b.real(0.0, scores))
    return b.cast(positive, ir.DataType.INT64)


@lowers("SVMRegressor", domain=DOMAIN)
def _svm_regressor(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """Σ c_k (x · v_k) + ρ over the support vectors v, which is x · Σ c_k v_k + ρ."""
    kernel = node.text("kernel_type", "LINEAR")
    if kernel != "LINEAR":
        raise NotImplementedError(f"the kernel {kernel} compares the input with stored samples")
    if node.integer("one_class", 0):
        raise NotImplementedError("one class: its result is a sign")
    supports, weights = node.integer("n_supports", 0), _reals(node, "coefficients")
    if supports:
        weights = weights @ _reals(node, "support_vectors").reshape(supports, -1)
    product = _product(b, node, weights.reshape(-1, 1))
    offset = b.array(_reals(node, "rho")[:1])
    return [_transformed(b, node, b.op("Add", product, offset))]


def _scores(b: Builder, node: Fused, count: int) -> ir.Value:
    weights = _reals(node, "coefficients")
    if not count or weights.size % count:
        raise NotImplementedError("coefficients that are not the same number for every score")
    product = _product(b, node, weights.reshape(count, -1).T)
    offset = _reals(node, "intercepts")
    return b.op("Add", product, b.array(offset)) if offset.size else product


def _product(b: Builder, node: Fused, weights: Array) -> ir.Value:
    if rank_of(node.input(0)) != 2:
        raise NotImplementedError("features that are not a table [samples, features]")
    return b.op("MatMul", _real(b, node.input(0)), b.array(np.ascontiguousarray(weights)))


def _transformed(b: Builder, node: Fused, scores: ir.Value) -> ir.Value:
    """The scores after ``post_transform``."""
    match node.text("post_transform", "NONE"):
        case "NONE":
            return scores
        case "LOGISTIC":
            return b.op("Sigmoid", scores)
        case "SOFTMAX":
            return b.op("Softmax", scores, axis=-1 if b.opset >= 13 else rank_of(scores) - 1)
        case other:
            raise NotImplementedError(f"scores after {other}")


@lowers("Scaler", domain=DOMAIN)
def _scaler(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """(x − offset) ∘ scale."""
    x, offset, scale = _real(b, node.input(0)), _reals(node, "offset"), _reals(node, "scale")
    shifted = b.op("Sub", x, b.array(offset)) if offset.size else x
    return [b.op("Mul", shifted, b.array(scale)) if scale.size else shifted]


@lowers("Normalizer", domain=DOMAIN)
def _normalizer(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """x over its largest entry or its length, row by row."""
    x, norm = _real(b, node.input(0)), node.text("norm", "MAX")
    if norm != "MAX":
        return [b.op("LpNormalization", x, axis=-1, p=1 if norm == "L1" else 2)]
    largest = b.reduce("ReduceMax", x, -1)
    none = b.op("Equal", largest, b.real(0.0, x))
    return [b.op("Div", x, b.op("Where", none, b.real(1.0, x), largest))]


@lowers("FeatureVectorizer", domain=DOMAIN)
def _feature_vectorizer(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """Tables of features side by side."""
    tables = [node.input(k) for k in range(len(node.node.inputs))]
    widths = node.node.attributes.get("inputdimensions")
    if any(rank_of(x) != 2 for x in tables) or widths is None:
        raise NotImplementedError("features that are not tables of known widths")
    if [length_of(x, 1) for x in tables] != list(widths.as_ints()):
        raise NotImplementedError("tables that are cut or padded")
    return [b.op("Concat", *(_real(b, x) for x in tables), axis=1)]


@lowers("ArrayFeatureExtractor", domain=DOMAIN)
def _array_feature_extractor(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """Columns."""
    if rank_of(node.input(0)) < 2:
        raise NotImplementedError("features without an axis of samples")
    return [b.op("Gather", node.input(0), b.reshape(node.input(1), -1), axis=-1)]


@lowers("Binarizer", domain=DOMAIN)
def _binarizer(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """1 above the threshold, else 0."""
    x = node.input(0)
    above = b.op("Greater", x, b.real(node.real("threshold", 0.0), x))
    return [b.cast_like(above, x)]


@lowers("Imputer", domain=DOMAIN)
def _imputer(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """Stored numbers in place of missing ones."""
    x, filled = node.input(0), _reals(node, "imputed_value_floats")
    if not filled.size:
        raise NotImplementedError("values that are no real numbers")
    missing = node.real("replaced_value_float", math.nan)
    is_missing = b.op("IsNaN", x) if math.isnan(missing) else None
    is_missing = is_missing or b.op("Equal", x, b.real(missing, x))
    return [b.op("Where", is_missing, b.array(filled), x)]


def _real(b: Builder, x: ir.Value) -> ir.Value:
    return b.cast(x, ir.DataType.FLOAT)


def _reals(node: Fused, name: str) -> Array:
    attribute = node.node.attributes.get(name)
    return np.array([] if attribute is None else attribute.as_floats(), np.float32)
