"""Several ways to explain, held against each other on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate import pixels as perturbation
from palrp_onnx.evaluate import segmentation
from palrp_onnx.evaluate.baselines import Competitor
from palrp_onnx.evaluate.images import Maps, Rivals
from palrp_onnx.evaluate.masks import align
from palrp_onnx.evaluate.pixels import Directions, Kept, Predict, replacement
from palrp_onnx.evaluate.segmentation import Judgement, Segmentation
from palrp_onnx.forward import FileForward
from palrp_onnx.graph.model import Model
from palrp_onnx.inputs import Sample, default_preprocessor
from palrp_onnx.inputs.preprocessing import read_preprocessing

Array = NDArray[Any]
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


def contest_pixels(
    rivals: Rivals,
    samples: Iterable[Sample],
    *,
    baseline: str = "black",
    truth: Mapping[str, str] | None = None,
    progress: Progress = lambda done: None,
) -> dict[str, Pixels]:
    """Perturb every image in the order of every method's map, and of a random one.

    Args:
        rivals: The methods.
        samples: Images, preprocessed as the model's ``preprocessor_config.json`` says.
        baseline: See :func:`palrp_onnx.evaluate.pixels.replacement`.
        truth: The true class of every sample by its id, as a target.
        progress: Told the number of images that are done.

    Raises:
        UsageError: An input is no single image, or the output no class.
        InputError: The class of a sample is missing, or there are no samples.
    """
    predicted: dict[str, list[Kept]] = {name: [] for name in rivals.names}
    target: dict[str, list[Kept]] = {name: [] for name in rivals.names}
    judge: _Judge | None = None
    for done, sample in enumerate(samples, start=1):
        maps, index = rivals.maps(sample, "pred")
        if judge is None:
            judge = _Judge(rivals.first, sample, baseline)
        for name, kept in judge(sample, maps, index):
            predicted[name].append(kept)
        if truth is not None:
            for name, kept in judge(sample, *rivals.maps(sample, _true(truth, sample))):
                target[name].append(kept)
        progress(done)
    return {
        name: Pixels(
            samples=len(predicted[name]),
            baseline=baseline,
            predicted=perturbation.summarise(predicted[name]),
            target=None if truth is None else perturbation.summarise(target[name]),
        )
        for name in rivals.names
    }


class _Judge:
    """The model's file itself, asked about perturbed images."""

    def __init__(self, competitor: Competitor, sample: Sample, baseline: str) -> None:
        subject = competitor.engine(sample.feeds).subject
        self._name = subject.input
        self._baseline = baseline
        self._black: Array | None = None
        if baseline == "black":
            self._black = black_pixel(competitor.model, sample.feeds[self._name].shape[1])
        forward = FileForward(competitor.model, subject.output, device=competitor.device)
        rows = _rows(competitor.model, self._name)
        self._predict = _in_batches(forward, self._name, rows)

    def __call__(self, sample: Sample, maps: Maps, index: int) -> Iterator[tuple[str, Kept]]:
        if len(sample.feeds) != 1:
            raise UsageError("Only a model with one input can be evaluated on pixels")
        pixels = sample.feeds[self._name][0]
        instead = replacement(pixels, self._baseline, self._black)
        for name, relevance in maps.items():
            yield name, perturbation.perturb(pixels, instead, relevance, index, self._predict)


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
    progress: Progress = lambda done: None,
) -> dict[str, Segmentation]:
    """Hold every method's map, and a random one, against the same masks.

    As in the paper's code, what speaks against the class is set to 0 first.

    Args:
        rivals: The methods.
        samples: Images, and their masks over the whole picture: 0 background, 1 foreground,
            -1 not judged.
        target: The explained class; the first method's choice holds for all.
        progress: Told the number of images that are done.

    Raises:
        UsageError: An input is no single image, or the output no class.
        InputError: There are no samples, or nothing of one is judged.
    """
    judged: dict[str, list[Judgement]] = {name: [] for name in rivals.names}
    for done, (sample, mask) in enumerate(samples, start=1):
        maps, _ = rivals.maps(sample, target)
        for name, relevance in maps.items():
            positive = np.maximum(relevance, 0).astype(np.float32)
            try:
                judged[name].append(segmentation.judge(*align(positive, mask, sample.geometry)))
            except InputError as error:
                raise InputError(error.message, place=sample.id, hint=error.hint) from error
        progress(done)
    return {name: segmentation.summarise(each) for name, each in judged.items()}


def _true(truth: Mapping[str, str], sample: Sample) -> str:
    if sample.id not in truth:
        raise InputError("The true class is missing", place=sample.id)
    return truth[sample.id]
