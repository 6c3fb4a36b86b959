"""Attention in one operation: projections, heads, masks, scores, and what they weigh.

Written out as it computes. A mask of one axis holds key lengths, whatever the tokens were; masked
scores get a large negative number added, so that a row in which everything is masked still attends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from palrp_onnx.graph.lowering.builder import Builder, Fused, dtype_of, length_of, rank_of
from palrp_onnx.graph.lowering.rotary import counted, picked, rotate
from palrp_onnx.graph.lowering.table import lowers


class Heads(NamedTuple):
    """Queries [B, N, T, H], keys [B, N, S, H] and values [B, N, S, V]."""

    q: ir.Value
    k: ir.Value
    v: ir.Value


def split_heads(b: Builder, x: ir.Value, heads: int) -> ir.Value:
    """[B, T, N·H] → [B, N, T, H]."""
    return b.transpose(b.reshape(x, 0, 0, heads, -1), 0, 2, 1, 3)


def merge_heads(b: Builder, x: ir.Value) -> ir.Value:
    """[B, N, T, H] → [B, T, N·H]."""
    return b.reshape(b.transpose(x, 0, 2, 1, 3), 0, 0, -1)


def repeat_heads(b: Builder, x: ir.Value, times: int, heads: int) -> ir.Value:
    """Keys or values that several queries share, once for each: [B, M, S, H] → [B, N, S, H]."""
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
) -> ir.Value:
    """softmax(scale · q kᵀ + biases) v [B, N, T, V].

    Args:
        b: The builder.
        heads: Queries, keys and values.
        scale: 1/√H where it is ``None``.
        biases: What is added to the scores, masks among it.
        softcap: Scores are kept within ± this by a tanh, unless it is 0.
        sink: A further score [1, N, 1, 1] that every query may attend to, for nothing.
        guarded: Whether a query all of whose scores are −∞ attends to nothing.
    """
    q, k, v = heads
    scores = b.op("MatMul", q, b.transpose(k, 0, 1, 3, 2))
    scores = b.scale(scores, scale) if scale else b.op("Mul", scores, _usual_scale(b, q))
    if softcap:
        scores = b.scale(b.op("Tanh", b.scale(scores, 1.0 / softcap)), softcap)
    scores = b.total(scores, *biases)
    if sink is None:
        weights = b.op("Softmax", scores, axis=-1)
        if guarded and any(term is not None for term in biases):
            weights = b.op("Where", b.op("IsNaN", weights), b.real(0.0, weights), weights)
        return b.op("MatMul", weights, v)
    shape = b.op("Shape", b.slice(scores, 0, 1, -1))
    both = b.op("Concat", scores, b.op("Expand", sink, shape), axis=-1)
    weights = b.op("Softmax", both, axis=-1)
    return b.op("MatMul", b.slice(weights, 0, -1, -1), v)


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
    """The most negative number of a type."""
    return float(np.finfo(dtype_of(like)).min)


def causal_keep(b: Builder, heads: Heads, past: ir.Value | None, window: int = 0) -> ir.Value:
    """Whether a query may attend to a key: at its place or before, within ``window`` [T, S].

    Queries stand behind the ``past`` [B, N, P, H].
    """
    queries, keys = b.size(heads.q, 2), b.size(heads.k, 2)
    start = b.integer(0) if past is None else b.size(past, 2)
    rows = b.unsqueeze(counted(b, start, queries), 1)
    columns = counted(b, b.integer(0), keys)
    keep = b.op("Not", b.op("Greater", columns, rows))
    if window > 0:
        near = b.op("Greater", columns, b.op("Sub", rows, b.integer(window)))
        keep = b.op("And", keep, near)
    return keep


def padding_mask(b: Builder, mask: ir.Value, low: float, heads: Heads) -> ir.Value:
    """An additive mask [B, 1, T or 1, S] from key lengths [B], or from what is more than 0."""
    rank = rank_of(mask)
    if rank == 1:
        keys = counted(b, b.integer(0), b.size(heads.k, 2))
        keep = b.op("Less", keys, b.unsqueeze(b.cast(mask, ir.DataType.INT64), 1))
        return switched(b, b.unsqueeze(keep, 1, 2), low, heads.q)
    keep = b.op("Greater", b.cast(mask, ir.DataType.INT32), b.array(np.array(0, np.int32)))
    if rank == 4:
        raise NotImplementedError("with a mask of four axes")
    return switched(b, b.unsqueeze(keep, *((1, 2) if rank == 2 else (1,))), low, heads.q)


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
    return weighed(b, node, b.total(product, node.optional(2)), parts, mask=3, past=4, bias=5)


def weighed(
    b: Builder,
    node: Fused,
    packed: ir.Value,
    parts: Sequence[int],
    *,
    mask: int,
    past: int,
    bias: int | None,
) -> Sequence[ir.Value | None]:
    """What attention makes of queries, keys and values side by side, and its cache.

    Args:
        b: The builder.
        node: The node.
        packed: All three [B, T, ..].
        parts: Their widths.
        mask: Index of the mask among the inputs.
        past: Index of the cache.
        bias: Index of what is added to the scores.
    """
    count = node.integer("num_heads")
    q, k, v = (split_heads(b, part, count) for part in b.split(packed, parts, -1))
    cache, before = node.optional(past), None
    if cache is not None:
        before, old = (b.op("Gather", cache, b.integer(each), axis=0) for each in range(2))
        k, v = _joined(b, before, k), _joined(b, old, v)
    heads = Heads(q, k, v)
    biases = _biases(b, node, heads, before, mask, bias)
    output = attend(b, heads, node.real("scale", 0.0) or None, biases)
    present = None
    if node.wants(1):
        present = b.op("Concat", b.unsqueeze(k, 0), b.unsqueeze(v, 0), axis=0)
    return [merge_heads(b, output), present]


def _biases(
    b: Builder, node: Fused, heads: Heads, past: ir.Value | None, mask: int, bias: int | None
) -> list[ir.Value | None]:
    """Additive terms of the scores, as the fused operations of ONNX Runtime add them."""
    terms = [None if bias is None else node.optional(bias)]
    given = node.optional(mask)
    if given is not None:
        terms.append(padding_mask(b, given, node.real("mask_filter_value", -10000.0), heads))
    if node.integer("unidirectional", 0):
        terms.append(switched(b, causal_keep(b, heads, past), lowest(heads.q), heads.q))
    return terms


@lowers("MultiHeadAttention")
def _multi_head_attention(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    if node.wants(3):
        raise NotImplementedError("with its scores read")
    heads = _unpacked(b, node, node.integer("num_heads"))
    past = node.optional(6)
    k, v = _joined(b, past, heads.k), _joined(b, node.optional(7), heads.v)
    heads = Heads(heads.q, k, v)
    biases = _biases(b, node, heads, past, 4, 5)
    output = attend(b, heads, node.real("scale", 0.0) or None, biases)
    return [merge_heads(b, output), k, v]


def _unpacked(b: Builder, node: Fused, count: int) -> Heads:
    """Queries, keys and values, however they are packed."""
    query, key, value = node.input(0), node.optional(1), node.optional(2)
    if key is None:  # [B, T, N, 3, H]
        if node.optional(3) is not None:
            raise NotImplementedError("packed, with a bias")
        return Heads(*(_piece(b, query, each) for each in range(3)))
    offsets = _offsets(b, node, query)
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


def _offsets(b: Builder, node: Fused, query: ir.Value) -> list[ir.Value | None]:
    """The bias of each of the three."""
    bias = node.optional(3)
    if bias is None:
        return [None] * 3
    total = length_of(bias, 0)
    own = query.shape[2] if query.shape is not None else None
    width = own if isinstance(own, int) else total // 3
    return list(b.split(bias, [width, width, total - 2 * width], 0))


@lowers("GroupQueryAttention")
def _group_query_attention(b: Builder, node: Fused) -> Sequence[ir.Value | None]:
    for index, what in ((12, "scales"), (13, "scales"), (14, "norms"), (15, "norms"), (16, "rows")):
        if node.optional(index) is not None:
            raise NotImplementedError(f"with {what} of its own")
    if node.wants(3) or not node.integer("causal", 1):
        raise NotImplementedError("not causal, or with its scores read")
    count, groups = node.integer("num_heads"), node.integer("kv_num_heads")
    q, k, v = _grouped(b, node, count, groups)
    past = node.optional(3)
    start = b.integer(0) if past is None else b.size(past, 2)
    if node.integer("do_rotary", 0):
        positions = counted(b, start, b.size(q, 2))
        cos, sin = (picked(b, node.input(each), positions) for each in (7, 8))
        half, mixed = length_of(node.input(7), 1), bool(node.integer("rotary_interleaved", 0))
        q, k = (rotate(b, x, cos, sin, half, mixed) for x in (q, k))
    k, v = _joined(b, past, k), _joined(b, node.optional(4), v)
    window = max(node.integer("local_window_size", -1), 0)
    keep = causal_keep(b, Heads(q, k, v), past, window)
    sink = node.optional(11)
    if sink is not None:
        sink = b.unsqueeze(sink, 0, 2, 3)
    elif node.integer("smooth_softmax", 0) == 1:
        sink = b.array(np.zeros((1, 1, 1, 1), dtype_of(q)))
        sink = b.op("Expand", sink, b.integers(1, count, 1, 1))
    each = Heads(q, *(repeat_heads(b, x, count // groups, count) for x in (k, v)))
    output = attend(
        b,
        each,
        node.real("scale", 0.0) or None,
        [node.optional(10), switched(b, keep, lowest(q), q)],
        softcap=node.real("softcap", 0.0),
        sink=sink,
    )
    return [merge_heads(b, output), k, v]


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
    if node.wants(3):
        raise NotImplementedError("with its scores read")
    if any(node.integer(f"{side}_window_size", -1) >= 0 for side in ("left", "right")):
        raise NotImplementedError("within a window")
    query = node.input(0)
    apart = rank_of(query) == 4
    if apart:
        q, k, v = (node.input(each) for each in range(3))
        count, groups = length_of(q, 1), length_of(k, 1)
    else:
        count, groups = node.integer("q_num_heads"), node.integer("kv_num_heads")
        q = split_heads(b, query, count)
        k, v = (split_heads(b, node.input(each), groups) for each in (1, 2))
    k, v = _joined(b, node.optional(4), k), _joined(b, node.optional(5), v)
    heads = Heads(q, *(repeat_heads(b, x, count // groups, count) for x in (k, v)))
    output = attend(
        b,
        heads,
        node.real("scale", 0.0) or None,
        _standard_biases(b, node, heads),
        softcap=node.real("softcap", 0.0),
        guarded=True,
    )
    return [output if apart else merge_heads(b, output), k, v]


def _standard_biases(b: Builder, node: Fused, heads: Heads) -> list[ir.Value | None]:
    terms: list[ir.Value | None] = []
    mask = node.optional(3)
    if mask is not None:
        boolean = mask.dtype == ir.DataType.BOOL
        terms.append(switched(b, mask, -np.inf, heads.q) if boolean else b.cast_like(mask, heads.q))
    lengths = node.optional(6)
    if node.integer("is_causal", 0):
        if lengths is not None:
            raise NotImplementedError("causal, with key lengths")
        keep = causal_keep(b, heads, node.optional(4))
        terms.append(switched(b, keep, -np.inf, heads.q))
    if lengths is not None:
        terms.append(padding_mask(b, lengths, -np.inf, heads))
    return terms
