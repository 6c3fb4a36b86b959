"""Agreement of two runs over the same inputs: of their targets, and of their maps.

Maps with the same units are compared unit by unit. If tokens differ, for example because of another
tokenizer, the relevance of each token is spread evenly over its visible characters and summed over
the words of the text (runs of letters and digits; any other visible character is a word of its
own). Special tokens cover no characters and are left out. Without offsets, or if the inputs differ,
a pair cannot be compared; such pairs are counted.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.pairing import Pairs
from palrp_onnx.evaluate.statistics import pearson, quartiles, spearman
from palrp_onnx.record import Attribution, Map
from palrp_onnx.types import Array

#: Number of units that count as the strongest of a map.
TOP = 5
#: Number of pairs that are listed as the worst.
WORST = 10
_WORD = re.compile(r"\w+|[^\w\s]")


class Distribution(Struct, frozen=True, kw_only=True):
    """Statistics of one number over the pairs for which it is known; ``None`` if there are none."""

    known: int
    mean: float | None
    quartiles: tuple[float, float, float] | None
    least: float | None


class Pair(Struct, frozen=True, kw_only=True):
    """Two records of one input.

    Attributes:
        same_target: Whether class or token are the same, compared by label if both have one.
        basis: ``units`` or ``words``: the parts of the input by which the maps were compared.
        correlation: Spearman's rank correlation of the scores; ``None`` if a map is
            constant.
        pearson: Pearson's correlation.
        overlap: Share of the strongest units, by magnitude, that both maps have in common.
        position_share: Σ|position| / (Σ|position| + Σ|content|), second minus first.
    """

    id: str
    same_target: bool
    basis: str
    correlation: float | None
    pearson: float | None
    overlap: float
    position_share: float


class Side(Struct, frozen=True, kw_only=True):
    """One run: counts of its models and methods, ids of inputs that only it has or that failed."""

    models: dict[str, int]
    methods: dict[str, int]
    only: list[str]
    failed: list[str]


class Incomparable(Struct, frozen=True, kw_only=True):
    """A pair whose maps cannot be compared, and why."""

    id: str
    reason: str


class Agreement(Struct, frozen=True, kw_only=True):
    """Comparison of two runs.

    Attributes:
        compared: Number of compared pairs.
        top: Number of units that count as the strongest.
        bases: Number of pairs by :attr:`Pair.basis`.
        same_target: Share of pairs with the same target.
        worst: The pairs of lowest correlation, first those without a correlation, then the lowest.
    """

    a: Side
    b: Side
    compared: int
    incomparable: list[Incomparable]
    top: int
    bases: dict[str, int]
    same_target: float
    correlation: Distribution
    pearson: Distribution
    overlap: Distribution
    position_share: Distribution
    worst: list[Pair]


class PairPoint(NamedTuple):
    """A pair as a point: the values of both targets, and the rank correlation of the maps."""

    id: str
    first: float
    second: float
    correlation: float | None
    same_target: bool


@dataclass(frozen=True)
class Survey:
    """A comparison with what a picture of it needs.

    Attributes:
        agreement: The comparison.
        points: One for each compared pair, in their order.
        worst: The records of the pairs of ``agreement.worst``.
    """

    agreement: Agreement
    points: list[PairPoint]
    worst: list[tuple[Attribution, Attribution]]


def agreement(pairs: Pairs, *, top: int = TOP, worst: int = WORST) -> Agreement:
    """Compare the records of two runs: see `survey`."""
    return survey(pairs, top=top, worst=worst).agreement


def survey(pairs: Pairs, *, top: int = TOP, worst: int = WORST) -> Survey:
    """Compare the records of two runs, and keep the records of the pairs that agree least.

    Args:
        pairs: The runs.
        top: Number of units that count as the strongest of a map.
        worst: Number of pairs that are listed.

    Raises:
        InputError: No pair can be compared.
    """
    points: list[PairPoint] = []
    numbers: dict[str, list[float]] = defaultdict(list)
    models, methods = (Counter[str](), Counter[str]()), (Counter[str](), Counter[str]())
    bases, same, refused = Counter[str](), 0, list[Incomparable]()
    listed: list[tuple[float, int, Pair, tuple[Attribution, Attribution]]] = []
    for number, records in enumerate(pairs):
        for side, record in enumerate(records):
            models[side][record.model.sha256] += 1
            methods[side][record.run.method] += 1
        try:
            pair = compare(*records, top=top)
        except InputError as error:
            refused.append(Incomparable(id=records[0].id, reason=error.message))
            continue
        bases[pair.basis] += 1
        same += pair.same_target
        for name in _NUMBERS:
            if (value := getattr(pair, name)) is not None:
                numbers[name].append(value)
        first, second = (each.target.value for each in records)
        points.append(PairPoint(pair.id, first, second, pair.correlation, pair.same_target))
        rank = -math.inf if pair.correlation is None else pair.correlation
        # A heap of the worst pairs, whose first entry is the best of them.
        heapq.heappush(listed, (-rank, -number, pair, records))
        if len(listed) > worst:
            heapq.heappop(listed)
    compared = bases.total()
    if not compared:
        raise _nothing(pairs, refused)
    ordered = sorted(listed, key=lambda each: each[:2], reverse=True)
    found = Agreement(
        a=_side(models[0], methods[0], pairs.only_a, pairs.failed_a),
        b=_side(models[1], methods[1], pairs.only_b, pairs.failed_b),
        compared=compared,
        incomparable=refused,
        top=top,
        bases=dict(bases),
        same_target=same / compared,
        worst=[pair for _, _, pair, _ in ordered],
        **{name: _distribution(numbers[name]) for name in _NUMBERS},
    )
    return Survey(found, points, [records for *_, records in ordered])


_NUMBERS = ("correlation", "pearson", "overlap", "position_share")


def _side(models: Counter[str], methods: Counter[str], only: list[str], failed: list[str]) -> Side:
    return Side(models=dict(models), methods=dict(methods), only=only, failed=failed)


def _nothing(pairs: Pairs, refused: list[Incomparable]) -> InputError:
    if refused:
        return InputError(f"No pair can be compared: {refused[0].reason}", place=refused[0].id)
    return InputError(
        "The runs have no explained input in common",
        hint=f"The first alone has {len(pairs.only_a)}, the second {len(pairs.only_b)}; "
        f"{len(pairs.failed_a)} and {len(pairs.failed_b)} failed.",
    )


def compare(a: Attribution, b: Attribution, *, top: int = TOP) -> Pair:
    """Compare two records of one input.

    Raises:
        InputError: Their inputs differ, or their units differ and have no offsets.
    """
    basis, first, second = _aligned(a, b)
    return Pair(
        id=a.id,
        same_target=_target(a, b) == _target(b, a),
        basis=basis,
        correlation=spearman(first, second),
        pearson=pearson(first, second),
        overlap=_overlap(first, second, top),
        position_share=b.position_share - a.position_share,
    )


def _aligned(a: Attribution, b: Attribution) -> tuple[str, Array, Array]:
    """The two maps over parts that both have: units of all common inputs, or words of the text."""
    if (a.input.text, a.input.text_pair) != (b.input.text, b.input.text_pair):
        raise InputError("the texts differ", place=a.id)
    theirs = {each.input: each for each in b.maps[1:]}
    common = [(each, theirs[each.input]) for each in a.maps[1:] if each.input in theirs]
    pairs = [(a.maps[0], b.maps[0]), *common]
    if all(_same_units(*pair) for pair in pairs):
        first, second = (
            np.concatenate([np.asarray(pair[k].relevance.score, np.float64) for pair in pairs])
            for k in range(2)
        )
        return "units", first, second
    first, second = (np.asarray(each.relevance.score, np.float64) for each in (a, b))
    return "words", _by_word(a, first), _by_word(b, second)


def _same_units(one: Map, other: Map) -> bool:
    return len(one.relevance.total) == len(other.relevance.total) and (_units(one) == _units(other))


def _units(shown: Map) -> tuple[Any, ...]:
    """Units are equal if their text and place are, whatever id a vocabulary gives them."""
    units = shown.units
    return (units.kind, units.text, units.start, units.end, units.sequence, units.grid)


def _by_word(record: Attribution, relevance: Array) -> Array:
    units = record.units
    texts = [each for each in (record.input.text, record.input.text_pair) if each is not None]
    if units.kind != "token" or not texts or len(units.start) != len(relevance):
        raise InputError("the units differ, and have no offsets into a text", place=record.id)
    sequences = units.sequence or [0] * len(relevance)
    visible = [np.array([not each.isspace() for each in text], np.float64) for text in texts]
    characters = [np.zeros(len(text)) for text in texts]
    try:
        for value, start, end, sequence in zip(
            relevance, units.start, units.end, sequences, strict=True
        ):
            share = visible[sequence][start:end]
            if share.any():
                characters[sequence][start:end] += value * share / share.sum()
    except (IndexError, ValueError) as error:
        raise InputError("the offsets do not fit the text", place=record.id) from error
    sums = [
        float(characters[k][match.start() : match.end()].sum())
        for k, text in enumerate(texts)
        for match in _WORD.finditer(text)
    ]
    return np.asarray(sums, np.float64)


def _target(record: Attribution, other: Attribution) -> tuple[Any, ...]:
    """A key of the target; a class may have the same label in two models and different indices."""
    target, theirs = record.target, other.target
    label = target.label if target.label is not None and theirs.label is not None else None
    against = target.against_label if target.against_label and theirs.against_label else None
    return (
        target.kind,
        target.index if label is None else label,
        target.position,
        None if label is not None else target.places,
        target.against if against is None else against,
        target.vector_sha256,
    )


def _overlap(a: Array, b: Array, top: int) -> float:
    """|top(a) ∩ top(b)| / top; of equal magnitudes the first is taken."""
    count = min(top, a.size)
    if count == 0:
        return 1.0
    first, second = (
        set(np.argsort(-np.abs(each), kind="stable")[:count].tolist()) for each in (a, b)
    )
    return len(first & second) / count


def _distribution(numbers: Iterable[float]) -> Distribution:
    values = np.fromiter(numbers, np.float64)
    if not values.size:
        return Distribution(known=0, mean=None, quartiles=None, least=None)
    return Distribution(
        known=values.size,
        mean=float(values.mean()),
        quartiles=quartiles(values),
        least=float(values.min()),
    )
