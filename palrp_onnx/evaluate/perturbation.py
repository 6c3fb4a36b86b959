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

#: Token ids [rows, tokens] → logits [rows, classes] at the explained place.
Predict = Callable[[Array], Array]

#: Shares of the tokens that are inserted or removed.
FRACTIONS = np.linspace(0.0, 1.0, 11)
#: Rows per run of the model.
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


def perturb(
    ids: Array, relevance: Array, index: int, predict: Predict, protocol: Protocol
) -> Curves:
    """Perturb one text in the order of one map.

    Args:
        ids: Token ids [T].
        relevance: The map [T], signed.
        index: The explained class.
        predict: The model.
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
    rows = np.concatenate(
        [
            _replaced(blank, ids, descending),
            _replaced(blank, ids, ascending),
            _replaced(ids, blank, ascending),
            _replaced(ids, blank, descending),
            ids[None],
        ]
    )
    logits = predict(rows).astype(np.float64)
    *parts, whole = np.split(logits, [len(FRACTIONS) * k for k in (1, 2, 3, 4)])
    return Curves(*(_steps(part, whole[0], index, protocol) for part in parts))


def _replaced(start: Array, end: Array, order: Array) -> Array:
    """``start`` with the first ⌈f n⌉ places of ``order`` taken from ``end``, for every fraction."""
    rows = np.repeat(start[None], len(FRACTIONS), axis=0)
    for row, fraction in zip(rows, FRACTIONS, strict=True):
        places = order[: int(np.ceil(round(fraction * len(order), 9)))]
        row[places] = end[places]
    return rows


def _steps(logits: Array, whole: Array, index: int, protocol: Protocol) -> Steps:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    error = (logits - whole) ** 2
    # Copies, because a view would keep the logits of the whole vocabulary in memory.
    return Steps(
        evidence=powers[:, index] / powers.sum(axis=-1),
        error=error.sum(axis=-1) if protocol.classes else error[:, index].copy(),
        logit=logits[:, index].copy(),
    )


def predictor(
    forward: Callable[[Mapping[str, Array]], Array],
    feeds: Mapping[str, Array],
    name: str,
    position: int | None,
) -> Predict:
    """A function for the logits of the unchanged file, for rows of tokens in place of a sample's.

    Every row is computed once: curves have equal ends, and similar maps have equal steps.

    Args:
        forward: Runs the file: :class:`palrp_onnx.runtime.forward.FileForward`.
        feeds: The sample; its other inputs are the same for all rows.
        name: The input that holds the tokens.
        position: Token position of the logits, if the output has a token axis.
    """
    known: dict[bytes, Array] = {}

    def compute(rows: Array) -> Array:
        others = {key: np.repeat(array[:1], len(rows), axis=0) for key, array in feeds.items()}
        logits = forward({**others, name: rows.astype(feeds[name].dtype)})
        return logits if position is None else logits[:, position]

    def predict(rows: Array) -> Array:
        keys = [row.tobytes() for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        for start in range(0, len(new), BATCH):
            some = list(new)[start : start + BATCH]
            # Copies, because a view would keep the logits of all positions in memory.
            known.update(
                zip(some, compute(np.stack([new[key] for key in some])).copy(), strict=True)
            )
        return np.stack([known[key] for key in keys])

    return predict


def summarise(curves: Sequence[Curves], *, seed: int = 0) -> Perturbation:
    """Areas under the mean curves.

    Raises:
        InputError: There are no samples.
    """
    if not curves:
        raise InputError("There is nothing to evaluate")

    def area(of: Callable[[Curves], Array]) -> Area:
        return bootstrap(np.stack([of(c) for c in curves]), seed=seed)

    return Perturbation(
        samples=len(curves),
        generation_auac=area(lambda c: c.generation.evidence),
        generation_mse=area(lambda c: c.generation.error),
        pruning_auac=area(lambda c: c.pruning.evidence),
        pruning_mse=area(lambda c: c.pruning.error),
        morf=area(lambda c: c.generation.logit),
        lerf=area(lambda c: c.ascending.logit),
        comprehensiveness=area(lambda c: c.removal.evidence[0] - c.removal.evidence),
        sufficiency=area(lambda c: c.removal.evidence[0] - c.generation.evidence),
        between=area(lambda c: c.pruning.evidence - c.removal.evidence),
    )


def bootstrap(curves: Array, *, seed: int = 0) -> Area:
    """Area by the trapezoidal rule under the mean of ``curves`` [samples, steps].

    The area is linear in the curve, so the areas of the samples are resampled.
    """
    areas = np.trapezoid(curves, FRACTIONS, axis=1)
    return Area.of(curves, areas, mean_interval(areas, seed=seed))
