"""Attention in one operation, rewritten into projections, heads, masks, scores and products.

The rewritten graph computes what ONNX Runtime's kernels compute: a mask of one axis holds the
number of keys of each sample; a large negative number is added to masked scores, so that a query
whose keys are all masked still attends to them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from palrp_onnx.model.lowering.builder import (
    END,
    Builder,
    Fused,
    dtype_of,
    length_of,
    rank_of,
)
from palrp_onnx.model.lowering.rotary import integers_from, picked, rotate
from palrp_onnx.model.lowering.table import lowers


class Heads(NamedTuple):
    """Queries [B, N, T, H], keys [B, N, S, H] and values [B, N, S, V]."""

    q: ir.Value
    k: ir.Value
    v: ir.Value


class AttentionResult(NamedTuple):
    """Result of attention [B, N, T, V], and its scores [B, N, T, S] at four stages."""

    output: ir.Value
    raw: ir.Value
    capped: ir.Value
    biased: ir.Value
    weights: ir.Value


def split_heads(b: Builder, x: ir.Value, heads: int) -> ir.Value:
    """[B, T, N·H] → [B, N, T, H]."""
    return b.transpose(b.reshape(x, 0, 0, heads, -1), 0, 2, 1, 3)


def merge_heads(b: Builder, x: ir.Value) -> ir.Value:
    """[B, N, T, H] → [B, T, N·H]."""
    return b.reshape(b.transpose(x, 0, 2, 1, 3), 0, 0, -1)


def repeat_heads(b: Builder, x: ir.Value, times: int, heads: int) -> ir.Value:
    """Heads of keys or values repeated for the queries that share them: [B, M, ..] → [B, N, ..]."""
    if times == 1:
        return x
    copies = b.op("Expand", b.unsqueeze(x, 2), b.integers(1, 1, times, 1, 1))
    shape = b.op(
        "Concat",
        b.integers(0),
        b.integers(heads),
        b.integers(-1),
        b.unsqueeze(b.size(x, 3), 0),
        axis=0,
    )
    return b.op("Reshape", copies, shape)


def attend(
    b: Builder,
    heads: Heads,
    scale: float | None,
    biases: Sequence[ir.Value | None] = (),
    *,
    softcap: float = 0.0,
    sink: ir.Value | None = None,
    guarded: bool = False,
) -> AttentionResult:
    """softmax(scale · q kᵀ + biases) v.

    Args:
        b: The builder.
        heads: Queries, keys and values.
        scale: 1/√H where it is ``None``.
        biases: Terms that are added to the scores, masks among them.
        softcap: Scores are limited to ± this by a tanh; no limit if 0.
        sink: A further score [1, N, 1, 1] in the softmax of every query, without a value.
        guarded: Whether a query whose scores are all −∞ has weights 0 instead of NaN.
    """
    q, k, v = heads
    product = b.op("MatMul", q, b.transpose(k, 0, 1, 3, 2))
    raw = b.scale(product, scale) if scale else b.op("Mul", product, _usual_scale(b, q))
    capped = raw
    if softcap:
        capped = b.scale(b.op("Tanh", b.scale(raw, 1.0 / softcap)), softcap)
    biased = b.total(capped, *biases)
    if sink is None:
        weights = b.op("Softmax", biased, axis=-1)
        if guarded and any(term is not None for term in biases):
            weights = b.op("Where", b.op("IsNaN", weights), b.real(0.0, weights), weights)
    else:
        shape = b.op("Shape", b.slice(biased, 0, 1, -1))
        both = b.op("Concat", biased, b.op("Expand", sink, shape), axis=-1)
        weights = b.slice(b.op("Softmax", both, axis=-1), 0, -1, -1)
    return AttentionResult(b.op("MatMul", weights, v), raw, capped, biased, weights)


def _usual_scale(b: Builder, q: ir.Value) -> ir.Value:
    """1/√H."""
    width = q.shape[3] if q.shape is not None else None
    if isinstance(width, int):
        return b.real(1.0 / math.sqrt(width), q)
    return b.op("Reciprocal", b.op("Sqrt", b.cast_like(b.size(q, 3), q)))


def switched(b: Builder, keep: ir.Value, low: float, like: ir.Value) -> ir.Value:
    """An additive mask: 0 where ``keep`` is true, ``low`` elsewhere."""
    return b.op("Where", keep, b.real(0.0, like), b.real(low, like))


def lowest(like: ir.Value) -> float:
    """The most negative finite number of a value's type."""
    return float(np.finfo(dtype_of(like)).min)


def _columns(b: Builder, heads: Heads) -> ir.Value:
    """0, 1, … for every key [S]."""
    return integers_from(b, b.integer(0), b.size(heads.k, 2))


def places(b: Builder, heads: Heads, past: ir.Value | None) -> ir.Value:
    """Index [T, 1] of the key at the position of each query, after the ``past`` [B, N, P, H]."""
    start = b.integer(0) if past is None else b.size(past, 2)
    return b.unsqueeze(integers_from(b, start, b.size(heads.q, 2)), 1)


def causal_keep(b: Builder, rows: ir.Value, heads: Heads, window: int = 0) -> ir.Value:
    """Whether a query may attend to a key [.., T, S]: the key at ``rows`` [.., T, 1] or before it.

    Only to the last ``window`` of these keys, unless ``window`` is 0.
    """
    columns = _columns(b, heads)
    keep = b.op("Not", b.op("Greater", columns, rows))
    if window > 0:
        near = b.op("Greater", columns, b.op("Sub", rows, b.integer(window)))
        keep = b.op("And", keep, near)
    return keep


def each_sample(b: Builder, numbers: ir.Value) -> ir.Value:
    """Integers, one for each sample, to compare with scores [B, 1, 1, 1]."""
    return b.op("Reshape", b.cast(numbers, ir.DataType.INT64), b.integers(-1, 1, 1, 1))


def padding_keep(b: Builder, mask: ir.Value, heads: Heads, past: ir.Value | None) -> ir.Value:
    """Whether a query may attend to a key [B, 1, T or 1, S], from a mask of any rank.

    A mask of one axis: see :func:`_spans`; of two: keys [B, S]; of three: [B, T, S]; of four:
    [B, 1, M, M], with M ≥ S, cut to the rows and columns of the tokens. More than 0 is unmasked.
    """
    rank = rank_of(mask)
    if rank == 1:
        return _spans(b, mask, heads)
    if rank == 4:
        start = b.integer(0) if past is None else b.size(past, 2)
        end = b.op("Add", start, b.size(heads.q, 2))
        begins = b.op("Concat", b.unsqueeze(start, 0), b.integers(0), axis=0)
        ends = (b.unsqueeze(each, 0) for each in (end, b.size(heads.k, 2)))
        mask = b.op("Slice", mask, begins, b.op("Concat", *ends, axis=0), b.integers(2, 3))
    keep = b.op("Greater", b.cast(mask, ir.DataType.INT32), b.array(np.array(0, np.int32)))
    return keep if rank == 4 else b.unsqueeze(keep, *((1, 2) if rank == 2 else (1,)))


def _spans(b: Builder, mask: ir.Value, heads: Heads) -> ir.Value:
    """Whether a key is between a start and an end [B, 1, 1, S].

    A mask of 2 B entries holds the ends, then the starts. In a mask of another length the first B
    entries are the ends (further ones describe packed tokens), and every start is 0.
    """
    mask, batch = b.cast(mask, ir.DataType.INT64), b.size(heads.q, 0)
    first, twice = b.integers(0), b.op("Mul", batch, b.integer(2))
    ends = b.op("Slice", mask, first, b.unsqueeze(batch, 0), first)
    last = b.op("Slice", mask, b.op("Neg", b.unsqueeze(batch, 0)), b.integers(END), first)
    both = b.op("Equal", b.size(mask, 0), twice)
    starts = b.op("Where", both, last, b.integer(0))
    columns = _columns(b, heads)
    early = b.op("Less", columns, each_sample(b, starts))
    return b.op("And", b.op("Less", columns, each_sample(b, ends)), b.op("Not", early))


def _read_results(node: Fused, *results: ir.Value) -> list[ir.Value | None]:
    """The results, with ``None`` for those that nothing reads."""
    return [result if node.wants(index) else None for index, result in enumerate(results)]


def _joined(b: Builder, past: ir.Value | None, own: ir.Value) -> ir.Value:
    return own if past is None else b.op("Concat", past, own, axis=2)


@lowers("Attention")
def _attention(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    if node.integer("do_rotary", 0):
        raise NotImplementedError("with rotations inside")
    sizes = node.node.attributes.get("qkv_hidden_sizes")
    width = length_of(node.input(1), 1)
    parts = list(sizes.as_ints()) if sizes is not None else [width // 3] * 3
    product = b.op("MatMul", node.input(0), node.input(1))
    return attention_of(b, node, b.total(product, node.optional(2)), parts, mask=3, past=4, bias=5)


def attention_of(
    b: Builder,
    node: Fused,
    packed: ir.Value,
    parts: Sequence[int],
    *,
    mask: int,
    past: int,
    bias: int | None,
) -> Sequence[ir.Value | None]:
    """Attention of packed queries, keys and values, and its new cache.

    Args:
        b: The builder.
        node: The node.
        packed: Queries, keys and values, concatenated [B, T, ..].
        parts: Their widths.
        mask: Index of the mask among the inputs.
        past: Index of the cache among the inputs.
        bias: Index among the inputs of the term that is added to the scores.
    """
    count = node.integer("num_heads")
    q, k, v = (split_heads(b, part, count) for part in b.split(packed, parts, -1))
    cache, before = node.optional(past), None
    if cache is not None:
        before, old = (b.op("Gather", cache, b.integer(each), axis=0) for each in range(2))
        k, v = _joined(b, before, k), _joined(b, old, v)
    heads = Heads(q, k, v)
    biases = _biases(b, node, heads, before, mask, bias)
    output = attend(b, heads, node.real("scale", 0.0) or None, biases).output
    present = None
    if node.wants(1):
        present = b.op("Concat", b.unsqueeze(k, 0), b.unsqueeze(v, 0), axis=0)
    return [merge_heads(b, output), present]


def _biases(
    b: Builder, node: Fused, heads: Heads, past: ir.Value | None, mask: int, bias: int | None
) -> list[ir.Value | None]:
    """Terms that are added to the scores, as in the fused operations of ONNX Runtime.

    A key that both masks hide gets the number of the causal mask, not the sum.
    """
    given, masked = node.optional(mask), None
    if given is not None:
        keep = padding_keep(b, given, heads, past)
        masked = switched(b, keep, node.real("mask_filter_value", -10000.0), heads.q)
    if node.integer("unidirectional", 0):
        keep = causal_keep(b, places(b, heads, past), heads)
        otherwise = masked if masked is not None else b.real(0.0, heads.q)
        masked = b.op("Where", keep, otherwise, b.real(lowest(heads.q), heads.q))
    return [None if bias is None else node.optional(bias), masked]


@lowers("MultiHeadAttention")
def _multi_head_attention(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    heads = _unpacked(b, node, node.integer("num_heads"))
    past = node.optional(6)
    if past is not None and (node.optional(8) is not None or node.optional(9) is not None):
        raise NotImplementedError("with a cache in a buffer that is filled up to a length")
    k, v = _joined(b, past, heads.k), _joined(b, node.optional(7), heads.v)
    heads = Heads(heads.q, k, v)
    biases = _biases(b, node, heads, past, 4, 5)
    attended = attend(b, heads, node.real("scale", 0.0) or None, biases)
    return _read_results(node, merge_heads(b, attended.output), k, v, attended.biased)


@lowers("DecoderMaskedMultiHeadAttention")
def _decoder_attention(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    """One query that attends to the given keys and values of an encoder."""
    key, value, offset = node.optional(1), node.optional(2), node.optional(10)
    if key is None or value is None or rank_of(key) != 4:
        raise NotImplementedError("with a cache that is written in place")
    query, count = node.input(0), node.integer("num_heads")
    if offset is not None:  # for queries, keys and values; the last two have it added already
        offset = _offsets(b, offset, query)[0]
    heads = Heads(split_heads(b, b.total(query, offset), count), key, value)
    biases = _biases(b, node, heads, None, 3, 4)
    attended = attend(b, heads, node.real("scale", 0.0) or None, biases)
    return _read_results(node, merge_heads(b, attended.output), key, value, attended.biased)


def _unpacked(b: Builder, node: Fused, count: int) -> Heads:
    """Queries, keys and values from each of the packed and separate layouts."""
    query, key, value = node.input(0), node.optional(1), node.optional(2)
    if value is None and node.optional(3) is not None:
        raise NotImplementedError("packed, with a bias")
    if key is None:  # [B, T, N, 3, H]
        return Heads(*(_piece(b, query, each) for each in range(3)))
    bias = node.optional(3)
    offsets = [None] * 3 if bias is None else _offsets(b, bias, query)
    q = split_heads(b, b.total(query, offsets[0]), count)
    if value is None:  # [B, S, N, 2, H]
        return Heads(q, _piece(b, key, 0), _piece(b, key, 1))
    if rank_of(key) == 4:
        return Heads(q, key, value)
    k, v = (
        split_heads(b, b.total(x, offset), count)
        for x, offset in zip((key, value), offsets[1:], strict=True)
    )
    return Heads(q, k, v)


def _piece(b: Builder, packed: ir.Value, index: int) -> ir.Value:
    return b.transpose(b.op("Gather", packed, b.integer(index), axis=3), 0, 2, 1, 3)


def _offsets(b: Builder, bias: ir.Value, query: ir.Value) -> list[ir.Value | None]:
    """The biases of queries, keys and values; the first two as wide as ``query`` [B, T, N·H]."""
    width = b.unsqueeze(b.size(query, 2), 0)
    twice, first = b.op("Mul", width, b.integers(2)), b.integers(0)
    ends = ((first, width), (width, twice), (twice, b.integers(END)))
    return [b.op("Slice", bias, start, end, first) for start, end in ends]


@lowers("GroupQueryAttention")
def _group_query_attention(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    for index, what in ((12, "scales"), (13, "scales"), (14, "norms"), (15, "norms"), (16, "rows")):
        if node.optional(index) is not None:
            raise NotImplementedError(f"with {what} of its own")
    if node.wants(3):
        raise NotImplementedError("with its scores read")
    past = node.optional(3)
    length = 0 if past is None or past.shape is None else past.shape[2]
    if isinstance(length, int) and length:
        raise NotImplementedError("with a cache of fixed length")
    count, groups = node.integer("num_heads"), node.integer("kv_num_heads")
    q, k, v = _grouped(b, node, count, groups)
    if node.integer("do_rotary", 0):
        positions = _positions(b, node, past, q)
        cos, sin = (picked(b, node.input(each), positions) for each in (7, 8))
        half, mixed = length_of(node.input(7), 1), bool(node.integer("rotary_interleaved", 0))
        q, k = (rotate(b, x, cos, sin, half, mixed) for x in (q, k))
    k, v = _joined(b, past, k), _joined(b, node.optional(4), v)
    heads = Heads(q, *(repeat_heads(b, x, count // groups, count) for x in (k, v)))
    window = max(node.integer("local_window_size", -1), 0)
    keep = causal_keep(b, each_sample(b, node.input(5)), heads)  # keys after the last are padding
    if node.integer("causal", 1):
        keep = b.op("And", keep, causal_keep(b, places(b, heads, past), heads, window))
    low = -np.inf if window else lowest(q)  # in padding, a window may contain no key
    attended = attend(
        b,
        heads,
        node.real("scale", 0.0) or None,
        [node.optional(10), switched(b, keep, low, q)],
        softcap=node.real("softcap", 0.0),
        sink=_sink(b, node, q, count),
        guarded=window > 0,
    )
    return _read_results(node, merge_heads(b, attended.output), k, v)


def _positions(b: Builder, node: Fused, past: ir.Value | None, q: ir.Value) -> ir.Value:
    """Positions of the tokens of a prompt [T]; of given positions only the first is read."""
    given = node.optional(9)
    if given is not None:
        flat = b.reshape(b.cast(given, ir.DataType.INT64), -1)
        start = b.op("Gather", flat, b.integer(0), axis=0)
    else:
        start = b.integer(0) if past is None else b.size(past, 2)
    return integers_from(b, start, b.size(q, 2))


def _sink(b: Builder, node: Fused, q: ir.Value, count: int) -> ir.Value | None:
    """The score without a value: learned for each head, or 0."""
    learned = node.optional(11)
    if learned is not None:
        return b.unsqueeze(learned, 0, 2, 3)
    if node.integer("smooth_softmax", 0) != 1:
        return None
    zero = b.array(np.zeros((1, 1, 1, 1), dtype_of(q)))
    return b.op("Expand", zero, b.integers(1, count, 1, 1))


def _grouped(b: Builder, node: Fused, count: int, groups: int) -> Heads:
    query, key, value = node.input(0), node.optional(1), node.optional(2)
    if key is not None and value is not None:
        return Heads(
            split_heads(b, query, count),
            split_heads(b, key, groups),
            split_heads(b, value, groups),
        )
    packed = split_heads(b, query, count + 2 * groups)
    return Heads(*b.split(packed, [count, groups, groups], 1))


@lowers("Attention", domain="")
def _standard_attention(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    query = node.input(0)
    has_heads = rank_of(query) == 4
    if has_heads:
        q, k, v = (node.input(each) for each in range(3))
        count, groups = length_of(q, 1), length_of(k, 1)
    else:
        count, groups = node.integer("q_num_heads"), node.integer("kv_num_heads")
        q = split_heads(b, query, count)
        k, v = (split_heads(b, node.input(each), groups) for each in (1, 2))
    k, v = _joined(b, node.optional(4), k), _joined(b, node.optional(5), v)
    heads = Heads(q, *(repeat_heads(b, x, count // groups, count) for x in (k, v)))
    attended = attend(
        b,
        heads,
        node.real("scale", 0.0) or None,
        _standard_biases(b, node, heads),
        softcap=node.real("softcap", 0.0),
        guarded=True,
    )
    scores = attended[1 + node.integer("qk_matmul_output_mode", 0)]
    output = attended.output if has_heads else merge_heads(b, attended.output)
    return _read_results(node, output, k, v, scores)


def _standard_biases(b: Builder, node: Fused, heads: Heads) -> list[ir.Value | None]:
    terms: list[ir.Value | None] = []
    mask = node.optional(3)
    if mask is not None:
        boolean = mask.dtype == ir.DataType.BOOL
        terms.append(switched(b, mask, -np.inf, heads.q) if boolean else b.cast_like(mask, heads.q))
    terms.append(_window(b, node, heads))
    lengths = node.optional(6)
    if lengths is None and not node.integer("is_causal", 0):
        return terms
    if lengths is None:
        rows = places(b, heads, node.optional(4))
    else:
        rows = b.op("Sub", each_sample(b, lengths), b.integer(1))
        if node.integer("is_causal", 0):  # queries are the last tokens before the padding
            own = b.op("Sub", places(b, heads, None), b.size(heads.q, 2))
            rows = b.op("Add", each_sample(b, lengths), own)
    terms.append(switched(b, causal_keep(b, rows, heads), -np.inf, heads.q))
    return terms


def _window(b: Builder, node: Fused, heads: Heads) -> ir.Value | None:
    """The mask of keys too far before or after a query; a window of −1 has no limit."""
    left, right = (node.integer(f"{side}_window_size", -1) for side in ("left", "right"))
    if left < 0 and right < 0:
        return None
    if node.optional(6) is not None:
        raise NotImplementedError("within a window, with key lengths")
    rows, columns = places(b, heads, node.optional(4)), _columns(b, heads)
    too_far = []
    if left >= 0:
        too_far.append(b.op("Less", columns, b.op("Sub", rows, b.integer(left))))
    if right >= 0:
        too_far.append(b.op("Greater", columns, b.op("Add", rows, b.integer(right))))
    outside = too_far[0] if len(too_far) == 1 else b.op("Or", *too_far)
    return switched(b, b.op("Not", outside), -np.inf, heads.q)
