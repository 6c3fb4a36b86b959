"""Targets: a class, a contrast, a token, a span, any element or region, or a product with a vector.

A target is a number that follows from the output y of one sample. Its seed is the multiplier m of
y that the walk starts with. Where the target is linear in y, m are its weights, so that its value
is Σ m ∘ y. A log-probability is not: its seed is its gradient, 1 at the entry − softmax(y), or
1 − sigmoid(y), and its value is log p. What is left, log p − Σ m ∘ y, is *absorbed*: it enters the
ledger under ``softmax`` (``other`` for a sigmoid), exactly as if the graph ended in a LogSoftmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from palrp_onnx.errors import TargetError
from palrp_onnx.types import Array

Kind = Literal[
    "default",
    "answer",
    "pred",
    "index",
    "contrast",
    "token",
    "element",
    "vector",
    "span",
    "region",
    "all",
]
ResolvedKind = Literal["index", "contrast", "element", "dot", "cosine", "span", "region", "answer"]
#: The two ends of an answer.
End = Literal["start", "end"]
#: One axis of a region: an index, or the first entry and the one after the last.
Part = int | tuple[int | None, int | None]


@dataclass(frozen=True)
class Vector:
    """A vector that the output is multiplied with.

    Attributes:
        name: Name of its file.
        numbers: [D], float64.
        sha256: SHA-256 of the numbers as little-endian float64.
    """

    name: str
    numbers: Array = field(repr=False)
    sha256: str


@dataclass(frozen=True)
class Target:
    """A parsed ``--target``.

    Attributes:
        kind: Its kind.
        index: Class or token; ``None`` for the predicted one.
        against: Class that is subtracted, for a contrast.
        position: Token position, for a token or a vector.
        element: Indices of an element, the batch axis not counted.
        file: Path of the vector.
        cosine: Whether the product with the vector is divided by both lengths.
        vector: The vector, once it is read.
        labelled: Whether ``index`` was given as a label, which needs an output with these classes.
        word: A class or token as text, until it is bound to ``index``.
        against_word: The same for ``against``.
        at: Text of the token at the position, until it is bound to ``position``; of an answer its
            text, until it is bound to ``span``.
        end: Which end of an answer is explained alone; ``None`` for the sum of both scores.
        log: Whether the log-probability is explained instead of the entry.
        rest: Whether the mean of all other entries is subtracted from the entry.
        link: How probabilities follow from entries, once it is bound: of ``log`` targets alone.
        span: First and last token of an answer, or of a span, until it is bound to ``entries``.
        best: The same of the best of all answers, which need not be the one that is explained.
        entries: Of a span: (place, entry) pairs, whose log-probabilities are summed.
        parts: Of a region: one part for every axis of the output, the batch axis not counted.
        cells: Of a region: a mask of its places, which ``parts`` with a range run along.
        region: Of a region: its name.
    """

    kind: Kind
    index: int | None = None
    against: int | None = None
    position: int | None = None
    element: tuple[int, ...] = ()
    file: str | None = None
    cosine: bool = False
    vector: Vector | None = field(default=None, compare=False)
    labelled: bool = field(default=False, compare=False)
    word: str | None = None
    against_word: str | None = None
    at: str | None = None
    end: End | None = None
    log: bool = False
    rest: bool = False
    link: str | None = field(default=None, compare=False)
    span: tuple[int, int] | None = None
    best: tuple[int, int] | None = field(default=None, compare=False)
    entries: tuple[tuple[int, int], ...] = ()
    parts: tuple[Part, ...] = ()
    cells: Array | None = field(default=None, repr=False, compare=False)
    region: str | None = None

    @property
    def of_output(self) -> bool:
        """Whether the seed depends on the values of the output, or on several of its places."""
        return self.log or self.rest or self.kind in ("span", "region", "answer")

    @property
    def wide(self) -> bool:
        """Whether the seed may be at several places of a token axis, or of a picture."""
        return self.kind in ("span", "region")

    def names_the_only(self) -> bool:
        """Whether it is valid for an output of one number per sample."""
        return self.kind == "pred" or (self.kind == "index" and self.index in (0, -1))


@dataclass(frozen=True)
class Resolved:
    """A target in one row of an output: where its multiplier is not zero.

    Attributes:
        kind: Its kind, with classes and tokens found.
        where: (index into the row, weight), one or two of them; none for a vector, one for every
            token of a span.
        value: What is explained: Σ multiplier · output, or a log-probability.
        scores: Entries along the last axis at the place of the target [D].
        place: Index of these entries in the row.
        predicted: Whether the target is the largest of them.
        vector: For a vector: what these entries are multiplied with.
        direction: Multiplier of these entries where ``where`` does not give it [D]; of the whole
            row where there is no place.
        absorbed: ``value`` − Σ multiplier · output, which is not zero for log-probabilities.
        entry: The entry of the ledger that it belongs to.
        region: Of a region: its name, and its number of cells.
        rest: Whether the mean of all other entries is subtracted.
        best: First and last token of the best of all answers, if answers are explained.
    """

    kind: ResolvedKind
    where: tuple[tuple[tuple[int, ...], float], ...]
    value: float
    scores: Array = field(repr=False, compare=False)
    place: tuple[int, ...] = ()
    predicted: bool = False
    vector: Vector | None = None
    direction: Array | None = field(default=None, repr=False, compare=False)
    absorbed: float = 0.0
    entry: str = "softmax"
    region: tuple[str, int] | None = None
    rest: bool = False
    best: tuple[int, int] | None = None

    @property
    def log(self) -> bool:
        """Whether the value is a log-probability, or a sum of them."""
        if self.kind == "span":
            return True
        return self.direction is not None and self.kind == "index" and not self.rest

    def seed(self, row: Array) -> Array:
        """The multiplier of a row of the output."""
        seed = np.zeros_like(row)
        if self.direction is not None:
            seed[self.place] = self.direction
            return seed
        for index, weight in self.where:
            seed[index] += weight
        return seed


def of_rows(target: Target | Sequence[Target], samples: int) -> list[Target]:
    """One target for every row: the same for all, or each its own."""
    return [target] * samples if isinstance(target, Target) else list(target)


def resolve(target: Target, row: Array, mask: Array | None) -> Resolved:
    """Find ``target`` in one row of the output, without the batch axis.

    Args:
        target: What to explain.
        row: [entries], or [tokens, entries], or any shape for an element. A row without axes has
            one element, (), which is the predicted one.
        mask: Attention mask [tokens] if the graph has one; nonzero is unmasked.

    Raises:
        TargetError: The output has no such element, or the target has no meaning for its shape.
    """
    if target.kind == "element" or (row.ndim == 0 and target.names_the_only()):
        return _element(target.element, row)
    if target.kind == "span":
        return _span(target, row)
    if target.kind == "region":
        return _region(target, row)
    if target.kind == "answer":
        return _answer(target, row)
    if row.ndim not in (1, 2) or row.size == 0:
        raise TargetError(
            f"Target {target.kind!r} has no meaning for an output of shape {list(row.shape)}",
            hint="Name one element: --target I,J,… (the batch axis not counted).",
        )
    place = (_place(target, row, mask),) if row.ndim == 2 else _no_place(target)
    scores = row[place]
    if target.kind == "vector":
        return _product(target, scores, place)
    index = int(scores.argmax()) if target.index is None else bounded(target.index, scores.size)
    where = [((*place, index), 1.0)]
    if target.rest:
        direction = _against_rest(scores, index)
        value = float(scores[index]) + _sum(scores, np.minimum(direction, 0.0))
        return Resolved(
            "index",
            tuple(where),
            value,
            scores,
            place,
            predicted=target.index is None,
            direction=direction,
            rest=True,
        )
    if target.log:
        value, direction, rest, entry = _logarithm(scores, index, target.link)
        return Resolved(
            "index",
            tuple(where),
            value,
            scores,
            place,
            predicted=target.index is None,
            direction=direction,
            absorbed=rest,
            entry=entry,
        )
    value = float(scores[index])
    if target.against is not None:
        against = bounded(target.against, scores.size)
        where.append(((*place, against), -1.0))
        value -= float(scores[against])
    kind: ResolvedKind = "index" if target.against is None else "contrast"
    return Resolved(kind, tuple(where), value, scores, place, predicted=target.index is None)


def _no_place(target: Target) -> tuple[int, ...]:
    """The place in an output without a token axis.

    Raises:
        TargetError: The target names a position.
    """
    if target.position is not None:
        raise TargetError("The output has no token axis", hint="Use a class index or label.")
    return ()


def _place(target: Target, row: Array, mask: Array | None) -> int:
    """The token position of the target, by default the last unmasked one."""
    if target.position is not None:
        return bounded(target.position, len(row))
    if mask is not None and len(mask) == len(row) and (mask != 0).any():
        return int(np.flatnonzero(mask != 0)[-1])
    return len(row) - 1


def _element(element: tuple[int, ...], row: Array) -> Resolved:
    if len(element) != row.ndim:
        raise TargetError(
            f"An element of an output of shape {list(row.shape)} has {row.ndim} indices, "
            f"not {len(element)}",
            hint="Write several classes of one output as index:0,index:1.",
        )
    index = tuple(bounded(i, size) for i, size in zip(element, row.shape, strict=True))
    scores = row[index[:-1]] if index else row.reshape(1)
    return Resolved("element", ((index, 1.0),), float(row[index]), scores, index[:-1])


def _logarithm(scores: Array, index: int, link: str | None) -> tuple[float, Array, float, str]:
    """log p at ``index``, its gradient [D], what that leaves out, and the ledger's entry for it.

    Raises:
        TargetError: The entries have no probabilities.
    """
    wide = scores.astype(np.float64)
    gradient = np.zeros_like(wide)
    if link == "softmax":
        top = wide.max()
        shifted = np.exp(wide - top)
        value = float(wide[index] - top - np.log(shifted.sum()))
        gradient -= shifted / shifted.sum()
        gradient[index] += 1
    elif link == "sigmoid":
        value = float(-np.logaddexp(0, -wide[index]))
        gradient[index] = -np.expm1(value)
    else:
        raise TargetError(
            "The entries of the output have no log-probabilities",
            hint="Nothing says how probabilities follow from them; leave out logprob:.",
        )
    return (
        value,
        gradient,
        value - _sum(wide, gradient),
        "softmax" if link == "softmax" else "other",
    )


def _sum(scores: Array, weights: Array) -> float:
    """Σ scores ∘ weights; entries that are switched off are −∞, and have no part in the sum."""
    used = weights != 0
    return float((scores[used].astype(np.float64) * weights[used]).sum())


def _against_rest(scores: Array, index: int) -> Array:
    """1 at ``index``, −1/n at each of the n other entries that are not switched off [D].

    Raises:
        TargetError: There are no others.
    """
    others = np.isfinite(scores)
    others[index] = False
    if not others.any():
        raise TargetError("The output has no other entries", hint="Leave out rest:.")
    direction = others / -float(others.sum())
    direction[index] = 1.0
    return np.asarray(direction)


def _span(target: Target, row: Array) -> Resolved:
    """Σ log softmax(y[place])[entry], for the (place, entry) pairs of a span.

    Raises:
        TargetError: The output has no token axis, or the places or entries are not in it.
    """
    if row.ndim != 2 or not target.entries:
        raise TargetError(
            f"A span has no meaning for an output of shape {list(row.shape)}",
            hint="It needs an output with a token axis, [B, tokens, vocabulary].",
        )
    seed, value, rest = np.zeros(row.shape, np.float64), 0.0, 0.0
    for place, index in target.entries:
        at, entry = bounded(place, len(row)), bounded(index, row.shape[1])
        log, gradient, left, _ = _logarithm(row[at], entry, "softmax")
        seed[at] += gradient
        value, rest = value + log, rest + left
    where = tuple((pair, 1.0) for pair in target.entries)
    return Resolved(
        "span", where, value, row[target.entries[0][0]], (), direction=seed, absorbed=rest
    )


def _answer(target: Target, row: Array) -> Resolved:
    """start[s] + end[e], of a row [2 T] that holds the scores of both, one after the other.

    Raises:
        TargetError: The output is none of answers.
    """
    if row.ndim != 1 or target.span is None:
        raise TargetError(f"An answer has no meaning for an output of shape {list(row.shape)}")
    where = answer_entries(target.span, len(row) // 2)
    value = sum(weight * float(row[index]) for index, weight in where)
    return Resolved("answer", where, value, row, best=target.best)


def answer_entries(span: tuple[int, int], tokens: int) -> tuple[tuple[tuple[int], float], ...]:
    """The entries of an answer in a row [2 T] with their weights: its start, and its end."""
    start, end = (bounded(place, tokens) for place in span)
    return ((start,), 1.0), ((tokens + end,), 1.0)


def _region(target: Target, row: Array) -> Resolved:
    """The sum of the entries of a region.

    Raises:
        TargetError: It has another number of axes than the output, or no cells.
    """
    if len(target.parts) != row.ndim:
        raise TargetError(
            f"A region of an output of shape {list(row.shape)} has {row.ndim} parts, "
            f"not {len(target.parts)}",
            hint="Write an index or a range a:b for each axis, the batch axis not counted: 2,:,:.",
        )
    sizes = zip(target.parts, row.shape, strict=True)
    cut = tuple(bounded(p, n) if isinstance(p, int) else slice(*p) for p, n in sizes)
    chosen = np.zeros(row.shape, bool)
    shape = chosen[cut].shape
    if target.cells is not None and target.cells.shape != shape:
        raise TargetError(
            f"The mask has the shape {list(target.cells.shape)}, but the places of the output "
            f"{list(shape)}",
            place=target.region or "",
        )
    chosen[cut] = True if target.cells is None else target.cells != 0
    count = int(chosen.sum())
    if not count:
        raise TargetError(f"The region {target.region} of the output is empty")
    value = float(row[chosen].astype(np.float64).sum())
    where = (((target.index,), 1.0),) if target.index is not None else ()
    return Resolved(
        "region",
        where,
        value,
        row[chosen],
        (),
        direction=chosen.astype(row.dtype),
        region=(target.region or "", count),
    )


def _product(target: Target, scores: Array, place: tuple[int, ...]) -> Resolved:
    """v · y: the seed is v; for a cosine v / (|v| |y|), with |y| as a constant."""
    vector = target.vector
    assert vector is not None, "the vector is read before targets are resolved"
    fits(vector, scores.size)
    wide = scores.astype(np.float64)
    factor = vector_factor(target, wide)
    direction = vector.numbers / np.linalg.norm(vector.numbers) * factor
    return Resolved(
        "cosine" if target.cosine else "dot",
        (),
        float(direction @ wide),
        scores,
        place,
        vector=vector,
        direction=direction,
    )


def vector_factor(target: Target, scores: Array) -> float:
    """The factor of v / |v| in the seed: |v|, or 1 / |y| for a cosine.

    Raises:
        TargetError: The output is zero, which has no cosine.
    """
    assert target.vector is not None
    if not target.cosine:
        return float(np.linalg.norm(target.vector.numbers))
    length = float(np.linalg.norm(scores.astype(np.float64)))
    if length == 0:
        raise TargetError("The output is zero, so that it has no cosine with the vector")
    return 1 / length


def fits(vector: Vector, size: int) -> None:
    """Refuse a vector of another length than the output's last axis.

    Raises:
        TargetError: The lengths differ.
    """
    if len(vector.numbers) != size:
        raise TargetError(
            f"The vector has {len(vector.numbers)} numbers, but the last axis of the output {size}",
            place=vector.name,
        )


def bounded(index: int, size: int) -> int:
    """An index of an axis as counted from its front.

    Raises:
        TargetError: It is outside of the axis.
    """
    if not -size <= index < size:
        raise TargetError(f"Index {index} is outside an axis of {size}")
    return index % size
