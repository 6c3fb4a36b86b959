"""From raw relevance to maps: one number for every unit, a token or a patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from palrp_onnx.record import Warning_
from palrp_onnx.relevance.sinks import Sink, reduce_sinks
from palrp_onnx.subject import Subject
from palrp_onnx.tensor.language import Language
from palrp_onnx.types import Array

#: Rows and columns of the grid over an image that its model does not divide into patches.
GRID = 14


@dataclass(frozen=True)
class Maps:
    """Relevance of units in units of the target, each array [B, units].

    Attributes:
        content: Content relevance, summed over features.
        position: Position relevance, reduced from all sinks.
        total: What the method's map is: content, position or their sum.
        sites: Sinks with one feature: signed relevance [B, units].
        grid: Rows and columns, where units are patches.
        warnings: Sinks that are not on the map.
    """

    content: Array
    position: Array
    total: Array
    sites: tuple[Sink, ...]
    grid: tuple[int, int] | None
    warnings: tuple[Warning_, ...]


def make_maps(
    op: Language[Array],
    content: Array,
    sinks: Sequence[Sink],
    at_units: Callable[[Sink, Array], Array],
    *,
    positions: str,
    kind: Literal["sum", "content", "position"],
    grid: tuple[int, int] | None,
) -> Maps:
    """Sum features of ``content`` [B, units, F] and reduce the sinks.

    Args:
        op: The tensor language.
        content: Content relevance.
        sinks: The sinks.
        at_units: Brings numbers of a sink's tokens [B, T] to the units [B, units].
        positions: Reduction of sinks.
        kind: What the method's map is.
        grid: Rows and columns, where units are patches.

    Raises:
        UsageError: ``positions`` is no reduction of sinks.
    """
    summed = content.sum(axis=-1, dtype=np.float64)
    aligned = [s for s in sinks if s.route is not None]
    position = np.zeros_like(summed)
    if kind != "content":
        for sink, term in reduce_sinks(op, aligned, positions):
            position += at_units(sink, term)
    return Maps(
        content=summed,
        position=position,
        total={"sum": summed + position, "content": summed, "position": position}[kind],
        sites=tuple(_signed(s, at_units) for s in aligned),
        grid=grid,
        warnings=tuple(unaligned(s.name) for s in sinks if s.route is None),
    )


def _signed(sink: Sink, at_units: Callable[[Sink, Array], Array]) -> Sink:
    """Signed relevance of the units, and of places that belong to none."""
    places = sink.relevance.sum(axis=-1, dtype=np.float64)
    units = at_units(sink, places)
    partial = sink.route is not None and sink.route.partial
    off = places.sum(axis=1) - units.sum(axis=1) if partial else np.zeros(len(units))
    return replace(sink, relevance=units, off_map=off)


def unaligned(name: str) -> Warning_:
    """The warning for a sink whose tokens are no units: it is in ledger and tensors only."""
    return Warning_(
        code="unaligned-site",
        message=f"the places of site/{name} cannot be followed to the units: it is not on the map",
    )


def image_grid(patch: tuple[int, int] | None, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of patches; images without patches have at most 14 × 14 blocks."""
    if patch is None:
        return min(GRID, size[0]), min(GRID, size[1])
    return size[0] // patch[0], size[1] // patch[1]


def grid_of(subject: Subject, array: Array) -> tuple[int, int] | None:
    """Rows and columns of the units of an input; ``None`` where units are tokens."""
    if (axes := subject.image) is None:
        return None
    return image_grid(subject.patch, (array.shape[axes.rows], array.shape[axes.columns]))


def to_patches(pixels: Array, grid: tuple[int, int]) -> Array:
    """[B, C, H, W] → [B, patches, F]: patches in row-major order.

    F holds the pixels of a patch if all patches have one size, else F = 1, their sum.
    """
    batch, channels, height, width = pixels.shape
    rows, columns = grid
    if height % rows == 0 and width % columns == 0:
        shape = (batch, channels, rows, height // rows, columns, width // columns)
        cut = pixels.reshape(shape).transpose(0, 2, 4, 1, 3, 5)
        return cut.reshape(batch, rows * columns, -1)
    tops = np.arange(rows) * height // rows
    lefts = np.arange(columns) * width // columns
    summed = np.add.reduceat(np.add.reduceat(pixels.sum(axis=1), tops, axis=1), lefts, axis=2)
    return np.asarray(summed.reshape(batch, -1, 1))
