"""The map of one sample, by any method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from palrp_onnx.errors import UsageError
from palrp_onnx.evaluate.baselines import Baseline, Competitor
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.record import TargetFacts
from palrp_onnx.relevance.target_parsing import parse_target
from palrp_onnx.types import Array


def explained(
    competitor: Competitor,
    sample: Sample,
    target: str,
    labels: Mapping[int, str] | None = None,
) -> tuple[TargetFacts, Array]:
    """The target that was found, and the map [units] of it.

    Raises:
        UsageError: The input holds several rows.
        TargetError: The target is none, or several.
    """
    parse_target(target, labels)
    if isinstance(competitor, Baseline):
        found = competitor.explain(sample, target, labels)
    else:
        records = [each.record for each in competitor.explain(sample, target, labels)]
        found = [(record.target, np.array(record.relevance.total)) for record in records]
    if len(found) != 1:
        raise UsageError(
            f"Each input holds one sample, not {len(found)}",
            place=sample.id,
            hint="Give every row a file of its own.",
        )
    return found[0]


def in_turn(
    competitors: Mapping[str, Competitor],
    sample: Sample,
    target: str,
    labels: Mapping[int, str] | None = None,
) -> Iterator[tuple[str, TargetFacts, Array]]:
    """Every method's target and map; what the first one finds is what all others explain."""
    for name, each in competitors.items():
        facts, relevance = explained(each, sample, target, labels)
        target = spelled(facts, target)
        yield name, facts, relevance


def spelled(facts: TargetFacts, asked: str) -> str:
    """What was found, as a target that is the same for any method, model and set of labels."""
    if isinstance(facts.index, list):
        return "element:" + ",".join(map(str, facts.index))
    if facts.kind == "token":
        return f"token:{facts.position}:{facts.index}"
    return asked if facts.index is None or facts.kind == "contrast" else f"index:{facts.index}"
