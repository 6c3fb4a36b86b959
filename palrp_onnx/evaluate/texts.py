"""Evaluation of several methods on the same texts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.baselines import ComparedMethod
from palrp_onnx.evaluate.journal import Journal, recalled
from palrp_onnx.evaluate.maps import in_turn
from palrp_onnx.evaluate.perturbation import (
    Curves,
    Perturbation,
    Protocol,
    perturb,
    predictor,
    summarise,
)
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.tokens import load_tokenizer, piece_text
from palrp_onnx.record import TargetFacts
from palrp_onnx.runtime.forward import FileForward
from palrp_onnx.types import Array

#: Whether a text counts, given its target.
Accept = Callable[[Sample, TargetFacts], bool]
#: Name of the random map: a permutation of the first map.
RANDOM = "random"


def evaluate_perturbation(
    methods: Mapping[str, ComparedMethod],
    samples: Iterable[Sample],
    protocol: Protocol,
    *,
    target: str = "pred",
    labels: Mapping[int, str] | None = None,
    accept: Accept | None = None,
    journal: Journal[Curves] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Perturbation]:
    """Perturb every text in the order of every method's map, and of a random map.

    The first method chooses the target, which is the same for all. As in the paper's code, language
    models are evaluated at the explained token and by signed relevance, classifiers over all
    classes and by |relevance|.

    Args:
        methods: The methods by name.
        samples: One text each.
        protocol: How texts are perturbed.
        target: The explained target.
        labels: Names of classes by index.
        accept: Whether a text counts, given its target; in the paper's multiple choice experiment
            these are the questions with a correct answer.
        journal: Results of samples that were evaluated before.
        progress: Called with the number of samples that are done.

    Raises:
        UsageError: An input holds several rows, or is not a text.
        InputError: No text counts.
    """
    curves: dict[str, list[Curves]] = {name: [] for name in (*methods, RANDOM)}
    perturbed = _Perturbed(methods, protocol, target, labels, accept)
    for done, sample in enumerate(samples, start=1):
        found = recalled(journal, partial(perturbed, sample), sample)
        for name, steps in found.items():
            curves[name].append(steps)
        progress(done)
    return {name: summarise(each) for name, each in curves.items()}


def accept_answers(answers: Mapping[str, str], tokenizer: Path) -> Accept:
    """A filter for texts that the model answers correctly.

    The explained index, label or text of the token is compared with the expected answer.

    Args:
        answers: The expected answer of every sample by its id; case and surrounding space do not
            matter.
        tokenizer: ``tokenizer.json``.
    """
    opened = load_tokenizer(tokenizer)

    def accept(sample: Sample, facts: TargetFacts) -> bool:
        if sample.id not in answers:
            raise InputError("The answer is missing", place=sample.id)
        if facts.entry is None:
            return False
        token = facts.kind == "token" and facts.label is None
        answer = piece_text(opened, facts.entry) if token else facts.label or ""
        wanted = answers[sample.id].strip().casefold()
        return wanted in (answer.strip().casefold(), str(facts.entry))

    return accept


class _Perturbed:
    """Computes the curves of a text by method; none if the text does not count."""

    def __init__(
        self,
        methods: Mapping[str, ComparedMethod],
        protocol: Protocol,
        target: str,
        labels: Mapping[int, str] | None,
        accept: Accept | None,
    ) -> None:
        self._accept = accept
        self._methods = methods
        self._protocol = protocol
        self._target = target
        self._labels = labels
        self._forward: FileForward | None = None

    def __call__(self, sample: Sample) -> dict[str, Curves]:
        maps: dict[str, Array] = {}
        for name, facts, relevance in in_turn(self._methods, sample, self._target, self._labels):
            if not maps and self._accept is not None and not self._accept(sample, facts):
                return {}
            maps[name] = relevance
        first = next(iter(self._methods.values()))
        subject = first.engine(sample.feeds).subject
        if self._forward is None:
            self._forward = FileForward(first.model, subject.output, device=first.device)
        ids = sample.feeds[subject.input]
        if ids.dtype.kind not in "iu":
            raise UsageError("Only tokens can be perturbed", place=f"input {subject.input}")
        entry = facts.entry
        if entry is None:
            raise UsageError(
                "Only evidence for a class or a token can be followed",
                place=f"output {facts.output}",
                hint="Its entries are not known to be classes; see id2label in config.json.",
            )
        predict = predictor(self._forward, sample.feeds, subject.input, facts.position)
        own = self._protocol if facts.kind != "token" else _for_language(self._protocol)
        # Seeded by the sample's name, so that leaving out a sample does not change the others.
        generator = np.random.default_rng(zlib.crc32(sample.id.encode()))
        maps[RANDOM] = generator.permutation(next(iter(maps.values())))
        return {
            name: perturb(ids[0], relevance, entry, predict, own)
            for name, relevance in maps.items()
        }


def _for_language(protocol: Protocol) -> Protocol:
    return replace(protocol, magnitude=False, classes=False)
