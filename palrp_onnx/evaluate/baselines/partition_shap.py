"""Shapley values of halves of halves of the units, by the package shap (Lundberg & Lee 2017)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from palrp_onnx.errors import ResourceError
from palrp_onnx.evaluate.baselines.baseline_input import BaselineInput
from palrp_onnx.evaluate.baselines.occlusion import Occlusion
from palrp_onnx.types import Array

#: Most values of the model for one sample.
EVALUATIONS = 500


def partition_shap(
    given: BaselineInput, *, unknown: int | None = None, evaluations: int = EVALUATIONS
) -> Array:
    """Owen values of the units [B, units]: those of a game in which neighbours play together.

    Units are divided into halves, again and again; units that do not play are left out as in
    occlusion. Every map sums to the target minus that without any unit.

    Args:
        given: Input and target.
        unknown: Id of the unknown token.
        evaluations: Most values of the model; with fewer than all, the last halves share equally.

    Raises:
        UsageError: As :func:`palrp_onnx.evaluate.baselines.occlusion.occlusion`.
        ResourceError: The package shap is not installed.
    """
    shap = _package()
    game = Occlusion(given, "shap", unknown)
    known: dict[bytes, Array] = {}

    def values(rows: Array) -> Array:
        """The targets of all samples [rows, B], where the units of zeros are left out."""
        for row in np.asarray(rows, bool):
            if row.tobytes() not in known:
                known[row.tobytes()] = game.value(~row)
        return np.stack([known[row.tobytes()] for row in np.asarray(rows, bool)])

    masker = shap.maskers.Partition(np.zeros((1, game.units)), clustering=_halves(game.units))
    found = [
        shap.explainers.Partition(lambda rows, sample=k: values(rows)[:, sample], masker)(
            np.ones((1, game.units)), max_evals=evaluations, silent=True
        ).values[0]
        for k in range(len(given.seed))
    ]
    return np.stack(found)


def _package() -> Any:
    try:
        return importlib.import_module("shap")
    except ImportError as error:
        raise ResourceError(
            f"The baseline shap needs a package that is not installed: {error.name}",
            hint="pip install shap; occlusion needs none.",
        ) from error


def _halves(units: int) -> Array:
    """Division into halves as SciPy's linkage: (one half, other half, height, units) per row."""
    rows: list[tuple[float, float, float, float]] = []

    def joined(first: int, last: int) -> int:
        if last - first == 1:
            return first
        middle = (first + last) // 2
        one, other = joined(first, middle), joined(middle, last)
        size = float(last - first)
        rows.append((one, other, size, size))
        return units + len(rows) - 1

    joined(0, units)
    return np.array(rows, np.float64)
