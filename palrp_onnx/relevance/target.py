"""Targets: a class, a contrast, a token, any element, or a product with a vector."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from palrp_onnx.errors import TargetError
from palrp_onnx.types import Array

Kind = Literal["pred", "index", "contrast", "token", "element", "vector", "all"]
ResolvedKind = Literal["index", "contrast", "element", "dot", "cosine"]


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

    def names_the_only(self) -> bool:
        """Whether it is valid for an output of one number per sample."""
        return self.kind == "pred" or (self.kind == "index" and self.index in (0, -1))


@dataclass(frozen=True)
class Resolved:
    """A target in one row of an output: where its multiplier is not zero.

    Attributes:
        kind: Its kind, with classes and tokens found.
        where: (index into the row, weight), one or two of them; none for a vector.
        value: Σ multiplier · output.
        scores: Entries along the last axis at the place of the target [D].
        place: Index of these entries in the row.
        predicted: Whether the target is the largest of them.
        vector: For a vector: what these entries are multiplied with.
        direction: For a vector: their multiplier [D].
    """

    kind: ResolvedKind
    where: tuple[tuple[tuple[int, ...], float], ...]
    value: float
    scores: Array = field(repr=False, compare=False)
    place: tuple[int, ...] = ()
    predicted: bool = False
    vector: Vector | None = None
    direction: Array | None = field(default=None, repr=False, compare=False)

    def seed(self, row: Array) -> Array:
        """The multiplier of a row of the output."""
        seed = np.zeros_like(row)
        for index, weight in self.where:
            seed[index] += weight
        if self.direction is not None:
            seed[self.place] = self.direction
        return seed


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
    if row.ndim not in (1, 2) or row.size == 0:
        raise TargetError(
            f"Target {target.kind!r} has no meaning for an output of shape {list(row.shape)}",
            hint="Name one element: --target I,J,… (the batch axis not counted).",
        )
    place = (_place(target, row, mask),) if row.ndim == 2 else _no_place(target)
    scores = row[place]
    if target.kind == "vector":
        return _product(target, scores, place)
    index = int(scores.argmax()) if target.index is None else _bounded(target.index, scores.size)
    where = [((*place, index), 1.0)]
    value = float(scores[index])
    if target.against is not None:
        against = _bounded(target.against, scores.size)
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
        return _bounded(target.position, len(row))
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
    index = tuple(_bounded(i, size) for i, size in zip(element, row.shape, strict=True))
    scores = row[index[:-1]] if index else row.reshape(1)
    return Resolved("element", ((index, 1.0),), float(row[index]), scores, index[:-1])


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


def _bounded(index: int, size: int) -> int:
    if not -size <= index < size:
        raise TargetError(f"Index {index} is outside an axis of {size}")
    return index % size
