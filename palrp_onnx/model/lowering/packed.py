"""Batches packed without padding: tokens of all samples in one row, for GPU kernels.

In the rewritten graph the batch is padded: every sample has all its places, and attention ignores
those after its last token. Numbers in the padding reach no other token; ``RestorePadding`` makes
them zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from palrp_onnx.model.lowering.attention import (
    Heads,
    attend,
    each_sample,
    lowest,
    merge_heads,
    split_heads,
    switched,
)
from palrp_onnx.model.lowering.builder import END, Builder, Fused, length_of, rank_of
from palrp_onnx.model.lowering.rotary import integers_from
from palrp_onnx.model.lowering.table import lowers

#: Key in the ``meta`` of a node that numbers the tokens of a batch: tokens of each sample [B].
_LENGTHS = "lengths"


@lowers("RemovePadding")
def _remove(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    """Rows [B·S, H], token numbers [B, S], ends of samples [B + 1], length of the longest [1]."""
    x, lengths = node.input(0), b.cast(node.input(1), ir.DataType.INT64)
    shape = b.slice(b.op("Shape", x), 0, 2, 0)
    rows = b.op("Reshape", x, b.op("Concat", b.integers(-1), _width(b, x), axis=0))
    numbers = integers_from(b, b.integer(0), b.op("Size", b.op("Gather", x, b.integer(0), axis=2)))
    offsets = b.op("Reshape", b.cast(numbers, ir.DataType.INT32), shape)
    offsets.producer().meta[_LENGTHS] = lengths  # type: ignore[union-attr]  # made above
    ends = b.op("CumSum", lengths, b.integer(0))
    ends = b.cast(b.op("Concat", b.integers(0), ends, axis=0), ir.DataType.INT32)
    longest = b.cast(b.op("ReduceMax", lengths, keepdims=1), ir.DataType.INT32)
    return [rows, offsets, ends, longest]


@lowers("RestorePadding")
def _restore(b: Builder, node: Fused) -> Sequence[ir.Value]:
    offsets, lengths = _numbering(node, 1)
    x = _samples(b, node.input(0), offsets)
    places = b.unsqueeze(integers_from(b, b.integer(0), b.size(offsets, 1)), 0, 2)
    held = b.op("Less", places, b.op("Reshape", lengths, b.integers(-1, 1, 1)))
    return [b.op("Where", held, x, b.real(0.0, x))]


@lowers("PackedAttention")
def _attention(b: Builder, node: Fused) -> Sequence[ir.Value]:
    offsets, lengths = _numbering(node, 3)
    sizes = node.node.attributes.get("qkv_hidden_sizes")
    width = length_of(node.input(1), 1)
    parts = list(sizes.as_ints()) if sizes is not None else [width // 3] * 3
    product = b.op("MatMul", _samples(b, node.input(0), offsets), node.input(1))
    pieces = b.split(b.total(product, node.optional(2)), parts, -1)
    return [_attended(b, node, pieces, lengths, node.optional(5))]


@lowers("PackedMultiHeadAttention")
def _multi_head_attention(b: Builder, node: Fused) -> Sequence[ir.Value]:
    offsets, lengths = _numbering(node, 4)
    if node.optional(2) is None or rank_of(node.input(0)) != 2:
        raise NotImplementedError("with queries, keys and values in one operand")
    pieces = [_samples(b, node.input(k), offsets) for k in range(3)]
    if (bias := node.optional(3)) is not None:
        widths = [length_of(node.input(k), 1) for k in range(3)]
        pairs = zip(pieces, b.split(bias, widths, 0), strict=True)
        pieces = [b.op("Add", piece, part) for piece, part in pairs]
    return [_attended(b, node, pieces, lengths, node.optional(6))]


def _attended(
    b: Builder,
    node: Fused,
    pieces: Sequence[ir.Value],
    lengths: ir.Value,
    bias: ir.Value | None,
) -> ir.Value:
    """Rows [B·S, V] of attention among the unpadded tokens of each sample."""
    heads = Heads(*(split_heads(b, piece, node.integer("num_heads")) for piece in pieces))
    columns = integers_from(b, b.integer(0), b.size(heads.k, 2))
    keep = b.op("Less", columns, each_sample(b, lengths))
    masked = switched(b, keep, lowest(heads.q), heads.q)
    found = attend(b, heads, node.real("scale", 0.0) or None, [bias, masked])
    merged = merge_heads(b, found.output)
    return b.op("Reshape", merged, b.op("Concat", b.integers(-1), _width(b, merged), axis=0))


def _numbering(node: Fused, index: int) -> tuple[ir.Value, ir.Value]:
    """Token numbers [B, S], and the number of tokens of every sample [B]."""
    offsets = node.input(index)
    maker = offsets.producer()
    if maker is None or _LENGTHS not in maker.meta:
        raise NotImplementedError("of tokens that were packed outside of the graph")
    return offsets, maker.meta[_LENGTHS]


def _samples(b: Builder, rows: ir.Value, offsets: ir.Value) -> ir.Value:
    """[B·S, H] → [B, S, H]."""
    return b.op("Reshape", rows, b.op("Concat", b.op("Shape", offsets), _width(b, rows), axis=0))


def _width(b: Builder, x: ir.Value) -> ir.Value:
    return b.slice(b.op("Shape", x), -1, END, 0)
