"""Inputs whose cause is known: whether the units that decide the label have the most relevance."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.baselines import ComparedMethod
from palrp_onnx.evaluate.maps import Maps, MapsTogether
from palrp_onnx.evaluate.statistics import Estimate, mean_interval
from palrp_onnx.evaluate.texts import RANDOM, TOGETHER, batched
from palrp_onnx.inputs.sample import Sample
from palrp_onnx.types import Array


class Planted(Struct, frozen=True, kw_only=True):
    """One method over a data set.

    Attributes:
        samples: Number of inputs.
        magnitude: Precision at k of |relevance|, with k the number of units of the cause: the share
            of the k strongest units that belong to it.
        signed: The same of relevance with its sign: units that speak for the explained class.
    """

    samples: int
    magnitude: Estimate
    signed: Estimate


def precision(ranked: Array, cause: Sequence[int]) -> float:
    """Share of the k largest entries that are among the k of ``cause``; ties count in part."""
    k = len(cause)
    edge = np.sort(ranked)[-k]
    above, equal = ranked > edge, ranked == edge
    inside = np.zeros(len(ranked), bool)
    inside[list(cause)] = True
    share = (k - above.sum()) / equal.sum()
    return float(((above & inside).sum() + share * (equal & inside).sum()) / k)


def planted(
    methods: Mapping[str, ComparedMethod],
    samples: Iterable[Sample],
    truth: Mapping[str, Sequence[int]],
    *,
    target: str = "pred",
    labels: Mapping[int, str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Planted]:
    """Compare maps of every method, and a random map, with the cause of every input.

    Special tokens are left out of the ranking.

    Args:
        methods: The methods by name.
        samples: Inputs of one row.
        truth: Units of the cause of every sample by its id, counted from 0.
        target: The explained target.
        labels: Names of classes by index.
        progress: Called with the number of inputs that are done.

    Raises:
        InputError: The cause of an input is missing or none of its units, or there are no inputs.
    """
    found = precisions(methods, samples, truth, target=target, labels=labels, progress=progress)
    return {name: _summary(each) for name, each in found.items()}


def precisions(
    methods: Mapping[str, ComparedMethod],
    samples: Iterable[Sample],
    truth: Mapping[str, Sequence[int]],
    *,
    target: str = "pred",
    labels: Mapping[int, str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Array]:
    """Both precisions of every input [inputs, 2] by method: see :func:`planted`."""
    found: dict[int, dict[str, list[float]]] = {}
    together = MapsTogether(methods, target, labels)
    for some in batched(samples, TOGETHER):
        start = len(found)
        for group in together.groups(some):
            for k, (_, maps) in zip(group, together([some[k] for k in group]), strict=True):
                found[start + k] = _of_one(some[k], maps, truth)
        progress(len(found))
    if not found:
        raise InputError("There is nothing to evaluate")
    rows = [found[k] for k in range(len(found))]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _of_one(
    sample: Sample, maps: Maps, truth: Mapping[str, Sequence[int]]
) -> dict[str, list[float]]:
    first = next(iter(maps.values()))
    generator = np.random.default_rng(zlib.crc32(sample.id.encode()))
    cause, common = _cause(truth, sample, len(first)), _special(sample, len(first))
    return {
        name: [
            precision(np.where(common, -np.inf, each), cause)
            for each in (np.abs(relevance), relevance)
        ]
        for name, relevance in {**maps, RANDOM: generator.permutation(first)}.items()
    }


def _cause(truth: Mapping[str, Sequence[int]], sample: Sample, units: int) -> list[int]:
    found = sorted(set(truth.get(sample.id, ())))
    if not found:
        raise InputError("The cause is missing", place=sample.id)
    if found[0] < 0 or found[-1] >= units:
        raise InputError(f"The cause is none of the {units} units: {found}", place=sample.id)
    return found


def _special(sample: Sample, units: int) -> Array:
    """Whether a unit is a special token, which is in every text and decides nothing."""
    known = sample.units
    return np.array(known.special if known and known.special else [False] * units, bool)


def _summary(scores: Array) -> Planted:
    magnitude, signed = (
        Estimate(value=float(column.mean()), low=low, high=high)
        for column in scores.T
        for low, high in [mean_interval(column)]
    )
    return Planted(samples=len(scores), magnitude=magnitude, signed=signed)
