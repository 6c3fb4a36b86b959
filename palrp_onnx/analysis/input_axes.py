"""The axes of an explained input: samples, places, features.

Token ids are [B, T], vectors [B, T, F], a table of columns [B, F]. Images, sound and video have the
axes that their first convolution reads, traced back through transposes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from palrp_onnx.analysis.inputs import InputRoles
from palrp_onnx.model.ops import ELEMENTWISE, Trait, has

BATCH = 1
TOKEN = 2

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
        channels: The axis of the channels of an image [B, C, H, W] in any order, else ``None``.
        vectors: Whether each entry is looked up as a vector, which adds an axis to its relevance.
    """

    flags: tuple[int, ...]
    units: tuple[int, ...]
    channels: int | None = None
    vectors: bool = False

    @property
    def features(self) -> tuple[int, ...]:
        """Axes of its relevance that are neither samples nor units."""
        axes = range(len(self.flags) + self.vectors)
        batch = next((a for a in axes if a < len(self.flags) and self.flags[a] & BATCH), None)
        return tuple(a for a in axes if a != batch and a not in self.units)


def input_axes(
    graph: ir.Graph,
    roles: InputRoles,
    name: str,
    shapes: Mapping[ir.Value, tuple[int, ...]],
) -> InputAxes:
    """The axes of the explained input ``name``; ``shapes`` are those of a trial run."""
    value = next(v for v in graph.inputs if v.name == name)
    rank = len(shapes[value])
    if name in roles.looked_up():
        flags = (BATCH, *(TOKEN,) * (rank - 1))[:rank]
        return InputAxes(flags, tuple(range(1, rank)), vectors=True)
    if rank <= 1:
        return InputAxes((BATCH,)[:rank], ())
    if rank == 2:
        return InputAxes((BATCH, 0 if _is_table(value) else TOKEN), (1,))
    batch, channel = _convolved(value, rank) or _by_size(value, rank)
    batch = _named_batch(graph, value, batch)
    spatial = tuple(k for k in range(rank) if k not in (batch, channel))
    flags = tuple(BATCH if k == batch else TOKEN if k in spatial else 0 for k in range(rank))
    return InputAxes(flags, spatial, channel if rank == 4 else None)


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


def _convolved(value: ir.Value, rank: int) -> tuple[int, int] | None:
    """Batch and channel axis, where a convolution or pooling reads the input."""
    start = tuple(range(rank))
    return next(((perm[0], perm[1]) for perm in _before_convolutions(value, start)), None)


def _before_convolutions(value: ir.Value, start: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
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
            elif not has(node, ELEMENTWISE | Trait.PAD):
                continue
            fresh = [v for v in node.outputs if v not in seen]
            seen.update(fresh)
            queue.extend((v, after) for v in fresh)


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
    likely = (k for k in (1, rank - 1, 2) if k < len(dims) and dims[k] in _CHANNELS)
    return 0, next(likely, 1)
