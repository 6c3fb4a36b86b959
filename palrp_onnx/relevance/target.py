"""What is explained: the predicted class, an index or label, a contrast, a token, any element."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import TargetError

Array = NDArray[Any]
ResolvedKind = Literal["class", "contrast", "token", "element"]
Kind = Literal["pred", "index", "contrast", "token", "element"]


@dataclass(frozen=True)
class Target:
    """A parsed ``--target``.

    Attributes:
        kind: What it names.
        index: Class or token; ``None`` for the predicted one.
        against: Class held against, for a contrast.
        position: Token position, for a token.
        element: Indices of an element, the batch axis not counted.
    """

    kind: Kind
    index: int | None = None
    against: int | None = None
    position: int | None = None
    element: tuple[int, ...] = ()


@dataclass(frozen=True)
class Resolved:
    """A target in one row of an output: where its multiplier is not zero.

    Attributes:
        where: Index into the row and weight, one or two of them.
        value: Σ weight · output.
        probability: Softmax along the last axis at the first place.
        kind: How the record names it.
    """

    kind: ResolvedKind
    where: tuple[tuple[tuple[int, ...], float], ...]
    value: float
    probability: float | None

    def seed(self, row: Array) -> Array:
        """The multiplier of a row of the output."""
        seed = np.zeros_like(row)
        for index, weight in self.where:
            seed[index] += weight
        return seed


def parse_target(text: str, labels: Mapping[int, str] | None = None) -> Target:
    """Parse ``pred``, an index, a label, ``A-B``, ``token:POS[:ID]`` or ``I,J,…``.

    Raises:
        TargetError: It is none of these.
    """
    names = {name.casefold(): index for index, name in (labels or {}).items()}
    if text == "pred":
        return Target("pred")
    if (index := _class(text, names)) is not None:
        return Target("index", index)
    if match := re.fullmatch(r"token:(-?\d+)(?::(\d+))?", text):
        token = int(match[2]) if match[2] else None
        return Target("token", token, position=int(match[1]))
    if re.fullmatch(r"-?\d+(,-?\d+)+", text):
        return Target("element", element=tuple(int(part) for part in text.split(",")))
    for dash in (m.start() for m in re.finditer("-", text)):
        first, second = _class(text[:dash], names), _class(text[dash + 1 :], names)
        if first is not None and second is not None:
            return Target("contrast", first, second)
    known = (
        f"Labels: {', '.join((labels or {}).values())}." if labels else "The model has no labels."
    )
    raise TargetError(
        f"There is no target {text!r}",
        hint=f"Use pred, an index, a label, A-B, token:POS[:ID] or I,J,…  {known}",
    )


def _class(text: str, names: Mapping[str, int]) -> int | None:
    text = text.strip()
    if text.casefold() in names:
        return names[text.casefold()]
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def resolve(target: Target, row: Array, mask: Array | None) -> Resolved:
    """Find ``target`` in one row of the output, the batch axis taken off.

    Args:
        target: What to explain.
        row: [classes], or [tokens, classes], or any shape for an element.
        mask: Attention mask [tokens], where the graph has one.

    Raises:
        TargetError: The output has no such element, or the target has no meaning for its shape.
    """
    if target.kind == "element":
        return _element(target.element, row)
    if row.ndim not in (1, 2) or row.size == 0:
        raise TargetError(
            f"Target {target.kind!r} has no meaning for an output of shape {list(row.shape)}",
            hint="Name one element: --target I,J,… (the batch axis not counted).",
        )
    at = _place(target, row, mask)
    logits = row[at] if row.ndim == 2 else row
    prefix = (at,) if row.ndim == 2 else ()
    index = int(logits.argmax()) if target.index is None else _bounded(target.index, logits.size)
    where = [((*prefix, index), 1.0)]
    value = float(logits[index])
    if target.against is not None:
        against = _bounded(target.against, logits.size)
        where.append(((*prefix, against), -1.0))
        value -= float(logits[against])
    named: ResolvedKind = "token" if row.ndim == 2 else "class"
    if target.against is not None:
        named = "contrast"
    return Resolved(named, tuple(where), value, _probability(logits, index))


def _place(target: Target, row: Array, mask: Array | None) -> int:
    """The token position: as named, else the last unmasked one."""
    if row.ndim == 1:
        if target.kind == "token":
            raise TargetError("The output has no token axis", hint="Use a class index or label.")
        return 0
    if target.position is not None:
        return _bounded(target.position, len(row))
    if mask is not None and len(mask) == len(row) and mask.any():
        return int(np.flatnonzero(mask)[-1])
    return len(row) - 1


def _element(element: tuple[int, ...], row: Array) -> Resolved:
    if len(element) != row.ndim:
        raise TargetError(
            f"An element of an output of shape {list(row.shape)} has {row.ndim} indices, "
            f"not {len(element)}"
        )
    index = tuple(_bounded(i, size) for i, size in zip(element, row.shape, strict=True))
    return Resolved("element", ((index, 1.0),), float(row[index]), None)


def _bounded(index: int, size: int) -> int:
    if not -size <= index < size:
        raise TargetError(f"Index {index} is outside an axis of {size}")
    return index % size


def _probability(logits: Array, index: int) -> float | None:
    """Softmax probability; the value itself where the row already is a distribution."""
    if logits.size < 2:
        return None
    wide = logits.astype(np.float64)
    if wide.min() >= 0 and abs(wide.sum() - 1) < 1e-4:
        return float(wide[index])
    shifted = np.exp(wide - wide.max())
    return float(shifted[index] / shifted.sum())
