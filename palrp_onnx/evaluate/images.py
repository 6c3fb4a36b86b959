"""Several ways to explain, held against each other on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate import pixels as perturbation
from palrp_onnx.evaluate import segmentation
from palrp_onnx.evaluate.image_maps import Maps, Rivals
from palrp_onnx.evaluate.journal import Journal, recalled
from palrp_onnx.evaluate.masks import align
from palrp_onnx.evaluate.pixels import Directions, Kept, Predict, replacement
from palrp_onnx.evaluate.segmentation import Judgement, Segmentation
from palrp_onnx.inputs import Sample, default_preprocessor
from palrp_onnx.inputs.preprocessing import read_preprocessing
from palrp_onnx.model.open import Model
from palrp_onnx.runtime.forward import FileForward
from palrp_onnx.types import Array

Progress = Callable[[int], None]

#: Images that go through the model at once, where it takes several.
BATCH = 16


class Pixels(Struct, frozen=True, kw_only=True):
    """Perturbation of pixels over a data set.

    Attributes:
        baseline: What took the place of pixels.
        predicted: Maps of the predicted class; the share of images that are still given it.
        target: Maps of the true class; the share that is given it. ``None`` where it is not known.
    """

    samples: int
    baseline: str
    predicted: Directions
    target: Directions | None = None


@dataclass(frozen=True)
class Perturbed:
    """One image along the maps of one method: of the predicted class, and of the true one."""

    predicted: Kept
    target: Kept | None = None


def contest_pixels(
    rivals: Rivals,
    samples: Iterable[Sample],
    *,
    baseline: str = "black",
    truth: Mapping[str, str] | None = None,
    journal: Journal[Perturbed] | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, Pixels]:
    """Perturb every image in the order of every method's map, and of a random one.

    Args:
        rivals: The methods.
        samples: Images, preprocessed as the model's ``preprocessor_config.json`` says.
        baseline: See :func:`palrp_onnx.evaluate.pixels.replacement`.
        truth: The true class of every sample by its id, as a target.
        journal: Samples that it knows are not explained again.
        progress: Told the number of images that are done.

    Raises:
        UsageError: An input is no single image, or the output no class.
        InputError: The class of a sample is missing, or there are no samples.
    """
    perturbed: dict[str, list[Perturbed]] = {name: [] for name in rivals.names}
    judge = _ImageScores(rivals, baseline, truth)
    for done, sample in enumerate(samples, start=1):
        found = recalled(journal, partial(judge, sample), sample)
        for name, each in perturbed.items():
            each.append(found[name])
        progress(done)
    return {name: _pixels(each, baseline) for name, each in perturbed.items()}


def _pixels(perturbed: list[Perturbed], baseline: str) -> Pixels:
    target = [each.target for each in perturbed if each.target is not None]
    return Pixels(
        samples=len(perturbed),
        baseline=baseline,
        predicted=perturbation.summarise([each.predicted for each in perturbed]),
        target=perturbation.summarise(target) if target else None,
    )


class _ImageScores:
    """The model's file itself, asked about perturbed images."""

    def __init__(self, rivals: Rivals, baseline: str, truth: Mapping[str, str] | None) -> None:
        self._rivals = rivals
        self._baseline = baseline
        self._truth = truth
        self._predict: Predict | None = None
        self._black: Array | None = None

    def __call__(self, sample: Sample) -> dict[str, Perturbed]:
        maps, index = self._rivals.maps(sample, "pred")
        predicted = self._kept(sample, maps, index)
        if self._truth is None:
            return {name: Perturbed(kept) for name, kept in predicted.items()}
        wanted = _true(self._truth, sample)
        if self._rivals.index(wanted) == index:
            true = predicted
        else:
            true = self._kept(sample, *self._rivals.maps(sample, wanted))
        return {name: Perturbed(kept, true[name]) for name, kept in predicted.items()}

    def _kept(self, sample: Sample, maps: Maps, index: int) -> dict[str, Kept]:
        name = self._rivals.first.engine(sample.feeds).subject.input
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
        first = self._rivals.first
        if self._baseline == "black":
            self._black = black_pixel(first.model, sample.feeds[name].shape[1])
        output = first.engine(sample.feeds).subject.output
        forward = FileForward(first.model, output, device=first.device)
        self._predict = _in_batches(forward, name, _rows(first.model, name))


def black_pixel(model: Model, channels: int) -> Array:
    """What the preprocessing beside the model makes of black [C].

    Raises:
        InputError: It is missing, or not known.
    """
    steps = read_preprocessing(default_preprocessor(model.path), channels)
    return np.asarray(steps.scale(np.zeros((1, 1, channels), np.uint8))[0, 0])


def _rows(model: Model, name: str) -> int:
    """How many images go through the model at once: exported with a fixed batch, that many."""
    (shape,) = (given.shape for given in model.inputs if given.name == name)
    batch = shape[0] if shape else None
    return batch if isinstance(batch, int) else BATCH


def _in_batches(forward: FileForward, name: str, rows: int) -> Predict:
    def predict(images: Array) -> Array:
        return np.concatenate(
            [forward({name: images[k : k + rows]}) for k in range(0, len(images), rows)]
        )

    return predict


def contest_segmentation(
    rivals: Rivals,
    samples: Iterable[tuple[Sample, Array]],
    *,
    target: str = "pred",
    journal: Journal[Judgement] | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, Segmentation]:
    """Hold every method's map, and a random one, against the same masks.

    As in the paper's code, what speaks against the class is set to 0 first.

    Args:
        rivals: The methods.
        samples: Images, and their masks over the whole picture: 0 background, 1 foreground,
            -1 not judged.
        target: The explained class; the first method's choice holds for all.
        journal: Samples that it knows, with this mask, are not explained again.
        progress: Told the number of images that are done.

    Raises:
        UsageError: An input is no single image, or the output no class.
        InputError: There are no samples, or nothing of one is judged.
    """
    judged: dict[str, list[Judgement]] = {name: [] for name in rivals.names}
    for done, (sample, mask) in enumerate(samples, start=1):
        found = recalled(journal, partial(_judged, rivals, sample, mask, target), sample, mask)
        for name, each in judged.items():
            each.append(found[name])
        progress(done)
    return {name: segmentation.summarise(each) for name, each in judged.items()}


def _judged(rivals: Rivals, sample: Sample, mask: Array, target: str) -> dict[str, Judgement]:
    maps, _ = rivals.maps(sample, target)
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
