"""The map of one sample, by any method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
    if isinstance(method, Baseline):
        found = method.explain(sample, target, labels)
    else:
        records = [each.record for each in method.explain(sample, target, labels)]
        found = [(record.target, np.array(record.relevance.score)) for record in records]
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
