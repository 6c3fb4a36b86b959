"""Occlusion (Zeiler & Fergus 2014): the target without one unit, unit by unit."""

from __future__ import annotations

import numpy as np

from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.types import Array


def occlusion(given: BaselineInput, *, unknown: int | None = None) -> Array:
    """f(x) − f(x without unit u) for every unit u: the map [B, units].

    It takes one forward pass for every unit.

    Args:
        given: Input and target.
        unknown: Id of the unknown token.

    Raises:
        UsageError: As :class:`Occlusion`.
    """
    game = Occlusion(given, "occlusion", unknown)
    whole = game.value(np.zeros(game.units, bool))
    return np.stack([whole - game.value(one) for one in np.eye(game.units, dtype=bool)], axis=1)


class Occlusion:
    """The target of a batch without some units.

    A token is replaced by the unknown token; pixels of a patch, or numbers of a unit, are set to 0.

    Attributes:
        units: Number of units.

    Args:
        given: Input and target.
        name: Name of the baseline, for errors.
        unknown: Id of the unknown token.

    Raises:
        UsageError: Units are tokens and there is no unknown one, or units have no axis of their
            own.
    """

    def __init__(self, given: BaselineInput, name: str, unknown: int | None) -> None:
        place = f"input {given.explained}"
        self._given = given
        self._x = given.feeds[given.explained]
        axes, grid = given.engine.planned.analysis.input_axes(given.explained), given.grid()
        if axes.vectors and unknown is None:
            raise UsageError(
                f"{name} needs a token to put in place of others",
                place=place,
                hint="Give --unknown, or a tokenizer with an unknown token.",
            )
        self._filling = 0 if unknown is None else unknown
        if grid is not None and self._x.ndim == 4 and axes.channels == 1:
            rows, columns = (_blocks(n, k) for n, k in zip(self._x.shape[2:], grid, strict=True))
            self._unit_of = rows[:, None] * grid[1] + columns
            self.units = grid[0] * grid[1]
        elif grid is None and axes.batch is not None and len(axes.units) == 1:
            (axis,) = axes.units
            shape = [1] * self._x.ndim
            shape[axis] = self.units = self._x.shape[axis]
            self._unit_of = np.arange(self.units).reshape(shape)
        else:
            raise UsageError(
                f"{name} is for texts, images, and inputs with one axis of units", place=place
            )

    def value(self, without: Array) -> Array:
        """Σ seed ∘ y of every sample [B] without these units [units]."""
        given = self._given
        x = np.where(without[self._unit_of], self._filling, self._x).astype(self._x.dtype)
        output = given.engine.output({**given.feeds, given.explained: x}).astype(np.float64)
        used = np.where(given.seed != 0, output, 0.0)  # switched off entries are −∞
        return np.asarray((given.seed * used).reshape(len(output), -1).sum(axis=1))


def _blocks(pixels: int, parts: int) -> Array:
    """The block of :func:`palrp_onnx.relevance.units.to_patches` that each pixel belongs to."""
    starts = np.arange(parts) * pixels // parts
    return np.asarray(np.searchsorted(starts, np.arange(pixels), side="right") - 1)
