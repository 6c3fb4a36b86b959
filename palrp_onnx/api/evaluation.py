"""Measurements over a data set, and comparisons of explanations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from palrp_onnx.api.loaded import LoadedModel, Target, target_text
from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate import agreement, conservation, images, randomisation, stability, texts
from palrp_onnx.evaluate.baselines import ComparedMethod, compared_method
from palrp_onnx.evaluate.image_maps import ComparedMaps
from palrp_onnx.evaluate.masks import read_mask
from palrp_onnx.evaluate.pairing import Pairs
from palrp_onnx.evaluate.perturbation import Perturbation, Protocol
from palrp_onnx.evaluate.segmentation import Segmentation
from palrp_onnx.explanation import Explanation
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.tokens import unknown_token
from palrp_onnx.inputs.values import Value
from palrp_onnx.model.open import Model
from palrp_onnx.record import Attribution
from palrp_onnx.relevance.method import Method
from palrp_onnx.types import Array

#: What is compared by default.
METHODS = ("pa-lrp", "attnlrp")


@overload
def compare(
    first: Explanation | Attribution, second: Explanation | Attribution, *, top: int = ...
) -> agreement.Pair: ...
@overload
def compare(first: str | Path, second: str | Path, *, top: int = ...) -> agreement.Agreement: ...
def compare(
    first: Explanation | Attribution | str | Path,
    second: Explanation | Attribution | str | Path,
    *,
    top: int = agreement.TOP,
) -> agreement.Pair | agreement.Agreement:
    """How far two explanations of one input agree; or two runs over the same inputs.

    >>> import palrp_onnx as px
    >>> model = px.load("models/reviews-rope")
    >>> one, other = (model.explain("A gripping film.", method=m) for m in ("pa-lrp", "attnlrp"))
    >>> px.compare(one, one).correlation
    1.0
    >>> px.compare(one, other).same_target
    True

    Args:
        first: An explanation or its record; or the folder or the ``.jsonl`` file of a run.
        second: The other.
        top: Number of units that count as the strongest of a map.

    Raises:
        InputError: The inputs differ, or the runs have none in common.
    """
    if isinstance(first, str | os.PathLike) and isinstance(second, str | os.PathLike):
        return agreement.agreement(Pairs(Path(first), Path(second)), top=top)
    return agreement.compare(_record(first), _record(second), top=top)


def evaluate_perturbation(
    model: LoadedModel,
    values: Iterable[Value],
    methods: Sequence[Method | str] = METHODS,
    *,
    target: Target = "pred",
    unknown: str | None = None,
    prefix: int = 0,
    suffix: int = 0,
) -> dict[str, Perturbation]:
    """How early a prediction returns when tokens are put in in the order of the map.

    >>> import palrp_onnx as px
    >>> model = px.load("models/reviews-rope")
    >>> found = px.evaluate_perturbation(model, ["A gripping film.", "So dull and wooden."])
    >>> list(found), found["pa-lrp"].samples
    (['pa-lrp', 'attnlrp', 'random'], 2)

    Args:
        model: The model.
        values: Texts.
        methods: The methods that are compared; a random map is added.
        target: The explained target.
        unknown: Token that replaces others; by default the tokenizer's unknown token.
        prefix: Number of tokens at the start that are never replaced.
        suffix: Number of tokens at the end that are never replaced.
    """
    token = unknown_token(model.tokenizer, unknown)
    protocol = Protocol(unknown=token, prefix=prefix, suffix=suffix)
    return texts.evaluate_perturbation(
        _compared(model, methods, unknown=token),
        _samples(model, values),
        protocol,
        target=target_text(target),
        labels=model.labels,
    )


def evaluate_pixels(
    model: LoadedModel,
    values: Iterable[Value],
    methods: Sequence[Method | str] = METHODS,
    *,
    baseline: str = "black",
    classes: Sequence[Target] | None = None,
) -> dict[str, images.Pixels]:
    """How long a class is retained while pixels are replaced in the order of the map.

    Args:
        model: The model.
        values: Images.
        methods: The methods that are compared; a random map is added.
        baseline: What replaces pixels: ``black``, ``mean`` or ``blur``.
        classes: The true class of every image, in their order.
    """
    truth: dict[str, str] = {}

    def read() -> Iterator[Sample]:
        for number, sample in enumerate(_samples(model, values)):
            if classes is not None and number < len(classes):
                truth[sample.id] = target_text(classes[number])
            yield sample

    return images.evaluate_pixels(
        ComparedMaps(_compared(model, methods), model.labels),
        read(),
        baseline=baseline,
        truth=None if classes is None else truth,
    )


def evaluate_segmentation(
    model: LoadedModel,
    values: Iterable[tuple[Value, str | Path | Array]],
    methods: Sequence[Method | str] = METHODS,
    *,
    target: Target = "pred",
) -> dict[str, Segmentation]:
    """How well a map separates an object from its background.

    Args:
        model: The model.
        values: Images, each with its mask: a PNG, in which 0 is background, or an array [height,
            width] of 0 (background), 1 (foreground) and −1 (ignored).
        methods: The methods that are compared; a random map is added.
        target: The explained class.
    """

    def read() -> Iterator[tuple[Sample, Array]]:
        for number, (value, mask) in enumerate(values):
            array = read_mask(Path(mask)) if isinstance(mask, str | os.PathLike) else mask
            yield _sample(model, number, value), array

    return images.evaluate_segmentation(
        ComparedMaps(_compared(model, methods), model.labels), read(), target=target_text(target)
    )


def evaluate_conservation(
    model: LoadedModel,
    values: Iterable[Value],
    *,
    target: Target = "pred",
    method: Method | str | None = None,
    positions: str | None = None,
) -> conservation.Conservation:
    """The share of positions in the relevance, and of all entries of the ledger.

    Args:
        model: The model.
        values: Inputs.
        target: The explained target.
        method: As for :meth:`palrp_onnx.LoadedModel.explain`.
        positions: As for :meth:`palrp_onnx.LoadedModel.explain`.
    """
    found = (
        model.explain(value, (target,), method=method, positions=positions) for value in values
    )
    return conservation.conservation(each.record for several in found for each in several)


def evaluate_randomisation(
    model: LoadedModel,
    values: Sequence[Value],
    methods: Sequence[Method | str] = METHODS,
    *,
    target: Target = "pred",
    seed: int = 0,
    draws: int = 3,
) -> dict[str, randomisation.Randomisation]:
    """Whether maps depend on learnt weights: the weights are shuffled from the output down.

    Args:
        model: The model.
        values: Inputs of one row; they are read once for every step.
        methods: The methods that are compared.
        target: The explained target.
        seed: Seed of the permutations.
        draws: Number of permutations.
    """
    return randomisation.randomisation(
        model.model,
        lambda other: _compared(model, methods, on=other),
        lambda: _samples(model, values),
        target=target_text(target),
        labels=model.labels,
        seed=seed,
        draws=draws,
    )


def evaluate_stability(
    model: LoadedModel,
    values: Iterable[Value],
    methods: Sequence[Method | str] = METHODS,
    *,
    target: Target = "pred",
    unknown: str | None = None,
    prefix: int = 0,
    suffix: int = 0,
) -> dict[str, stability.Stability]:
    """Whether the map of the other tokens stays the same when one token changes.

    Args:
        model: The model.
        values: Texts.
        methods: The methods that are compared.
        target: The explained target.
        unknown: Token that replaces others; by default the tokenizer's unknown token.
        prefix: Number of tokens at the start that are never replaced.
        suffix: Number of tokens at the end that are never replaced.
    """
    token = unknown_token(model.tokenizer, unknown)
    return stability.stability(
        _compared(model, methods, unknown=token),
        _samples(model, values),
        stability.Replacement(unknown=token, prefix=prefix, suffix=suffix),
        target=target_text(target),
        labels=model.labels,
    )


def _compared(
    model: LoadedModel,
    methods: Sequence[Method | str],
    *,
    unknown: int | None = None,
    on: Model | None = None,
) -> dict[str, ComparedMethod]:
    """Methods and baselines by their names.

    Args:
        model: The model, whose options count.
        methods: Their texts, or objects.
        unknown: The token that replaces others.
        on: The same model with other weights.
    """
    options = {name: model.options[name] for name in ("engine", "dtype", "device", "output")}
    return {
        each if isinstance(each, str) else each.text: compared_method(
            each, on or model.model, unknown=unknown, **options
        )
        for each in methods
    }


def _samples(model: LoadedModel, values: Iterable[Value]) -> Iterator[Sample]:
    return (_sample(model, number, value) for number, value in enumerate(values))


def _sample(model: LoadedModel, number: int, value: Value) -> Sample:
    """An input; a file has its own name, others are named by their number."""
    return model.read(value, id=None if isinstance(value, Path | Sample) else str(number))


def _record(what: Explanation | Attribution | str | Path) -> Attribution:
    if isinstance(what, str | os.PathLike):
        raise UsageError(
            "An explanation cannot be compared with a run",
            place=str(what),
            hint="load_record reads an explanation from a file.",
        )
    return what.record if isinstance(what, Explanation) else what
