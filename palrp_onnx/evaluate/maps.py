"""The maps of samples, by any method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines import Baseline, ComparedMethod
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import TargetFacts
from palrp_onnx.relevance.target_parsing import parse_target
from palrp_onnx.types import Array


def explained(
    method: ComparedMethod,
    sample: Sample,
    target: str,
    labels: Mapping[int, str] | None = None,
) -> tuple[TargetFacts, Array]:
    """The explained target, and its map [units].

    Raises:
        UsageError: The input holds several rows.
        TargetError: There is no such target, or there are several.
    """
    parse_target(target, labels)
    found = _explained_rows(method, sample, target, labels)
    if len(found) != 1:
        raise UsageError(
            f"Each input holds one sample, not {len(found)}",
            place=sample.id,
            hint="Give every row a file of its own.",
        )
    return found[0]


def in_turn(
    methods: Mapping[str, ComparedMethod],
    sample: Sample,
    target: str,
    labels: Mapping[int, str] | None = None,
) -> Iterator[tuple[str, TargetFacts, Array]]:
    """Every method's target and map; all methods explain the target that the first one finds."""
    for name, each in methods.items():
        facts, relevance = explained(each, sample, target, labels)
        target = target_text(facts, target)
        yield name, facts, relevance


#: A map by name of the method.
Maps = dict[str, Array]
#: Tokens per run, with the explanation kept on a CPU or on a GPU.
_TOKENS = {"cpu": 2048, "cuda": 32768}
#: An explanation keeps the values of all layers, and takes fewer tokens at once than a forward run.
_EXPLAINED = 8
#: Largest difference between maps alone and together, as a share of the largest magnitude.
_SAME = 1e-3


class MapsTogether:
    """Maps of several samples at once, where that does not change them.

    Samples whose arrays have equal shapes are rows of one batch. Whether rows of this model may run
    together is decided by its graph, and tried on the first two: their maps must be those that each
    has alone.

    Args:
        methods: The methods by name; the first chooses the target of every sample.
        target: The explained target.
        labels: Names of classes by index.
    """

    def __init__(
        self,
        methods: Mapping[str, ComparedMethod],
        target: str,
        labels: Mapping[int, str] | None = None,
    ) -> None:
        self._methods = methods
        self._target = target
        self._labels = labels
        self._harmless: bool | None = None
        device = next(iter(methods.values())).device if methods else "cpu"
        self.tokens = _TOKENS[device.partition(":")[0]]

    def groups(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Numbers of samples that run together, each in one group."""
        found: dict[object, list[int]] = {}
        for number, sample in enumerate(samples):
            alone = self._harmless is False or not self.may_join(sample)
            key = number if alone else tuple(sorted((n, a.shape) for n, a in sample.feeds.items()))
            found.setdefault(key, []).append(number)
        return list(found.values())

    def __call__(self, samples: Sequence[Sample]) -> list[tuple[TargetFacts, Maps]]:
        """Target and maps of every sample of one group."""
        first = samples[0].feeds
        tokens = max(a.shape[1] for a in first.values() if a.ndim > 1) if len(samples) > 1 else 1
        rows = max(1, self.tokens // _EXPLAINED // tokens)
        found: list[tuple[TargetFacts, Maps]] = []
        for start in range(0, len(samples), rows):
            found += self._batch(samples[start : start + rows])
        return found

    def _batch(self, samples: Sequence[Sample]) -> list[tuple[TargetFacts, Maps]]:
        if len(samples) == 1 or self._harmless is False:
            return [self._alone(sample) for sample in samples]
        together = self._joined(samples)
        if self._harmless is None:
            pairs = [(self._alone(samples[k]), together[k]) for k in range(2)]
            self._harmless = all(_same(*pair) for pair in pairs)
            return self._batch(samples)
        return together

    def _alone(self, sample: Sample) -> tuple[TargetFacts, Maps]:
        found = list(in_turn(self._methods, sample, self._target, self._labels))
        return found[0][1], {name: relevance for name, _, relevance in found}

    def _joined(self, samples: Sequence[Sample]) -> list[tuple[TargetFacts, Maps]]:
        """One batch; where a method finds another target than the first, its sample alone."""
        feeds = {n: np.concatenate([s.feeds[n] for s in samples]) for n in samples[0].feeds}
        units = [s.units for s in samples if s.units is not None]
        batch = replace(samples[0], id="batch", feeds=feeds, stacked=tuple(units))
        facts: list[TargetFacts] = []
        maps: list[Maps] = [{} for _ in samples]
        for name, method in self._methods.items():
            found = _explained_rows(method, batch, self._target, self._labels)
            facts = facts or [own for own, _ in found]
            for k, (own, relevance) in enumerate(found):
                wanted = target_text(facts[k], self._target)
                if target_text(own, self._target) != wanted:
                    _, relevance = explained(method, samples[k], wanted, self._labels)
                maps[k][name] = relevance
        return list(zip(facts, maps, strict=True))

    def may_join(self, sample: Sample) -> bool:
        """Whether the sample is one text whose inputs all have an axis of samples of any length."""
        first = next(iter(self._methods.values()))
        subject = first.engine(sample.feeds).subject
        sizes = {s.name: s.shape[0] for s in first.model.inputs if s.shape}
        return (
            sample.kind == "text"
            and not (sample.windows or sample.parts or sample.rows)
            and sample.units is not None
            and all(a.ndim > 1 and len(a) == 1 for a in sample.feeds.values())
            and not any(isinstance(sizes.get(name), int) for name in sample.feeds)
            and all(subject.batched.get(name) == 0 for name in sample.feeds)
            and not (subject.measured or subject.mixed or subject.crossed)
        )


def _explained_rows(
    method: ComparedMethod, batch: Sample, target: str, labels: Mapping[int, str] | None
) -> list[tuple[TargetFacts, Array]]:
    if isinstance(method, Baseline):
        return method.explain(batch, target, labels)
    records = [each.record for each in method.explain(batch, target, labels)]
    return [(record.target, np.array(record.relevance.score)) for record in records]


def _same(one: tuple[TargetFacts, Maps], other: tuple[TargetFacts, Maps]) -> bool:
    """Whether two samples have the same target, and maps that differ by rounding alone."""
    if target_text(one[0], "") != target_text(other[0], ""):
        return False
    return all(
        np.abs(own - other[1][name]).max() <= _SAME * np.abs(own).max()
        for name, own in one[1].items()
    )


def target_text(facts: TargetFacts, requested: str) -> str:
    """The explained target as a text that means the same for any method, model and labels."""
    if isinstance(facts.index, list):
        return "element:" + ",".join(map(str, facts.index))
    if facts.index is None or facts.kind == "region":
        return requested
    if facts.kind == "place":
        return f"token:{facts.index}"
    text = f"index:{facts.index}"
    text += "" if facts.against is None else f"-index:{facts.against}"
    text = text if facts.position is None else f"token:{facts.position}:{text}"
    prefix = "logprob:" if facts.logprob else "rest:" if facts.rest else ""
    return prefix + text
