"""Evaluation of several methods on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate import pixels as perturbation
from palrp_onnx.evaluate import segmentation
from palrp_onnx.evaluate.image_maps import ComparedMaps, Maps
from palrp_onnx.evaluate.journal import Journal, recalled
from palrp_onnx.evaluate.masks import align
from palrp_onnx.evaluate.pixels import Directions, Predict, Retention, replacement
from palrp_onnx.evaluate.segmentation import MaskScores, Segmentation
from palrp_onnx.inputs import Sample, default_preprocessor
from palrp_onnx.inputs.preprocessing import read_preprocessing
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import FileForward
from palrp_onnx.types import Array

Progress = Callable[[int], None]

#: Images per run of the model, if its batch axis is free.
BATCH = 16


class Pixels(Struct, frozen=True, kw_only=True):
    """Perturbation of pixels over a data set.

    Attributes:
        samples: Number of images.
        baseline: Replacement of pixels.
        predicted: For maps of the predicted class: the share of images that still get this class.
        target: For maps of the true class: the share of images that get this class; ``None`` if
            true classes are not known.
    """

    samples: int
    baseline: str
    predicted: Directions
    target: Directions | None = None


@dataclass(frozen=True)
class Perturbed:
    """One image perturbed by a method's map of the predicted class, and by that of the true one."""

    predicted: Retention
    target: Retention | None = None


def evaluate_pixels(
    compared: ComparedMaps,
    samples: Iterable[Sample],
    *,
    baseline: str = "black",
    truth: Mapping[str, str] | None = None,
    journal: Journal[Perturbed] | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, Pixels]:
    """Perturb every image in the order of every method's map, and of a random map.

    Args:
        compared: The methods.
        samples: Images, preprocessed by the model's ``preprocessor_config.json``.
        baseline: See :func:`palrp_onnx.evaluate.pixels.replacement`.
        truth: The true class of every sample by its id, as a target.
        journal: Results of samples that were evaluated before.
        progress: Called with the number of images that are done.

    Raises:
        UsageError: An input is not a single image, or the target is not a class.
        InputError: The class of a sample is missing, or there are no samples.
    """
    found = perturbed_images(
        compared, samples, baseline=baseline, truth=truth, journal=journal, progress=progress
    )
    return {name: _pixels(each, baseline) for name, each in found.items()}


def perturbed_images(
    compared: ComparedMaps,
    samples: Iterable[Sample],
    *,
    baseline: str = "black",
    truth: Mapping[str, str] | None = None,
    journal: Journal[Perturbed] | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, list[Perturbed]]:
    """Every perturbed image, by method: see :func:`evaluate_pixels`."""
    perturbed: dict[str, list[Perturbed]] = {name: [] for name in compared.names}
    judge = _ImageScores(compared, baseline, truth)
    for done, sample in enumerate(samples, start=1):
        found = recalled(journal, partial(judge, sample), sample)
        for name, each in perturbed.items():
            each.append(found[name])
        progress(done)
    return perturbed


def _pixels(perturbed: list[Perturbed], baseline: str) -> Pixels:
    target = [each.target for each in perturbed if each.target is not None]
    return Pixels(
        samples=len(perturbed),
        baseline=baseline,
        predicted=perturbation.summarise([each.predicted for each in perturbed]),
        target=perturbation.summarise(target) if target else None,
    )


class _ImageScores:
    """Scores of the model's own file for perturbed images."""

    def __init__(
        self, compared: ComparedMaps, baseline: str, truth: Mapping[str, str] | None
    ) -> None:
        self._compared = compared
        self._baseline = baseline
        self._truth = truth
        self._predict: Predict | None = None
        self._black: Array | None = None

    def __call__(self, sample: Sample) -> dict[str, Perturbed]:
        maps, index = self._compared.maps(sample, "pred")
        predicted = self._retention(sample, maps, index)
        if self._truth is None:
            return {name: Perturbed(retained) for name, retained in predicted.items()}
        wanted = _true(self._truth, sample)
        if self._compared.index(wanted) == index:
            true = predicted
        else:
            true = self._retention(sample, *self._compared.maps(sample, wanted))
        return {name: Perturbed(retained, true[name]) for name, retained in predicted.items()}

    def _retention(self, sample: Sample, maps: Maps, index: int) -> dict[str, Retention]:
        name = self._compared.first.engine(sample.feeds).subject.input
        if len(sample.feeds) != 1:
            raise UsageError("Only a model with one input can be evaluated on pixels")
        pixels = sample.feeds[name][0]
        if self._predict is None:
            self._open(sample, name)
        assert self._predict is not None
        instead = replacement(pixels, self._baseline, self._black)
        return {
            each: perturbation.perturb(pixels, instead, relevance, index, self._predict)
            for each, relevance in maps.items()
        }

    def _open(self, sample: Sample, name: str) -> None:
        first = self._compared.first
        if self._baseline == "black":
            self._black = black_pixel(first.model, sample.feeds[name].shape[1])
        output = first.engine(sample.feeds).subject.output
        forward = FileForward(first.model, output, device=first.device)
        self._predict = _in_batches(forward, name, _rows(first.model, name))


def black_pixel(model: Model, channels: int) -> Array:
    """A black pixel [C] after the preprocessing in the model's folder.

    Raises:
        InputError: The preprocessing is missing, or not supported.
    """
    steps = read_preprocessing(default_preprocessor(model.path), channels)
    return np.asarray(steps.scale(np.zeros((1, 1, channels), np.uint8))[0, 0])


def _rows(model: Model, name: str) -> int:
    """Images per run of the model: its batch size, if that is fixed."""
    (shape,) = (given.shape for given in model.inputs if given.name == name)
    batch = shape[0] if shape else None
    return batch if isinstance(batch, int) else BATCH


def _in_batches(forward: FileForward, name: str, rows: int) -> Predict:
    def predict(images: Array) -> Array:
        return np.concatenate(
            [forward({name: images[k : k + rows]}) for k in range(0, len(images), rows)]
        )

    return predict


def evaluate_segmentation(
    compared: ComparedMaps,
    samples: Iterable[tuple[Sample, Array]],
    *,
    target: str = "pred",
    journal: Journal[MaskScores] | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, Segmentation]:
    """Compare every method's map, and a random map, with the same masks.

    As in the paper's code, negative relevance is set to 0 first.

    Args:
        compared: The methods.
        samples: Images, and their masks over the whole picture: 0 background, 1 foreground,
            -1 ignored.
        target: The explained class; the class that the first method explains is used for all.
        journal: Results of samples that were evaluated before, with the same mask.
        progress: Called with the number of images that are done.

    Raises:
        UsageError: An input is not a single image, or the target is not a class.
        InputError: There are no samples, or all pixels of a mask are ignored.
    """
    judged: dict[str, list[MaskScores]] = {name: [] for name in compared.names}
    for done, (sample, mask) in enumerate(samples, start=1):
        found = recalled(journal, partial(_judged, compared, sample, mask, target), sample, mask)
        for name, each in judged.items():
            each.append(found[name])
        progress(done)
    return {name: segmentation.summarise(each) for name, each in judged.items()}


def _judged(
    compared: ComparedMaps, sample: Sample, mask: Array, target: str
) -> dict[str, MaskScores]:
    maps, _ = compared.maps(sample, target)
    try:
        return {
            name: segmentation.judge(
                *align(np.maximum(relevance, 0).astype(np.float32), mask, sample.geometry)
            )
            for name, relevance in maps.items()
        }
    except InputError as error:
        raise InputError(error.message, place=sample.id, hint=error.hint) from error


def _true(truth: Mapping[str, str], sample: Sample) -> str:
    if sample.id not in truth:
        raise InputError("The true class is missing", place=sample.id)
    return truth[sample.id]
