"""Perturbation of pixels: how long a class is retained while they are replaced in a map's order.

The protocol of PA-LRP for images: 10 %, 20 %, … 90 % of the pixels are replaced, all channels at
once. *Positive* perturbation starts with the highest relevance: with a good map the class is lost
early. *Negative* perturbation starts with the lowest: with a good map it is retained for long. The
area runs from .1 to .9, so it is at most .8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.statistics import Area, interval
from palrp_onnx.types import Array

#: Pixels [rows, channels, height, width], preprocessed → logits [rows, classes].
Predict = Callable[[Array], Array]

#: Tenths of the pixels that are replaced.
TENTHS = range(1, 10)
BASELINES = ("black", "mean", "blur")
_SIGMA, _KERNEL = 20.0, 51


@dataclass(frozen=True)
class Retention:
    """One image and one map: whether the class still has the largest logit, for every step [9]."""

    positive: Array
    negative: Array


class Directions(Struct, frozen=True, kw_only=True):
    """Areas under the share of images that retain their class.

    Attributes:
        positive: The most relevant pixels are replaced first: lower is better.
        negative: The least relevant pixels are replaced first: higher is better.
    """

    positive: Area
    negative: Area


def replacement(pixels: Array, baseline: str, black: Array | None = None) -> Array:
    """The replacement of the pixels [C, H, W], in preprocessed values.

    Rescaling and normalising are affine in every channel, so means and blurs can be computed after
    them. Black cannot: it is 0 before, and ``(0 − mean) / std`` after them.

    Args:
        pixels: The image [C, H, W], preprocessed.
        baseline: ``black``, ``mean`` (of every channel) or ``blur`` (Gaussian, σ = 20, 51 pixels
            wide, edges mirrored).
        black: The preprocessed black pixel [C], for the baseline ``black``.

    Raises:
        UsageError: The baseline is unknown, or the black pixel missing.
    """
    if baseline == "black":
        if black is None:
            raise UsageError("The preprocessed value of black is not known")
        return np.broadcast_to(black[:, None, None], pixels.shape)
    if baseline == "mean":
        return np.broadcast_to(pixels.mean(axis=(1, 2), keepdims=True), pixels.shape)
    if baseline == "blur":
        height, width = pixels.shape[1:]
        return _blurring(height) @ pixels @ _blurring(width).T
    raise UsageError(f"Unknown baseline {baseline!r}", hint=f"Baselines: {', '.join(BASELINES)}.")


def _blurring(size: int) -> Array:
    """The matrix [size, size] that blurs along an axis."""
    reach = _KERNEL // 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SIGMA) ** 2)
    mirrored = np.pad(np.arange(size), reach, mode="reflect")
    matrix = np.zeros((size, size))
    for shift, weight in enumerate(weights / weights.sum()):
        np.add.at(matrix, (np.arange(size), mirrored[shift : shift + size]), weight)
    return matrix


def perturbed(pixels: Array, instead: Array, order: Array) -> Array:
    """``pixels`` with the first 1 … 9 tenths of ``order`` taken from ``instead`` [9, C, H, W].

    Args:
        pixels: The image [C, H, W].
        instead: The replacement [C, H, W].
        order: Indices of all H · W pixels.
    """
    channels = len(pixels)
    rows = np.repeat(pixels.reshape(1, channels, -1), len(TENTHS), axis=0)
    other = instead.reshape(channels, -1)
    for row, tenth in zip(rows, TENTHS, strict=True):
        places = order[: len(order) * tenth // 10]
        row[:, places] = other[:, places]
    return rows.reshape(-1, *pixels.shape)


def orders(relevance: Array) -> tuple[Array, Array]:
    """Indices of pixels in descending and in ascending order of a map [H, W]; ties row by row."""
    flat = relevance.ravel()
    return np.argsort(-flat, kind="stable"), np.argsort(flat, kind="stable")


def perturb(
    pixels: Array, instead: Array, relevance: Array, index: int, predict: Predict
) -> Retention:
    """Perturb one image in the order of one map.

    Args:
        pixels: The image [C, H, W], preprocessed.
        instead: The replacement of pixels: :func:`replacement`.
        relevance: The map [H, W], signed. Only its order matters.
        index: The class.
        predict: The model.
    """
    retained = [
        predict(perturbed(pixels, instead, order)).argmax(axis=-1) == index
        for order in orders(relevance)
    ]
    return Retention(*retained)


def summarise(retained: Sequence[Retention], *, seed: int = 0) -> Directions:
    """Areas under the mean curves, with 95 % intervals over the images.

    Raises:
        InputError: There are no images.
    """
    if not retained:
        raise InputError("There is nothing to evaluate")
    return Directions(
        positive=_area(np.stack([each.positive for each in retained]), seed),
        negative=_area(np.stack([each.negative for each in retained]), seed),
    )


def _area(retained: Array, seed: int) -> Area:
    """Area by the trapezoidal rule under the mean of ``retained`` [images, steps]."""
    # The area is linear in the curve: that of a set is the mean of the areas of its images.
    areas = area_of(retained)
    curves = retained.astype(np.float64)
    return Area.of(curves, areas, interval(areas, lambda means: means, seed=seed))


def area_of(retained: Array) -> Array:
    """Areas [images] under ``retained`` [images, steps] by the trapezoidal rule."""
    return np.asarray(np.trapezoid(retained.astype(np.float64), dx=0.1, axis=1))
