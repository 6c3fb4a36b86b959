"""From raw relevance to maps: one number for every unit, a token or a patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from palrp_onnx.record import Warning_
from palrp_onnx.relevance.method import Ranking
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
        content: Signed content relevance, summed over features.
        position: Signed position relevance, summed over the sinks on the map.
        score: What the method ranks units by.
        sites: Sinks with one feature: signed relevance [B, units].
        grid: Rows and columns, where units are patches.
        unaligned: Names of the sinks that are not on the map.
        off_map: Relevance of the sinks that are on no map at all [B]; it is counted with the first.
    """

    content: Array
    position: Array
    score: Array
    sites: tuple[Sink, ...]
    grid: tuple[int, int] | None
    unaligned: tuple[str, ...]
    off_map: Array


def make_maps(
    op: Language[Array],
    content: Array,
    sinks: Sequence[Sink],
    at_units: Callable[[Sink, Array], Array],
    *,
    positions: str,
    ranking: Ranking,
    grid: tuple[int, int] | None,
    nowhere: Sequence[Sink] = (),
) -> Maps:
    """Sum features of ``content`` [B, units, F] and of the sinks, and reduce these for the score.

    Args:
        op: The tensor language.
        content: Content relevance.
        sinks: The sinks.
        at_units: Brings numbers of a sink's tokens [B, T] to the units [B, units].
        positions: Reduction of sinks.
        ranking: How the method makes scores.
        grid: Rows and columns, where units are patches.
        nowhere: The sinks that are on no map.

    Raises:
        UsageError: ``positions`` is no reduction of sinks.
    """
    summed = content.sum(axis=-1, dtype=np.float64)
    aligned = [s for s in sinks if s.route is not None]
    sites = tuple(_signed(s, at_units) for s in aligned)
    reduced = np.zeros_like(summed)
    if ranking.kind != "content":
        for sink, term in reduce_sinks(op, aligned, positions, ranking.layer_weight):
            reduced += ranking.position_weight * at_units(sink, term)
    score = reduced if ranking.kind == "position" else summed + reduced
    if ranking.magnitude:
        score = (1.0 - ranking.magnitude) * score + ranking.magnitude * np.abs(score)
    return Maps(
        content=summed,
        position=sum((s.relevance for s in sites), np.zeros_like(summed)),
        score=score,
        sites=sites,
        grid=grid,
        unaligned=tuple(s.name for s in sinks if s.route is None),
        off_map=sum(
            (s.relevance.sum(axis=(1, 2), dtype=np.float64) for s in nowhere), np.zeros(len(summed))
        ),
    )


def _signed(sink: Sink, at_units: Callable[[Sink, Array], Array]) -> Sink:
    """Signed relevance of the units, and of places that belong to none."""
    places = sink.relevance.sum(axis=-1, dtype=np.float64)
    units = at_units(sink, places)
    partial = sink.route is not None and sink.route.partial
    off = places.sum(axis=1) - units.sum(axis=1) if partial else np.zeros(len(units))
    return replace(sink, relevance=units, off_map=off)


def unaligned(maps: Sequence[Maps]) -> list[Warning_]:
    """Warnings for sinks that are on no map: they are in the ledger and in tensors only."""
    everywhere = set(maps[0].unaligned).intersection(*(each.unaligned for each in maps))
    return [
        Warning_(
            code="unaligned-site",
            message=f"the places of site/{name} cannot be followed to units of an explained input: "
            "it is not on the map",
        )
        for name in maps[0].unaligned
        if name in everywhere
    ]


def image_grid(patch: tuple[int, ...] | None, size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of patches; images without patches have at most 14 × 14 blocks."""
    if patch is None:
        return min(GRID, size[0]), min(GRID, size[1])
    return size[0] // patch[-2], size[1] // patch[-1]


def grid_of(subject: Subject, array: Array) -> tuple[int, int] | None:
    """Rows and columns of the units of an input; ``None`` where units are tokens.

    Images that are all units of one sample, and pictures of a video, are below each other.
    """
    if (axes := subject.image) is None:
        return None
    grid = image_grid(subject.patch, (array.shape[axes.rows], array.shape[axes.columns]))
    return pictures_of(subject, array) * grid[0], grid[1]


def pictures_of(subject: Subject, array: Array) -> int:
    """Number of pictures with units of their own that a sample of an input has."""
    axes = subject.image
    images = 1 if subject.rows is None else array.shape[subject.rows]
    if axes is None or axes.pictures is None:
        return images
    return int(images * (array.shape[axes.pictures] // _depth(subject)))


def _depth(subject: Subject) -> int:
    """Pictures of a video that share their units."""
    return subject.patch[0] if subject.patch is not None and len(subject.patch) > 2 else 1


def unit_relevance(subject: Subject, raw: Array, grid: tuple[int, int] | None) -> Array:
    """[B, units, F] of an explained input, from tokens or from the pixels of its images."""
    if grid is None:
        return raw
    samples = 1 if subject.rows is not None else len(raw)
    if subject.image is not None and subject.image.pictures is not None:
        raw = _apart(raw, _depth(subject))
    patches = to_patches(raw, (samples * grid[0] // len(raw), grid[1]))
    return patches.reshape(samples, -1, patches.shape[-1])


def _apart(pixels: Array, depth: int) -> Array:
    """[B, C, P, H, W] → [B · pictures, C · depth, H, W]."""
    batch, channels, pictures, height, width = pixels.shape
    parts = pixels.reshape(batch, channels, pictures // depth, depth, height, width)
    return parts.transpose(0, 2, 1, 3, 4, 5).reshape(-1, channels * depth, height, width)


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
