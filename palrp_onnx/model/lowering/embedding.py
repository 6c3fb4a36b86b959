"""Lookups in tables of words, positions, segments and distances, with what follows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from palrp_onnx.model.lowering.builder import Builder, Fused, length_of
from palrp_onnx.model.lowering.norms import layer_norm
from palrp_onnx.model.lowering.rotary import integers_from
from palrp_onnx.model.lowering.table import lowers


@lowers("OneHot", domain="")
def _one_hot(b: Builder, node: Fused) -> Sequence[ir.Value] | None:
    """One-hot vectors along another axis than the last: those along the last, transposed."""
    ids, axis = node.input(0), node.integer("axis", -1)
    rank = None if ids.shape is None else ids.shape.rank()
    if rank is None or axis in (-1, rank):
        return None
    vectors = b.op("OneHot", *node.node.inputs, axis=-1)
    axis %= rank + 1
    return [b.transpose(vectors, *range(axis), rank, *range(axis, rank))]


@lowers("EmbedLayerNormalization")
def _embed_layer_norm(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    ids = node.input(0)
    words = b.op("Gather", node.input(2), ids, axis=0)
    positions = node.optional(8)
    if positions is None:
        rows = b.op("Gather", node.input(3), integers_from(b, b.integer(0), b.size(ids, 1)), axis=0)
        places = b.unsqueeze(rows, 0)
    else:
        places = b.op("Gather", node.input(3), positions, axis=0)
    segments = node.optional(1)
    table = node.optional(4)
    kinds = None
    if segments is not None and table is not None:
        kinds = b.op("Gather", table, segments, axis=0)
    x = b.total(words, places, kinds)
    normed = layer_norm(b, x, node.input(5), node.input(6), node.real("epsilon", 1e-12))
    return [normed, lengths(b, node) if node.wants(1) else None, x]


def lengths(b: Builder, node: Fused) -> ir.Value:
    """Number of ones in every row of the mask [B]; 0 if there is no mask."""
    mask = node.optional(7)
    if mask is None:
        batch = b.slice(b.op("Shape", node.input(0)), 0, 1, 0)
        return b.op("Expand", b.array(np.zeros(1, np.int32)), batch)
    ones = b.op("Equal", b.cast(mask, ir.DataType.INT32), b.array(np.array(1, np.int32)))
    return b.reduce("ReduceSum", b.cast(ones, ir.DataType.INT32), 1, keepdims=False)


@lowers("RelativePositionBias")
def _relative_position_bias(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """A number for every head and distance [1, N, T, T], as in T5.

    The table is stored head by head, although its shape is [buckets, N].
    """
    table, furthest = node.input(0), node.integer("max_distance")
    count, heads = (length_of(table, axis) for axis in range(2))
    rows = b.transpose(b.reshape(table, heads, count), 1, 0)
    signed = bool(node.integer("is_bidirectional", 0))
    places, span = (b.cast(node.input(k), ir.DataType.INT64) for k in (1, 2))
    places, span = (
        integers_from(b, b.integer(0), b.op("Reshape", each, b.integers()))
        for each in (places, span)
    )
    distance = b.op("Sub", b.unsqueeze(span, 0), b.unsqueeze(places, 1))
    clipped = b.op("Clip", distance, b.integer(-furthest), b.integer(furthest))
    index = b.op("Add", clipped, b.integer(furthest))
    bucket = b.op("Gather", b.array(buckets(count, furthest, signed)), index, axis=0)
    found = b.op("Gather", rows, bucket, axis=0)
    return [b.unsqueeze(b.transpose(found, 2, 0, 1), 0)]


def buckets(count: int, furthest: int, signed: bool) -> NDArray[np.int64]:
    """The bucket of every distance, key minus query, from ``-furthest`` to ``furthest``.

    Half of the buckets hold one distance each; the width of the others grows with the logarithm of
    the distance. If ``signed``, keys after the query have the second half of the ``count`` buckets.
    """
    distance = np.arange(-furthest, furthest + 1)
    if signed:
        count //= 2
    exact, far = count // 2, np.abs(distance)
    share = np.log(np.maximum(far, exact).astype(np.float32) / exact) / np.log(furthest / exact)
    coarse = np.minimum(exact + (share * (count - exact)).astype(np.int64), count - 1)
    found = np.where(far < exact, far, coarse)
    return found + np.where(distance > 0, count, 0) if signed else found


@lowers("GatedRelativePositionBias")
def _gated_relative_position_bias(b: Builder, node: Fused) -> Sequence[ir.Value]:
    """A bias for every distance, times a gate computed from the query, as in WavLM [B, N, T, T]."""
    if node.optional(6) is not None:
        raise NotImplementedError("with packed batches")
    query = b.op("Add", node.input(0), node.input(1))
    heads = b.transpose(b.reshape(query, 0, 0, node.integer("num_heads"), -1), 0, 2, 1, 3)
    scores = b.op("Add", b.op("MatMul", heads, node.input(3)), node.input(4))
    sums = b.reduce("ReduceSum", b.op("Reshape", scores, b.integers(0, 0, 0, 2, -1)), -1)
    update, reset = b.split(b.op("Sigmoid", b.squeeze(sums, 4)), [1, 1], -1)
    inner = b.op("Sub", b.op("Mul", reset, node.input(5)), b.real(1.0, reset))
    gate = b.op("Add", b.op("Mul", update, inner), b.real(2.0, update))
    return [b.op("Mul", gate, node.input(2))]
