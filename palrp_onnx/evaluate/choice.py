"""Which of several methods to use: one rule, for a data set of a user and for our own defaults.

In every measure the methods are ranked by their means over the inputs, ties sharing their ranks.
The method with the lowest mean rank over the measures is chosen; of equal ones, the one that was
named first. How sure this is: the share of 1,000 sets, drawn from the same inputs with replacement,
that choose the same method. Two methods are apart in a measure if the 95 % interval of the mean of
their differences, input by input, leaves out 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError, UsageError
from palrp_onnx.evaluate.statistics import Estimate, mean_interval, ranks, resampled
from palrp_onnx.types import Array

#: From these shares of resampled sets on, a choice is called clear, or likely.
CLEAR, LIKELY = 0.95, 0.5
#: With fewer inputs than this, no choice is clear: so few, drawn again, vary too little.
FEW = 30


class Standing(Struct, frozen=True, kw_only=True):
    """How one method does beside the others.

    Attributes:
        rank: Mean rank over the measures; 1 is the best.
        chosen: Share of resampled sets of the inputs that choose it.
        means: Its mean by measure, with the 95 % interval.
        behind: The chosen method's mean minus its own by measure, with the interval of the mean of
            the differences input by input.
    """

    rank: float
    chosen: float
    means: dict[str, Estimate]
    behind: dict[str, Estimate]


class Choice(Struct, frozen=True, kw_only=True):
    """The chosen method, and what stands against it.

    Attributes:
        samples: Number of inputs.
        best: The chosen method.
        sure: Share of resampled sets that choose it.
        certainty: ``clear``, ``likely`` or ``open``, by this share.
        level: Methods that it is not ahead of in any measure with the interval apart.
        ahead: Methods that are ahead of it in a measure with the interval apart, by measure.
        higher: Whether high values are good, by measure.
        methods: All methods, best rank first.
    """

    samples: int
    best: str
    sure: float
    certainty: str
    level: list[str]
    ahead: dict[str, list[str]]
    higher: dict[str, bool]
    methods: dict[str, Standing]


def choose(values: Mapping[str, Array], higher: Mapping[str, bool], *, seed: int = 0) -> Choice:
    """Apply the rule.

    Args:
        values: What each method reaches, by name: [inputs, measures].
        higher: Whether high values are good, by measure.
        seed: Seed of the resampled sets.

    Raises:
        UsageError: There are fewer than two methods.
        InputError: There are fewer than two inputs.
    """
    names = list(values)
    if len(names) < 2:
        raise UsageError("A choice needs two methods", place=", ".join(names))
    numbers = np.stack([values[name] for name in names])  # [methods, inputs, measures]
    if numbers.shape[1] < 2:
        raise InputError(
            f"A choice needs two inputs, and there are {numbers.shape[1]}",
            hint=f"One does not say what holds for others; with less than {FEW} nothing is clear.",
        )
    signs = np.where(list(higher.values()), -1.0, 1.0)
    mean_ranks = _mean_ranks(numbers.mean(axis=1) * signs)
    sets = resampled(numbers.transpose(1, 0, 2), seed=seed) * signs  # [sets, methods, measures]
    chosen = np.bincount([int(_mean_ranks(each).argmin()) for each in sets], minlength=len(names))
    best = int(mean_ranks.argmin())
    sure = float(chosen[best] / len(sets))
    behind = {
        name: _estimates(numbers[best] - own, higher)
        for name, own in zip(names, numbers, strict=True)
    }
    return Choice(
        samples=numbers.shape[1],
        best=names[best],
        sure=sure,
        certainty=_certainty(sure, numbers.shape[1]),
        level=[
            name
            for name in names
            if name != names[best]
            and not any(_better(own, higher[key]) for key, own in behind[name].items())
        ],
        ahead={
            key: found
            for key, high in higher.items()
            if (found := [name for name in names if _better(behind[name][key], not high)])
        },
        higher=dict(higher),
        methods={
            names[k]: Standing(
                rank=float(mean_ranks[k]),
                chosen=float(chosen[k] / len(sets)),
                means=_estimates(numbers[k], higher),
                behind=behind[names[k]],
            )
            for k in np.argsort(mean_ranks, kind="stable")
        },
    )


def _certainty(sure: float, samples: int) -> str:
    if sure >= CLEAR and samples >= FEW:
        return "clear"
    return "likely" if sure >= LIKELY else "open"


def _mean_ranks(costs: Array) -> Array:
    """Mean rank of every method [methods] from what is low if good [methods, measures]."""
    return np.asarray(np.mean([ranks(column) for column in costs.T], axis=0))


def _estimates(values: Array, measures: Sequence[str] | Mapping[str, bool]) -> dict[str, Estimate]:
    found = {}
    for key, column in zip(measures, values.T, strict=True):
        low, high = mean_interval(column)
        found[key] = Estimate(value=float(column.mean()), low=low, high=high)
    return found


def _better(difference: Estimate, high: bool) -> bool:
    """Whether a difference is an advantage with the interval apart from 0."""
    return difference.low > 0 if high else difference.high < 0
