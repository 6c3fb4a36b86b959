"""From raw relevance to maps: one number a unit, units being tokens or patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from palrp_onnx.analysis.axes import Places
from palrp_onnx.errors import RoleError
from palrp_onnx.record import Warning_
from palrp_onnx.relevance.sinks import Sink, reduce_sinks
from palrp_onnx.subject import Subject
from palrp_onnx.types import Array

#: Sides of the grid over an image that is not cut into patches by its first layer.
GRID = 14


@dataclass(frozen=True)
class Maps:
    """Relevance a unit, each array [B, units].

    Attributes:
        sites: Sinks with one feature: what each caught, signed.
        grid: Rows and columns, where units are patches.
    """

    content: Array
    position: Array
    total: Array
    sites: tuple[Sink, ...]
    grid: tuple[int, int] | None
    warnings: tuple[Warning_, ...]


def make_maps(
    content: Array,
    sinks: Sequence[Sink],
    *,
    positions: str,
    kind: Literal["sum", "content", "position"],
    grid: tuple[int, int] | None,
) -> Maps:
    """Sum features of ``content`` [B, units, F] and reduce the sinks."""
    summed = content.sum(axis=-1, dtype=np.float64)
    units = content.shape[1]
    aligned = [at_units(s, s.places, units) for s in sinks if s.places is not None]
    position = np.zeros_like(summed)
    if kind != "content":
        position = reduce_sinks(aligned, positions, summed)
    return Maps(
        content=summed,
        position=position,
        total={"sum": summed + position, "content": summed, "position": position}[kind],
        sites=tuple(
            replace(s, relevance=s.relevance.sum(axis=-1, dtype=np.float64)) for s in aligned
        ),
        grid=grid,
        warnings=tuple(unaligned(s.name) for s in sinks if s.places is None),
    )


def at_units(sink: Sink, places: Places, units: int) -> Sink:
    """A sink with one row a unit: places ahead (class, distillation) and behind are cut off."""
    rows = sink.relevance[:, places.before : places.before + units]
    if rows.shape[1] != units or sink.relevance.shape[1] != places.before + units + places.after:
        raise RoleError(
            f"{sink.relevance.shape[1]} places cannot belong to {units} units",
            place=f"site/{sink.name}",
        )
    return replace(sink, relevance=rows)


def unaligned(name: str) -> Warning_:
    """A sink whose places are not known to be units stays in the ledger and in the arrays only."""
    return Warning_(
        code="unaligned-site",
        message=f"the places of site/{name} are not those of the units: it is not on the map",
    )


def image_grid(patch: tuple[int, int] | None, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of patches; images without patches are cut into at most 14 × 14 blocks."""
    if patch is None:
        return min(GRID, size[0]), min(GRID, size[1])
    return size[0] // patch[0], size[1] // patch[1]


def grid_of(subject: Subject, array: Array) -> tuple[int, int] | None:
    """Rows and columns of the units of an input; ``None`` where units are tokens."""
    if (axes := subject.image) is None:
        return None
    return image_grid(subject.patch, (array.shape[axes.rows], array.shape[axes.columns]))


def to_patches(pixels: Array, grid: tuple[int, int]) -> Array:
    """[B, C, H, W] → [B, patches, features]: patches in row-major order.

    Features are a patch's numbers where all patches have one size, else their sum.
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
