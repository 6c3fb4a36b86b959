"""Perturbation of tokens: a model's output while tokens are inserted or removed in a map's order.

The protocol of PA-LRP (sec. 5.2): *generation* starts from unknown tokens alone and inserts the
tokens of highest relevance first; *pruning* starts from the text and removes the tokens of lowest
relevance first. With a good map the prediction returns early, and is retained for long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.statistics import Area, mean_interval
from palrp_onnx.types import Array

#: Arrays by input, and places [rows] if the output has a token axis → logits [rows, classes].
Forward = Callable[[Mapping[str, Array], Array | None], Array]

#: Shares of the tokens that are inserted or removed.
FRACTIONS = np.linspace(0.0, 1.0, 11)
#: Rows per run of the model, where texts do not run together.
BATCH = 16


@dataclass(frozen=True)
class Protocol:
    """How a text is perturbed and evaluated.

    Attributes:
        unknown: Id of the token that replaces removed tokens.
        magnitude: Order pruning and the ascending generation by |relevance|, as the paper's code
            does for classifiers; else by signed relevance, as for language models.
        classes: Sum the error over all classes; else take it at the explained class.
        prefix: Number of tokens at the start that are never replaced.
        suffix: Number of tokens at the end that are never replaced.
    """

    unknown: int
    magnitude: bool = True
    classes: bool = True
    prefix: int = 0
    suffix: int = 0


@dataclass(frozen=True)
class Steps:
    """One text perturbed in one order, one number per step.

    Attributes:
        evidence: Softmax of the explained class.
        error: Squared difference to the logits of the whole text.
        logit: The explained logit.
    """

    evidence: Array
    error: Array
    logit: Array


@dataclass(frozen=True)
class Curves:
    """One text: generation, most or least relevant tokens first; removal, least or most first."""

    generation: Steps
    ascending: Steps
    pruning: Steps
    removal: Steps


class Perturbation(Struct, frozen=True, kw_only=True):
    """Areas over a data set, under the names of the paper.

    Attributes:
        samples: Number of texts.
        generation_auac: Evidence while tokens are inserted, most relevant first: higher is better.
        generation_mse: Error meanwhile: lower is better.
        pruning_auac: Evidence while tokens are removed, least relevant first: higher is better.
        pruning_mse: Error meanwhile: lower is better.
        morf: Logit while tokens are inserted, most relevant first: higher is better.
        lerf: Logit while tokens are inserted, least relevant first: lower is better.
        comprehensiveness: Lost evidence while tokens are removed, most relevant first (DeYoung et
            al. 2020): higher is better.
        sufficiency: Missing evidence while tokens are inserted, most relevant first: lower is
            better.
        between: Area between removal of the least and of the most relevant tokens first: higher is
            better.
    """

    samples: int
    generation_auac: Area
    generation_mse: Area
    pruning_auac: Area
    pruning_mse: Area
    morf: Area
    lerf: Area
    comprehensiveness: Area
    sufficiency: Area
    between: Area


def perturbed_rows(ids: Array, relevance: Array, protocol: Protocol) -> Array:
    """One text at every step of every curve, and whole: token ids [4 · 11 + 1, T].

    Args:
        ids: Token ids [T].
        relevance: The map [T], signed. Only its order matters.
        protocol: How the text is perturbed.

    Raises:
        InputError: There are no tokens between prefix and suffix.
    """
    free = np.arange(protocol.prefix, len(ids) - protocol.suffix)
    if not len(free):
        raise InputError(
            "No tokens are left between prefix and suffix",
            hint="Use smaller --prefix and --suffix.",
        )
    signed = relevance[free]
    ranked = np.abs(signed) if protocol.magnitude else signed
    descending = free[np.argsort(-signed, kind="stable")]
    ascending = free[np.argsort(ranked, kind="stable")]
    blank = ids.copy()
    blank[free] = protocol.unknown
    return np.concatenate(
        [
            _replaced(blank, ids, descending),
            _replaced(blank, ids, ascending),
            _replaced(ids, blank, ascending),
            _replaced(ids, blank, descending),
            ids[None],
        ]
    )


def _replaced(start: Array, end: Array, order: Array) -> Array:
    """``start`` with the first ⌈f n⌉ places of ``order`` taken from ``end``, for every fraction."""
    rows = np.repeat(start[None], len(FRACTIONS), axis=0)
    for row, fraction in zip(rows, FRACTIONS, strict=True):
        places = order[: int(np.ceil(round(fraction * len(order), 9)))]
        row[places] = end[places]
    return rows


def measured(logits: Array, index: Array, *, classes: bool) -> Array:
    """What curves need of every row of logits [rows, classes]: float64 [rows, numbers].

    They are the softmax of the explained class, its logit, and with ``classes`` all logits, so that
    those of a whole vocabulary need not be kept.
    """
    rows = np.arange(len(logits))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    evidence = powers[rows, index] / powers.sum(axis=-1, dtype=np.float64)
    own = [evidence[:, None], logits[rows, index][:, None]]
    return np.concatenate([*own, *([logits] if classes else [])], axis=1, dtype=np.float64)


def curves_of(numbers: Array) -> Curves:
    """The curves of one map, from what was `measured` of its rows: :func:`perturbed_rows`."""
    *parts, whole = np.split(numbers, [len(FRACTIONS) * k for k in (1, 2, 3, 4)])
    return Curves(*(_steps(part, whole[0]) for part in parts))


def _steps(numbers: Array, whole: Array) -> Steps:
    first = 2 if len(whole) > 2 else 1  # the error is over all classes, where they are known
    error = ((numbers - whole)[:, first:] ** 2).sum(axis=-1)
    return Steps(evidence=numbers[:, 0], error=error, logit=numbers[:, 1])


@dataclass(frozen=True)
class Followed:
    """One text whose perturbed rows are to be measured.

    Attributes:
        feeds: The text; its other inputs are the same for all rows.
        rows: Token ids [rows, T] in place of its own.
        index: The explained class.
        position: Token position of the logits, if the output has a token axis.
    """

    feeds: Mapping[str, Array]
    rows: Array
    index: int
    position: int | None


def measure_together(
    forward: Forward, name: str, texts: Sequence[Followed], *, classes: bool, rows: int = BATCH
) -> list[Array]:
    """What curves need of the rows of several texts of one length: `measured`, text by text.

    Every row of a text is computed once: curves have equal ends, and similar maps have equal steps.
    Rows of different texts run together.

    Args:
        forward: The unchanged file: arrays by input, and places [rows] or ``None`` → logits.
        name: The input that holds the tokens.
        texts: The texts.
        classes: Measure all classes.
        rows: Largest number of rows per run.
    """
    found = [{row.tobytes(): row for row in text.rows} for text in texts]
    waiting = [
        (text, key, row) for text, own in zip(texts, found, strict=True) for key, row in own.items()
    ]
    known: dict[tuple[int, bytes], Array] = {}
    for start in range(0, len(waiting), rows):
        some = waiting[start : start + rows]
        feeds = {
            key: np.concatenate([text.feeds[key][:1] for text, _, _ in some])
            for key in some[0][0].feeds
        }
        feeds[name] = np.stack([row for _, _, row in some]).astype(feeds[name].dtype)
        places = [text.position for text, _, _ in some]
        at = None if None in places else np.array(places)
        logits = forward(feeds, at)
        numbers = measured(logits, np.array([t.index for t, _, _ in some]), classes=classes)
        known.update(
            ((id(text), key), each) for (text, key, _), each in zip(some, numbers, strict=True)
        )
    return [np.stack([known[id(text), row.tobytes()] for row in text.rows]) for text in texts]


def summarise(curves: Sequence[Curves], *, seed: int = 0) -> Perturbation:
    """Areas under the mean curves.

    Raises:
        InputError: There are no samples.
    """
    if not curves:
        raise InputError("There is nothing to evaluate")

    return Perturbation(
        samples=len(curves),
        **{
            name: bootstrap(np.stack([each.of(own) for own in curves]), seed=seed)
            for name, each in MEASURES.items()
        },
    )


@dataclass(frozen=True)
class Measure:
    """The area under a curve.

    Attributes:
        of: The curve of one text and one map.
        higher: Whether high areas are good.
    """

    of: Callable[[Curves], Array]
    higher: bool = True


#: The areas of :class:`Perturbation`.
MEASURES = {
    "generation_auac": Measure(lambda c: c.generation.evidence),
    "generation_mse": Measure(lambda c: c.generation.error, higher=False),
    "pruning_auac": Measure(lambda c: c.pruning.evidence),
    "pruning_mse": Measure(lambda c: c.pruning.error, higher=False),
    "morf": Measure(lambda c: c.generation.logit),
    "lerf": Measure(lambda c: c.ascending.logit, higher=False),
    "comprehensiveness": Measure(lambda c: c.removal.evidence[0] - c.removal.evidence),
    "sufficiency": Measure(lambda c: c.removal.evidence[0] - c.generation.evidence, higher=False),
    "between": Measure(lambda c: c.pruning.evidence - c.removal.evidence),
}
#: The six that methods are compared by; the others follow from them, or have no scale of their own.
COMPARED = (
    "generation_auac",
    "generation_mse",
    "pruning_auac",
    "pruning_mse",
    "comprehensiveness",
    "between",
)


def areas_of(curves: Sequence[Curves]) -> Array:
    """The compared areas of every text [texts, measures]."""
    steps = [[MEASURES[name].of(own) for name in COMPARED] for own in curves]
    return np.asarray(np.trapezoid(np.array(steps), FRACTIONS, axis=-1))


def bootstrap(curves: Array, *, seed: int = 0) -> Area:
    """Area by the trapezoidal rule under the mean of ``curves`` [samples, steps].

    The area is linear in the curve, so the areas of the samples are resampled.
    """
    areas = np.trapezoid(curves, FRACTIONS, axis=1)
    return Area.of(curves, areas, mean_interval(areas, seed=seed))
