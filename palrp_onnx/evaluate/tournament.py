"""All methods that apply to a model, on inputs of its user, and which of them to use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from palrp_onnx.errors import PalrpError, UsageError
from palrp_onnx.evaluate.baselines import ComparedMethod
from palrp_onnx.evaluate.choice import Choice, choose
from palrp_onnx.evaluate.image_maps import ComparedMaps
from palrp_onnx.evaluate.images import perturbed_images
from palrp_onnx.evaluate.maps import explained
from palrp_onnx.evaluate.perturbation import COMPARED, MEASURES, Protocol, areas_of
from palrp_onnx.evaluate.pixels import area_of
from palrp_onnx.evaluate.texts import perturbation_curves
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.types import Array

#: Measures of images: low is good while the most relevant pixels go first.
IMAGES = {"positive": False, "negative": True}


def applicable(
    build: Callable[[str], ComparedMethod],
    names: Iterable[str],
    sample: Sample,
    target: str = "pred",
    labels: Mapping[int, str] | None = None,
) -> tuple[dict[str, ComparedMethod], dict[str, str]]:
    """The methods that explain an input, and why the others do not.

    Args:
        build: The name of a method → the method.
        names: Names of methods.
        sample: The input that they are tried on.
        target: The explained target.
        labels: Names of classes by index.
    """
    fitting: dict[str, ComparedMethod] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            method = build(name)
            _, relevance = explained(method, sample, target, labels)
        except PalrpError as error:
            refused[name] = error.message
            continue
        if np.isfinite(relevance).all() and np.ptp(relevance) > 0:
            fitting[name] = method
        else:
            refused[name] = "Its map of the first input has no order"
    return fitting, refused


def tournament(
    methods: Mapping[str, ComparedMethod],
    samples: Iterable[Sample],
    kind: str,
    *,
    protocol: Protocol | None = None,
    baseline: str = "mean",
    target: str = "pred",
    labels: Mapping[int, str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Choice:
    """Perturb all inputs in the order of every method's map, and of a random one, and choose.

    Args:
        methods: The methods by name; of equally good ones the first is chosen.
        samples: Texts, or images.
        kind: ``text`` or ``image``.
        protocol: How texts are perturbed.
        baseline: What replaces pixels: see :func:`palrp_onnx.evaluate.pixels.replacement`.
        target: The explained target of texts; of images it is the predicted class.
        labels: Names of classes by index.
        progress: Called with the number of inputs that are done.

    Raises:
        UsageError: The inputs are neither texts nor images, or no method applies.
    """
    if not methods:
        raise UsageError("No method applies to this model")
    values: dict[str, Array]
    if kind == "text" and protocol is not None:
        curves = perturbation_curves(
            methods, samples, protocol, target=target, labels=labels, progress=progress
        )
        values = {name: areas_of(each) for name, each in curves.items()}
        return choose(values, {name: MEASURES[name].higher for name in COMPARED})
    if kind != "image":
        raise UsageError(f"Only texts and images can be perturbed, not {kind}")
    images = perturbed_images(
        ComparedMaps(methods, labels), samples, baseline=baseline, progress=progress
    )
    values = {
        name: np.stack(
            [area_of(np.stack([getattr(one.predicted, key) for one in each])) for key in IMAGES],
            axis=1,
        )
        for name, each in images.items()
    }
    return choose(values, IMAGES)
