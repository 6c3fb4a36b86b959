"""Several ways to explain, held against each other on the same texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.perturbation import (
    Curves,
    Perturbation,
    Protocol,
    perturb,
    predictor,
    summarise,
)
from palrp_onnx.explainer import Explainer
from palrp_onnx.forward import FileForward
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import Explanation

Array = NDArray[Any]
#: A map that knows nothing: the same numbers in another order.
RANDOM = "random"


def contest(
    explainers: Mapping[str, Explainer],
    samples: Iterable[Sample],
    protocol: Protocol,
    *,
    target: str = "pred",
    labels: Mapping[int, str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Perturbation]:
    """Perturb every text in the order of every method's map, and of a random one.

    The first method chooses the target, which is the same for all. Language models are judged at
    the explained class alone and by signed relevance, classifiers over all classes and by its
    magnitude, as the paper's code does.

    Raises:
        UsageError: An input holds several rows, or is no text.
    """
    curves: dict[str, list[Curves]] = {name: [] for name in (*explainers, RANDOM)}
    generator = np.random.default_rng(0)
    forward: FileForward | None = None
    for done, sample in enumerate(samples, start=1):
        found: dict[str, Explanation] = {}
        wanted = target
        for name, explainer in explainers.items():
            found[name] = _single(explainer.explain(sample, wanted, labels))
            wanted = _same(found[name])
        first = next(iter(explainers.values()))
        subject = first.engine(sample.feeds).subject
        facts = next(iter(found.values())).record.target
        if forward is None:
            forward = FileForward(first.model, subject.output, device=first.device)
        ids = sample.feeds[subject.input]
        if ids.dtype.kind not in "iu" or not isinstance(facts.index, int):
            raise UsageError("Only tokens can be perturbed", place=f"input {subject.input}")
        predict = predictor(forward, sample.feeds, subject.input, facts.position)
        own = protocol if facts.kind != "token" else _for_language(protocol)
        maps = {name: np.array(each.record.relevance.total) for name, each in found.items()}
        maps[RANDOM] = generator.permutation(next(iter(maps.values())))
        for name, relevance in maps.items():
            curves[name].append(perturb(ids[0], relevance, facts.index, predict, own))
        progress(done)
    return {name: summarise(each) for name, each in curves.items()}


def _single(explanations: list[Explanation]) -> Explanation:
    if len(explanations) != 1:
        raise UsageError("Each input holds one text", hint="Give every row a file of its own.")
    return explanations[0]


def _same(explanation: Explanation) -> str:
    """The target of an explanation, spelled out."""
    target = explanation.record.target
    if target.kind == "token":
        return f"token:{target.position}:{target.index}"
    return str(target.index)


def _for_language(protocol: Protocol) -> Protocol:
    return replace(protocol, magnitude=False, classes=False)
