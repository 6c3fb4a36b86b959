"""Evaluation of several methods on the same texts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.baselines import ComparedMethod
from palrp_onnx.evaluate.journal import Journal, recalled_together
from palrp_onnx.evaluate.maps import Maps, MapsTogether
from palrp_onnx.evaluate.perturbation import (
    BATCH,
    Curves,
    Followed,
    Forward,
    Perturbation,
    Protocol,
    curves_of,
    measure_together,
    perturbed_rows,
    summarise,
)
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.inputs.tokens import load_tokenizer, piece_text
from palrp_onnx.record import TargetFacts
from palrp_onnx.runtime.forward import FileForward
from palrp_onnx.subject import Subject

#: Whether a text counts, given its target.
Accept = Callable[[Sample, TargetFacts], bool]
#: Name of the random map: a permutation of the first map.
RANDOM = "random"
#: Number of texts of which those of one length run together.
TOGETHER = 64


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
    found = perturbation_curves(
        methods,
        samples,
        protocol,
        target=target,
        labels=labels,
        accept=accept,
        journal=journal,
        progress=progress,
    )
    return {name: summarise(each) for name, each in found.items()}


def perturbation_curves(
    methods: Mapping[str, ComparedMethod],
    samples: Iterable[Sample],
    protocol: Protocol,
    *,
    target: str = "pred",
    labels: Mapping[int, str] | None = None,
    accept: Accept | None = None,
    journal: Journal[Curves] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[Curves]]:
    """The curves of every text that counts, by method: see :func:`evaluate_perturbation`."""
    curves: dict[str, list[Curves]] = {name: [] for name in (*methods, RANDOM)}
    perturbed = _Perturbed(methods, protocol, target, labels, accept)
    done = 0
    for some in batched(samples, TOGETHER):
        for found in recalled_together(journal, perturbed, some):
            for name, steps in found.items():
                curves[name].append(steps)
        progress(done := done + len(some))
    return curves


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
    """Computes the curves of texts by method; none if a text does not count."""

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
        self._maps = MapsTogether(methods, target, labels)
        self._forward: FileForward | None = None

    def __call__(self, samples: Sequence[Sample]) -> list[dict[str, Curves]]:
        """The curves of every text."""
        found: list[dict[str, Curves]] = [{} for _ in samples]
        for group in self._maps.groups(samples):
            rows = self._rows(samples[group[0]])
            texts = [
                (number, *each)
                for number, each in zip(group, self._maps([samples[k] for k in group]), strict=True)
                if self._accept is None or self._accept(samples[number], each[0])
            ]
            for kind in {facts.kind == "token" for _, facts, _ in texts}:
                same = [each for each in texts if (each[1].kind == "token") == kind]
                curves = self._curves(samples, same, rows)
                for (number, _, _), own in zip(same, curves, strict=True):
                    found[number] = own
        return found

    def _curves(
        self, samples: Sequence[Sample], texts: list[tuple[int, TargetFacts, Maps]], rows: int
    ) -> list[dict[str, Curves]]:
        """The curves of texts of one length and one kind of target."""
        own = self._protocol if texts[0][1].kind != "token" else _for_language(self._protocol)
        followed = [self._followed(samples[k], facts, maps, own) for k, facts, maps in texts]
        _, _, names = texts[0]
        numbers = measure_together(
            self._logits(samples[texts[0][0]], texts[0][1]),
            self._subject(samples[texts[0][0]]).input,
            followed,
            classes=own.classes,
            rows=rows,
        )
        return [
            dict(zip(names, map(curves_of, np.split(each, len(names))), strict=True))
            for each in numbers
        ]

    def _followed(
        self, sample: Sample, facts: TargetFacts, maps: Maps, protocol: Protocol
    ) -> Followed:
        name = self._subject(sample).input
        ids = sample.feeds[name]
        if ids.dtype.kind not in "iu":
            raise UsageError("Only tokens can be perturbed", place=f"input {name}")
        if facts.entry is None:
            raise UsageError(
                "Only evidence for a class or a token can be followed",
                place=f"output {facts.output}",
                hint="Its entries are not known to be classes; see id2label in config.json.",
            )
        # Seeded by the sample's name, so that leaving out a sample does not change the others.
        generator = np.random.default_rng(zlib.crc32(sample.id.encode()))
        maps[RANDOM] = generator.permutation(next(iter(maps.values())))
        rows = [perturbed_rows(ids[0], relevance, protocol) for relevance in maps.values()]
        return Followed(sample.feeds, np.concatenate(rows), facts.entry, facts.position)

    def _logits(self, sample: Sample, facts: TargetFacts) -> Forward:
        """The file itself, at the explained places if its output has any."""
        if self._forward is None:
            first, subject = next(iter(self._methods.values())), self._subject(sample)
            placed = facts.position is not None
            self._forward = FileForward(
                first.model, subject.output, device=first.device, placed=placed
            )
        forward = self._forward
        return lambda feeds, at: forward(feeds) if at is None else forward.at(feeds, at)

    def _rows(self, sample: Sample) -> int:
        """Rows per run of the file."""
        tokens = sample.feeds[self._subject(sample).input].shape[-1]
        return max(BATCH, self._maps.tokens // tokens) if self._maps.may_join(sample) else BATCH

    def _subject(self, sample: Sample) -> Subject:
        return next(iter(self._methods.values())).engine(sample.feeds).subject


Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items, the last one shorter."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _for_language(protocol: Protocol) -> Protocol:
    return replace(protocol, magnitude=False, classes=False)
