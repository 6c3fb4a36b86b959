"""Occlusion (Zeiler & Fergus 2014): the target without one unit, unit by unit."""

from __future__ import annotations

import numpy as np

from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.types import Array


def occlusion(given: BaselineInput, *, unknown: int | None = None) -> Array:
    """f(x) − f(x without unit u) for every unit u: the map [B, units].

    A token is replaced by the unknown token; pixels of a patch, or numbers of a unit, are set to 0.
    It takes one forward pass for every unit.

    Args:
        given: Input and target.
        unknown: Id of the unknown token.

    Raises:
        UsageError: Units are tokens and there is no unknown one, or units have no axis of their
            own.
    """
    if given.engine.planned.analysis.input_axes(given.explained).vectors and unknown is None:
        raise UsageError(
            "occlusion needs a token to put in place of others",
            place=f"input {given.explained}",
            hint="Give --unknown, or a tokenizer with an unknown token.",
        )
    filling = 0 if unknown is None else unknown
    x = given.feeds[given.explained]
    whole = _value(given, x)
    changes = [whole - _value(given, np.where(part, filling, x)) for part in _parts(given, x)]
    return np.stack(changes, axis=1)


def _value(given: BaselineInput, x: Array) -> Array:
    """Σ seed ∘ y of every sample [B]."""
    feeds = {**given.feeds, given.explained: x.astype(given.feeds[given.explained].dtype)}
    output = given.engine.output(feeds).astype(np.float64)
    used = np.where(given.seed != 0, output, 0.0)  # switched off entries are −∞
    return np.asarray((given.seed * used).reshape(len(output), -1).sum(axis=1))


def _parts(given: BaselineInput, x: Array) -> list[Array]:
    """For every unit the entries of ``x`` that belong to it, as truth values [1, …]."""
    axes, grid = given.engine.planned.analysis.input_axes(given.explained), given.grid()
    if grid is not None and x.ndim == 4 and axes.channels == 1:
        rows, columns = (_blocks(n, k) for n, k in zip(x.shape[2:], grid, strict=True))
        return [
            (rows[None, None, :, None] == i) & (columns == j)
            for i in range(grid[0])
            for j in range(grid[1])
        ]
    if grid is not None or axes.batch is None or len(axes.units) != 1:
        raise UsageError(
            "occlusion is for texts, images, and inputs with one axis of units",
            place=f"input {given.explained}",
        )
    (axis,) = axes.units
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    return [(np.arange(x.shape[axis]) == k).reshape(shape) for k in range(x.shape[axis])]


def _blocks(pixels: int, parts: int) -> Array:
    """The block of :func:`palrp_onnx.relevance.units.to_patches` that each pixel belongs to."""
    starts = np.arange(parts) * pixels // parts
    return np.asarray(np.searchsorted(starts, np.arange(pixels), side="right") - 1)
