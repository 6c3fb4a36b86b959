"""The axes of an explained input: samples, places, features.

Token ids are [B, T], vectors [B, T, F], a table of columns [B, F]. Images, sound and video have the
axes that their first convolution reads, traced back through transposes. Cached keys and values have
the token axis along which they are joined to those of new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from palrp_onnx.analysis.inputs import InputRoles
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has
from palrp_onnx.model.passes.caches import cache_axis

BATCH = 1
TOKEN = 2

Shapes = Mapping[ir.Value, tuple[int, ...]]
_NONE: Shapes = {}
#: Numbers of axes of an image and of a video.
_IMAGE, _VIDEO = 4, 5
#: Usual numbers of channels, where no convolution reads the input.
_CHANNELS = (1, 3, 4)
#: Operations between columns of a table and the product that sums them with weights.
_PER_COLUMN = ELEMENTWISE | Trait.NORMALISATION | Trait.JOIN | Trait.SELECT | Trait.CUT


@dataclass(frozen=True)
class InputAxes:
    """Axes of an explained input.

    Attributes:
        flags: ``BATCH``, ``TOKEN`` or 0 for every axis, for the judgement of roles.
        units: The axes that units run along, in order; none where a sample is one unit.
        channels: The axis of the channels of an image [B, C, H, W], or of a video with a further
            axis, in any order; else ``None``.
        vectors: Whether each entry is looked up as a vector, which adds an axis to its relevance.
    """

    flags: tuple[int, ...]
    units: tuple[int, ...]
    channels: int | None = None
    vectors: bool = False

    @property
    def batch(self) -> int | None:
        """The axis of samples; ``None`` where the whole input is one sample."""
        return next((k for k, flag in enumerate(self.flags) if flag & BATCH), None)

    @property
    def features(self) -> tuple[int, ...]:
        """Axes of its relevance that are neither samples nor units."""
        axes = range(len(self.flags) + self.vectors)
        return tuple(a for a in axes if a != self.batch and a not in self.units)


def input_axes(
    graph: ir.Graph,
    roles: InputRoles,
    name: str,
    shapes: Mapping[ir.Value, tuple[int, ...]],
    *batch: int | None,
) -> InputAxes:
    """The axes of the explained input ``name``.

    Args:
        graph: The plain graph.
        roles: Roles of its inputs.
        name: The input.
        shapes: Shapes of a trial run.
        batch: The axis of samples, ``None`` where the whole input is one sample; if it is not
            given, the one that a convolution reads as such, or the first.
    """
    value = next(v for v in graph.inputs if v.name == name)
    rank = len(shapes[value])
    if name in roles.looked_up():
        return _with_units(rank, batch[0] if batch else 0, vectors=True)
    if rank <= 2:
        return _vector_axes(value, rank, batch[0] if batch else 0)
    tokens = cache_axis(value)
    samples, channel = _convolved(value, rank, shapes) or _by_size(value, rank)
    first = samples if tokens is None else 0
    found = batch[0] if batch else _named_batch(graph, value, first)
    if tokens is not None:
        flags = (BATCH if k == found else TOKEN if k == tokens else 0 for k in range(rank))
        return InputAxes(tuple(flags), (tokens,))
    return _with_units(rank, found, channel)


def fixed_batch(value: ir.Value, rank: int) -> bool:
    """Whether a convolution reads the input, which determines its axis of samples."""
    return rank > 2 and _convolved(value, rank) is not None


def _with_units(
    rank: int, batch: int | None, channel: int | None = None, *, vectors: bool = False
) -> InputAxes:
    """Units run along all axes but those of samples and channels."""
    channel = None if channel == batch else channel
    units = tuple(k for k in range(rank) if k not in (batch, channel))
    flags = tuple(BATCH if k == batch else TOKEN if k in units else 0 for k in range(rank))
    image = rank in (_IMAGE, _VIDEO) and None not in (batch, channel) and not vectors
    return InputAxes(flags, units, channel if image else None, vectors)


def _vector_axes(value: ir.Value, rank: int, batch: int | None) -> InputAxes:
    """Axes of real numbers [B], [B, F] or, as one sample, [F] or [T, F]."""
    if batch is None or rank == 0:
        return InputAxes((TOKEN, 0)[:rank], (0,)[:rank])
    flags = [TOKEN] * rank
    if rank == 2 and _is_table(value):
        flags[1 - batch] = 0
    flags[batch:] = [BATCH, *flags[batch + 1 :]]
    return InputAxes(tuple(flags), tuple(k for k in range(rank) if k != batch))


def _is_table(value: ir.Value) -> bool:
    """Whether the entries of a sample are columns of a table: a weighted sum reads all of them."""
    queue, seen = [value], {value}
    while queue:
        for node, index in tuple(queue.pop().uses()):
            if has(node, Trait.LEARNT) and index == 0:
                return True
            if has(node, _PER_COLUMN) or node.op_type == "Flatten":
                fresh = [v for v in node.outputs if v not in seen]
                seen.update(fresh)
                queue.extend(fresh)
    return False


def _convolved(value: ir.Value, rank: int, shapes: Shapes = _NONE) -> tuple[int, int] | None:
    """Batch and channel axis, where a convolution or pooling reads the input."""
    start = tuple(range(rank))
    return next(((perm[0], perm[1]) for perm in _before_convolutions(value, start, shapes)), None)


def _before_convolutions(
    value: ir.Value, start: tuple[int, ...], shapes: Shapes
) -> Iterator[tuple[int, ...]]:
    """For every convolution or pooling that reads the input, its axes as axes of the input."""
    queue, seen = [(value, start)], {value}
    while queue:
        current, perm = queue.pop(0)
        for node, index in tuple(current.uses()):
            if has(node, Trait.CHANNELS) and index == 0:
                yield perm
            after = perm
            if node.op_type == "Transpose":
                order = node.attributes.get_ints("perm", tuple(reversed(range(len(perm)))))
                after = tuple(perm[k] for k in order)
            elif len(perm) == _VIDEO and _joins_pictures(node, shapes):
                after = (perm[0], *perm[2:])
            elif not has(node, ELEMENTWISE | Trait.PAD):
                continue
            fresh = [v for v in node.outputs if v not in seen]
            seen.update(fresh)
            queue.extend((v, after) for v in fresh)


def _joins_pictures(node: ir.Node, shapes: Shapes) -> bool:
    """Whether the pictures of videos become one batch of pictures."""
    before, after = (shapes.get(v) for v in (node.inputs[0], node.outputs[0]) if v is not None)
    return (
        has(node, Trait.RESHAPE)
        and before is not None
        and after == (before[0] * before[1], *before[2:])
    )


def _named_batch(graph: ir.Graph, value: ir.Value, batch: int) -> int:
    """The batch axis: the one with the symbol of another input's first axis if the first is fixed.

    States of recurrent layers are [layers, batch, features].
    """
    dims = list(value.shape) if value.shape is not None else []
    firsts = {
        v.shape[0].value
        for v in graph.inputs
        if v is not value and v.shape and isinstance(v.shape[0], ir.SymbolicDim)
    }
    if batch or not dims or not isinstance(dims[0], int):
        return batch
    named = (
        k
        for k, dim in enumerate(dims[:-1])
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None and dim.value in firsts
    )
    return next(named, batch)


def _by_size(value: ir.Value, rank: int) -> tuple[int, int]:
    """Batch and channel axis by size: the last of [B, T, F], the short one of an image."""
    if rank == 3:
        return 0, 2
    dims = [d if isinstance(d, int) else 0 for d in value.shape or ()]
    order = (2, 1, rank - 1) if rank == _VIDEO else (1, rank - 1, 2)
    likely = (k for k in order if k < len(dims) and dims[k] in _CHANNELS)
    return 0, next(likely, 1)
