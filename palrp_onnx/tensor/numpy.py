"""The NumPy back end, in float32 or float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike

from palrp_onnx.errors import ModelError
from palrp_onnx.tensor.language import (
    Interpolation,
    Movement,
    Pooling,
    RecurrenceStep,
    Window,
)
from palrp_onnx.types import Array

Index = Any  # NumPy's stubs know no mixed tuples of slices and numbers


#: Opset whose ``Resize`` and ``AveragePool`` know every attribute of the earlier ones.
_LATE_OPSET = 19


class Eager:
    """Operations of :class:`~palrp_onnx.tensor.language.Language` on arrays.

    Args:
        batch: Number of samples.
        dtype: Type of multipliers; sums of the ledger are always float64.
    """

    def __init__(self, batch: int, dtype: DTypeLike = np.float32) -> None:
        self.batch = batch
        self.dtype = np.dtype(dtype)

    # --- arithmetic -----------------------------------------------------------------------------
    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def sub(self, a: Array, b: Array) -> Array:
        return a - b

    def mul(self, a: Array, b: Array) -> Array:
        return a * b

    def div(self, a: Array, b: Array) -> Array:
        return a / b

    def scale(self, a: Array, factor: float) -> Array:
        return np.asarray(a * a.dtype.type(factor))

    def shift(self, a: Array, offset: float) -> Array:
        return np.asarray(a + a.dtype.type(offset))

    def power(self, a: Array, exponent: float) -> Array:
        return np.ones_like(a) if exponent == 0 else a ** a.dtype.type(exponent)

    def relu(self, a: Array) -> Array:
        return np.asarray(np.maximum(a, 0))

    def absolute(self, a: Array) -> Array:
        return np.asarray(np.abs(a))

    def sign(self, a: Array) -> Array:
        return np.asarray(np.sign(a))

    def gated(self, m: Array, y: Array) -> Array:
        return np.asarray(np.where(y > 0, m, m.dtype.type(0)))

    def exp(self, a: Array) -> Array:
        return np.asarray(np.exp(a))

    def function(self, op_type: str, a: Array, *numbers: float, **attributes: float) -> Array:
        operands = [np.asarray(number, a.dtype) for number in numbers]
        return np.asarray(_evaluated(op_type, [a, *operands], attributes, _LATE_OPSET), a.dtype)

    def ratio(self, y: Array, x: Array, at_zero: float) -> Array:
        out = np.full(np.broadcast_shapes(y.shape, x.shape), at_zero, np.result_type(y, x))
        return np.divide(y, x, out=out, where=x != 0)

    def relevance(self, x: Array, m: Array) -> Array:
        shape = np.broadcast_shapes(x.shape, m.shape)
        out = np.zeros(shape, np.result_type(x, m))
        return np.multiply(x, m, out=out, where=np.broadcast_to(m != 0, shape))

    def select(self, m: Array, condition: Array, truth: bool) -> Array:
        return np.asarray(np.where(condition == truth, m, m.dtype.type(0)))

    def winners(self, x: Array, y: Array) -> Array:
        return np.asarray(np.equal(x, y), self.dtype)

    def zeros_like(self, like: Array) -> Array:
        return np.zeros(like.shape, self.dtype)

    def cast_like(self, a: Array, like: Array) -> Array:
        return a

    def wide(self, a: Array) -> Array:
        return a

    # --- linear algebra -------------------------------------------------------------------------
    def matmul(
        self, a: Array, b: Array, *, transpose_a: bool = False, transpose_b: bool = False
    ) -> Array:
        left = np.swapaxes(a, -1, -2) if transpose_a else a
        right = np.swapaxes(b, -1, -2) if transpose_b else b
        return np.asarray(np.matmul(left, right))

    def outer_first(self, a: Array, b: Array) -> Array:
        return a[..., :, None] * b[..., None, :]

    def einsum(self, equation: str, operands: Sequence[Array]) -> Array:
        return np.asarray(np.einsum(equation, *operands, optimize=True))

    def conv_adjoint(self, m: Array, weight: Array, like: Array, window: Window) -> Array:
        small, large, taps = m.shape[2:], like.shape[2:], weight.shape[2:]
        begins, needed = _extent(window, taps, small, large)
        shape = [max(*sizes) for sizes in zip(needed, np.add(begins, large).tolist(), strict=True)]
        filters = np.split(weight, window.group, axis=0)
        sent = np.split(m, window.group, axis=1)
        kind = np.result_type(m, weight)
        out = [np.zeros((len(m), f.shape[1], *shape), kind) for f in filters]
        for offset in product(*map(range, taps)):
            places = _places(offset, small, window.strides, window.dilations)
            for result, part, filter_ in zip(out, sent, filters, strict=True):
                where: Index = (slice(None), slice(None), *offset)
                result[places] += np.einsum("bo...,oc->bc...", part, filter_[where], optimize=True)
        inner = tuple(slice(b, b + n) for b, n in zip(begins, large, strict=True))
        return np.concatenate(out, axis=1)[(slice(None), slice(None), *inner)]

    def conv(self, image: Array, weight: Array, like: Array, window: Window) -> Array:
        small, large, taps = like.shape[2:], image.shape[2:], weight.shape[2:]
        begins, needed = _extent(window, taps, small, large)
        ends = [max(n - b - s, 0) for n, b, s in zip(needed, begins, large, strict=True)]
        padded = np.pad(image, [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
        filters = np.split(weight, window.group, axis=0)
        parts = np.split(padded, window.group, axis=1)
        kind = np.result_type(image, weight)
        out = [np.zeros((len(image), len(f), *small), kind) for f in filters]
        for offset in product(*map(range, taps)):
            places = _places(offset, small, window.strides, window.dilations)
            for result, part, filter_ in zip(out, parts, filters, strict=True):
                where: Index = (slice(None), slice(None), *offset)
                result += np.einsum("bc...,oc->bo...", part[places], filter_[where], optimize=True)
        return np.concatenate(out, axis=1)

    def interpolation(
        self, x: Array, y: Array, axis: int, scale: float | None, interpolation: Interpolation
    ) -> Array:
        before, after = x.shape[axis], y.shape[axis]
        operands: list[Array | None] = [None, None, np.array([1, 1, after, before])]
        if scale is not None:
            operands = [None, np.array([1, 1, scale, 1], np.float32)]
        return self._of_identity("Resize", x, axis, operands, interpolation)

    def averaging(self, x: Array, axis: int, pooling: Pooling) -> Array:
        return self._of_identity("AveragePool", x, axis, [], pooling)

    def _of_identity(
        self,
        op_type: str,
        x: Array,
        axis: int,
        operands: Sequence[Array | None],
        attributes: Mapping[str, Any],
    ) -> Array:
        """The matrix of a linear operation along one axis: what it makes of an identity matrix."""
        plane = np.eye(x.shape[axis])[None, None]
        made = _evaluated(op_type, [plane, *operands], attributes, _LATE_OPSET)
        return np.asarray(made[0, 0], x.dtype)

    def max_pool_adjoint(self, m: Array, x: Array, pooling: Pooling) -> Array:
        kernel, ones = pooling["kernel_shape"], (1,) * (x.ndim - 2)
        strides, dilations = pooling.get("strides") or ones, pooling.get("dilations") or ones
        same = pooling.get("auto_pad", "")
        pads = same if same.startswith("SAME") else pooling.get("pads") or (0,) * 2 * len(ones)
        window = Window(strides, pads, dilations, 1, (0,) * len(ones))
        begins, needed = _extent(window, kernel, m.shape[2:], x.shape[2:])
        # With ceil_mode the last window may reach beyond the padding.
        ends = [max(n - b - s, 0) for n, b, s in zip(needed, begins, x.shape[2:], strict=True)]
        room = [(0, 0), (0, 0), *zip(begins, ends, strict=True)]
        padded = np.pad(x, room, constant_values=-np.inf)
        offsets = list(product(*map(range, kernel)))
        windows = [_places(o, m.shape[2:], strides, dilations) for o in offsets]
        first = np.stack([padded[w] for w in windows]).argmax(axis=0)
        out = np.zeros(padded.shape, m.dtype)
        for number, where in enumerate(windows):
            out[where] += np.where(first == number, m, m.dtype.type(0))
        inner = tuple(slice(b, b + n) for b, n in zip(begins, x.shape[2:], strict=True))
        return out[(slice(None), slice(None), *inner)]

    # --- reductions -----------------------------------------------------------------------------
    def sum(self, a: Array, axes: Sequence[int], *, keepdims: bool = True) -> Array:
        return np.asarray(a.sum(axis=tuple(axes), keepdims=keepdims))

    def mean(self, a: Array, axes: Sequence[int]) -> Array:
        return np.asarray(a.mean(axis=tuple(axes), keepdims=True))

    def sum_to(self, a: Array, like: Array) -> Array:
        if a.shape == like.shape:
            return a
        extra = a.ndim - like.ndim
        axes = [*range(extra)]
        axes += [k + extra for k, dim in enumerate(like.shape) if dim == 1 != a.shape[k + extra]]
        summed = a.sum(axis=tuple(axes), keepdims=True)
        return np.broadcast_to(summed.reshape(summed.shape[extra:]), like.shape)

    def mean_weight(self, like: Array, reduced: Array) -> Array:
        return np.asarray(reduced.size / like.size, self.dtype)

    def cumulative_adjoint(self, m: Array, axis: int, *, exclusive: bool, reverse: bool) -> Array:
        turned = m if reverse else np.flip(m, axis)
        total = np.cumsum(turned, axis=axis)
        if exclusive:
            total = total - turned
        return total if reverse else np.flip(total, axis)

    # --- recurrences ----------------------------------------------------------------------------
    def scan(
        self,
        step: RecurrenceStep,
        states: Sequence[Array],
        along: Sequence[Array],
        *,
        reverse: bool,
    ) -> tuple[Sequence[Array], Sequence[Array]]:
        order = range(len(along[0]))[:: -1 if reverse else 1]
        found = []
        for k in order:
            states, results = step(self, states, [each[k] for each in along])
            found.append(results)
        return states, [np.stack(each)[order] for each in zip(*found, strict=True)]

    def within(self, lengths: Array, like: Array) -> Array:
        held = np.arange(len(like))[:, None] < lengths
        return np.asarray(held[:, None, :, None], self.dtype)

    # --- movement -------------------------------------------------------------------------------
    def transpose(self, a: Array, perm: Sequence[int]) -> Array:
        return a.transpose(tuple(perm))

    def unsqueeze(self, a: Array, axes: Sequence[int]) -> Array:
        return np.expand_dims(a, tuple(axes))

    def reshape_like(self, a: Array, like: Array) -> Array:
        return a.reshape(like.shape)

    def expand_like(self, a: Array, like: Array) -> Array:
        return np.broadcast_to(a, like.shape)

    def concat(self, parts: Sequence[Array], axis: int) -> Array:
        return np.concatenate(list(parts), axis=axis)

    def split_like(self, a: Array, likes: Sequence[Array], axis: int) -> tuple[Array, ...]:
        ends = np.cumsum([like.shape[axis] for like in likes])[:-1]
        return tuple(np.split(a, ends.tolist(), axis=axis))

    def turn(self, a: Array) -> Array:
        return a[::-1]

    def chunks(self, a: Array, count: int, axis: int) -> tuple[Array, ...]:
        return tuple(np.split(a, count, axis=axis))

    def slice_adjoint(
        self,
        m: Array,
        like: Array,
        starts: Array,
        ends: Array,
        axes: Array | None,
        steps: Array | None,
    ) -> Array:
        out = np.zeros(like.shape, m.dtype)
        where = [slice(None)] * like.ndim
        for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            axis = int(axes[k]) if axes is not None else k
            step = int(steps[k]) if steps is not None else 1
            where[axis] = _onnx_slice(start, end, step, like.shape[axis])
        out[tuple(where)] = m
        return out

    def pad_adjoint(self, m: Array, like: Array, pads: Array, axes: Array | None) -> Array:
        chosen = axes.tolist() if axes is not None else list(range(like.ndim))
        into, out_of = ([slice(None)] * like.ndim for _ in range(2))
        for k, axis in enumerate(chosen):
            before = int(pads[k])  # negative: that much was cropped
            start, skipped = max(before, 0), max(-before, 0)
            length = min(like.shape[axis] - skipped, m.shape[axis] - start)
            into[axis] = slice(skipped, skipped + length)
            out_of[axis] = slice(start, start + length)
        out = np.zeros(like.shape, m.dtype)
        out[tuple(into)] = m[tuple(out_of)]
        return out

    def tile_adjoint(self, m: Array, like: Array) -> Array:
        shape: list[int] = []
        for whole, dim in zip(m.shape, like.shape, strict=True):
            shape += [whole // max(dim, 1), dim]
        return np.asarray(m.reshape(shape).sum(axis=tuple(range(0, 2 * like.ndim, 2))))

    def gather_adjoint(self, m: Array, like: Array, index: Array, axis: int) -> Array:
        out = np.zeros(like.shape, m.dtype)
        moved = np.moveaxis(out, axis, 0)
        rank = index.ndim
        axis %= like.ndim
        sent = np.moveaxis(m, range(axis, axis + rank), range(rank))
        np.add.at(moved, index, sent)
        return out

    def gather_elements_adjoint(self, m: Array, like: Array, index: Array, axis: int) -> Array:
        out = np.zeros(like.shape, m.dtype)
        where = list(np.ogrid[tuple(map(slice, index.shape))])
        where[axis] = index
        np.add.at(out, tuple(where), m)
        return out

    def gather_nd_adjoint(self, m: Array, like: Array, index: Array, batch_dims: int) -> Array:
        out = np.zeros(like.shape, m.dtype)
        grid = np.ogrid[tuple(map(slice, index.shape[:-1]))] if index.ndim > 1 else []
        batch = [np.broadcast_to(g, index.shape[:-1]) for g in grid[:batch_dims]]
        where = (*batch, *np.moveaxis(index, -1, 0))
        np.add.at(out, where, m)
        return out

    def scatter_nd_cleared(self, m: Array, index: Array) -> Array:
        out = m.copy()
        out[tuple(np.moveaxis(index, -1, 0))] = 0
        return out

    def gather_nd(self, a: Array, index: Array) -> Array:
        return np.asarray(a[tuple(np.moveaxis(index, -1, 0))])

    def scatter_elements_cleared(self, m: Array, index: Array, axis: int) -> Array:
        out = m.copy()
        out[self._entries(index, m.shape, axis)] = 0
        return out

    def gather_elements(self, a: Array, index: Array, axis: int) -> Array:
        return np.asarray(a[self._entries(index, a.shape, axis)])

    @staticmethod
    def _entries(index: Array, shape: tuple[int, ...], axis: int) -> tuple[Array, ...]:
        """The places in an array of ``shape`` that ``index`` names along ``axis``."""
        places: list[Array] = list(np.indices(index.shape))
        places[axis] = index % shape[axis]
        return tuple(places)

    def moved_adjoint(
        self,
        m: Array,
        like: Array,
        movement: Movement,
        operands: Sequence[Array | None],
    ) -> Array:
        numbers = np.arange(1.0, like.size + 1).reshape(like.shape)
        moved = _evaluated(
            movement.op_type, [numbers, *operands], movement.attributes, movement.opset
        )
        out = np.zeros(like.size + 1, m.dtype)
        np.add.at(out, moved.astype(np.int64), m)
        return out[1:].reshape(like.shape)

    def triangle(self, m: Array, k: int, *, upper: bool) -> Array:
        return np.triu(m, k) if upper else np.tril(m, k)

    # --- rows -----------------------------------------------------------------------------------
    def row(self, table: Array, index: int) -> Array:
        return np.asarray(table[index])

    def take_rows(self, x: Array, index: Array, batch: int, axis: int) -> Array:
        if axis == batch:
            return self.take_rows(self._split_batch(x, axis), index, axis - 1, axis).squeeze(axis)
        return np.take_along_axis(x, self._along(index, x.ndim, batch) % x.shape[axis], axis)

    def take_shared_rows(self, x: Array, index: Array, batch: int, axis: int) -> Array:
        whole = x.reshape((1,) * (-batch - x.ndim) + x.shape)
        return np.swapaxes(np.take(whole, index % x.shape[axis], axis), batch, axis)

    def put_rows(self, rows: Array, like: Array, index: Array, batch: int, axis: int) -> Array:
        out = np.zeros(like.shape, rows.dtype)
        if axis == batch:
            split = self.put_rows(
                np.expand_dims(rows, axis), self._split_batch(out, axis), index, axis - 1, axis
            )
            return split.reshape(like.shape)
        where = self._along(index, like.ndim, batch) % like.shape[axis]
        np.put_along_axis(out, where, rows, axis)
        return out

    def _split_batch(self, x: Array, axis: int) -> Array:
        """An axis of samples × tokens as two axes."""
        at = axis % x.ndim
        return x.reshape(*x.shape[:at], self.batch, -1, *x.shape[at + 1 :])

    def _along(self, index: Array, rank: int, batch: int) -> Array:
        """[B] as an array of ``rank`` axes, each of length 1 but the batch."""
        return index.reshape([self.batch if a == batch else 1 for a in range(-rank, 0)])

    def row_index(self, index: Array) -> Array:
        return np.full(self.batch, index.item())

    def row_column(self, index: Array, column: int) -> Array:
        return index[:, column]

    def row_within(self, index: Array, like: Array) -> Array:
        return np.asarray(index % (like.shape[0] // self.batch))

    # --- ledger and sinks -----------------------------------------------------------------------
    def samples_first(self, a: Array, axis: int, inner: int) -> Array:
        at = a.ndim + axis
        parts = a.reshape(*a.shape[:at], -1, self.batch, inner, *a.shape[at + 1 :])
        return parts.swapaxes(at, at + 1).reshape(a.shape)

    def per_sample(self, relevance: Array, batch_axis: int) -> Array:
        first = np.moveaxis(relevance, batch_axis, 0) if relevance.ndim else relevance
        rows = first.reshape(self.batch, -1)
        return np.asarray(rows.sum(axis=1, dtype=np.float64))

    def arrange(
        self,
        relevance: Array,
        *,
        batch_axis: int,
        token_axes: Sequence[int],
        feature_axes: Sequence[int],
    ) -> Array:
        relevance = np.atleast_1d(relevance)
        rank = relevance.ndim
        batch = batch_axis % rank
        tokens, features = ([a % rank for a in axes] for axes in (token_axes, feature_axes))
        if batch not in tokens:
            # The axis may hold samples × heads; samples are its outermost factor.
            shape = relevance.shape
            split = (self.batch, shape[batch] // self.batch)  # no −1: other axes may be empty
            relevance = relevance.reshape(*shape[:batch], *split, *shape[batch + 1 :])
            tokens, features = ([a + (a > batch) for a in axes] for axes in (tokens, features))
        named = [batch, *(a for a in tokens if a != batch), *features]
        rest = [a for a in range(relevance.ndim) if a not in named]
        ordered = relevance.transpose(*named, *rest)
        summed = ordered.sum(axis=tuple(range(len(named), ordered.ndim))) if rest else ordered
        size = math.prod(relevance.shape[a] for a in tokens)
        if batch in tokens:  # samples and tokens share an axis
            size //= self.batch
        columns = math.prod(relevance.shape[a] for a in features)
        return np.asarray(summed.reshape(self.batch, size, columns))

    def unfold(self, a: Array, like: Array, batch_axis: int, token_axes: Sequence[int]) -> Array:
        batch, tokens = batch_axis % like.ndim, [k % like.ndim for k in token_axes]
        rest = [k for k in tokens if k != batch]
        lengths = [like.shape[k] for k in rest]
        if batch not in tokens:
            heads = like.shape[batch] // self.batch
            a = np.repeat(a, heads, axis=0) / heads
        order = [batch, *rest]
        parts = a.reshape(like.shape[batch], *lengths)
        return parts.transpose(np.argsort(order))

    def check(self, a: Array, place: str) -> None:
        if not np.isfinite(a).all():
            raise ModelError(
                "A multiplier is not finite",
                place=place,
                hint="The forward values hold NaN or infinity there, or overflow in this dtype.",
            )


def _extent(
    window: Window, taps: Sequence[int], small: Sequence[int], large: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Zeros at the start of each axis of an image, and the places that all windows cover.

    ``small`` is the number of windows along each axis, ``large`` that of the places of the image.
    """
    reach = [(k - 1) * d + 1 for k, d in zip(taps, window.dilations, strict=True)]
    needed = [(n - 1) * s + r for n, s, r in zip(small, window.strides, reach, strict=True)]
    if not isinstance(window.pads, str):
        return list(window.pads[: len(needed)]), needed
    lacking = np.add(needed, window.output_padding) - np.asarray(large)
    halves = (np.maximum(lacking, 0) + (window.pads == "SAME_LOWER")) // 2
    return [int(half) for half in halves], needed


def _places(
    offset: Sequence[int], size: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[slice, ...]:
    """The places in a padded image of one entry of every window."""
    spatial = (
        slice(o * d, o * d + (n - 1) * s + 1, s)
        for o, n, s, d in zip(offset, size, strides, dilations, strict=True)
    )
    return (slice(None), slice(None), *spatial)


def _evaluated(
    op_type: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], opset: int
) -> Array:
    """The result of one operation as the onnx package computes it, where that is right."""
    from onnx.reference import ReferenceEvaluator

    from palrp_onnx.runtime.reference_operations import CORRECTED

    names = ["" if array is None else f"input{k}" for k, array in enumerate(inputs)]
    node = onnx.helper.make_node(op_type, names, ["output"], **attributes)
    feeds = {n: array for n, array in zip(names, inputs, strict=True) if n}
    with np.errstate(all="ignore"):
        evaluator = ReferenceEvaluator(node, opsets={"": opset}, new_ops=list(CORRECTED))
        found: list[Any] = list(evaluator.run(None, feeds))
    return np.asarray(found[0])


def _onnx_slice(start: int, end: int, step: int, size: int) -> slice:
    """The slice, clamped as ONNX Runtime does."""
    start, end_ = start + size * (start < 0), end + size * (end < 0)
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end_, 0), size), step)
    last = -1 if end == np.iinfo(np.int64).max else min(max(end_, -1), size - 1)
    return slice(min(max(start, 0), size - 1), None if last < 0 else last, step)
