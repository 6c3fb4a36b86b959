"""Rotary embeddings as x ∘ cos + rotated(x) ∘ sin, the form of graphs without such an operation."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.builder import END, Builder, Fused, length_of, rank_of
from palrp_onnx.model.lowering.table import lowers


def rotate(
    b: Builder, x: ir.Value, cos: ir.Value, sin: ir.Value, half: int, interleaved: bool
) -> ir.Value:
    """Rotate the first 2 · ``half`` features of ``x`` [B, N, T, H] by tables [.., T, half]."""
    whole = x.shape is not None and x.shape[-1] == 2 * half
    turned = x if whole else b.slice(x, 0, 2 * half, -1)
    if interleaved:
        pairs = b.op("Reshape", turned, b.integers(0, 0, 0, half, 2))
        first, second = b.split(pairs, [1, 1], -1)
        swapped = b.op("Concat", b.op("Neg", second), first, axis=-1)
        rotated = b.op("Reshape", swapped, b.integers(0, 0, 0, 2 * half))
    else:
        first, second = b.split(turned, [half, half], -1)
        rotated = b.op("Concat", b.op("Neg", second), first, axis=-1)
    cos, sin = (_doubled(b, table, half, interleaved) for table in (cos, sin))
    result = b.op("Add", b.op("Mul", turned, cos), b.op("Mul", rotated, sin))
    return result if whole else b.op("Concat", result, b.slice(x, 2 * half, END, -1), axis=-1)


def _doubled(b: Builder, table: ir.Value, half: int, interleaved: bool) -> ir.Value:
    """A table [.., T, half] for both features of every rotated pair."""
    if not interleaved:
        return b.op("Concat", table, table, axis=-1)
    column = b.unsqueeze(table, -1)
    both = b.op("Concat", column, column, axis=-1)
    return b.op("Reshape", both, b.integers(0, 0, 0, 2 * half))


def picked(b: Builder, cache: ir.Value, positions: ir.Value) -> ir.Value:
    """Rows of a table [P, half] for positions [B, T] or [T], as [.., 1, T, half]."""
    rows = b.op("Gather", cache, positions, axis=0)
    return b.unsqueeze(rows, 0, 1) if rank_of(positions) == 1 else b.unsqueeze(rows, 1)


def integers_from(b: Builder, start: ir.Value, length: ir.Value) -> ir.Value:
    """start, start + 1, … [length]; both are 64-bit integer scalars."""
    return b.op("Range", start, b.op("Add", start, length), b.integer(1))


@lowers("RotaryEmbedding")
def _rotary_embedding(b: Builder, node: Fused) -> Sequence[ir.Value]:
    if node.integer("is_packed_batching", 0):
        raise NotImplementedError("with packed batches")
    if node.real("scale", 1.0) != 1.0:
        raise NotImplementedError("with a scale")
    positions = node.input(1)
    if rank_of(positions) == 1:  # one offset for all samples
        offset = b.squeeze(b.cast(positions, ir.DataType.INT64), 0)
        axis = 1 if rank_of(node.input(0)) == 3 else 2
        positions = integers_from(b, offset, b.size(node.input(0), axis))
    half = length_of(node.input(2), 1)
    tables = [picked(b, node.input(k), positions) for k in (2, 3)]
    return [_turned(b, node, tables, half, node.integer("num_heads", 0))]


@lowers("RotaryEmbedding", domain="")
def _standard_rotary_embedding(b: Builder, node: Fused) -> Sequence[ir.Value]:
    positions = node.optional(3)
    half = length_of(node.input(1), -1)
    if positions is not None:
        tables = [picked(b, node.input(k), positions) for k in (1, 2)]
    else:
        tables = [b.unsqueeze(node.input(k), 1) for k in (1, 2)]
    return [_turned(b, node, tables, half, node.integer("num_heads", 0))]


def _turned(b: Builder, node: Fused, tables: Sequence[ir.Value], half: int, heads: int) -> ir.Value:
    x = node.input(0)
    has_heads = rank_of(x) == 4
    if not has_heads:
        shape = (0, 0, heads, -1) if heads else (0, 0, -1, _width(node, half))
        x = b.transpose(b.reshape(x, *shape), 0, 2, 1, 3)
    cos, sin = tables
    turned = rotate(b, x, cos, sin, half, bool(node.integer("interleaved", 0)))
    if has_heads:
        return turned
    return b.reshape(b.transpose(turned, 0, 2, 1, 3), 0, 0, -1)


def _width(node: Fused, half: int) -> int:
    """Features of a head if the number of heads is not given."""
    if node.integer("rotary_embedding_dim", 0):
        raise NotImplementedError("with a part of each head turned and no number of heads")
    return 2 * half
