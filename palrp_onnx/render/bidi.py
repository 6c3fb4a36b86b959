"""The order in which a line with right-to-left text is drawn.

The rules of Unicode Standard Annex 9 without its explicit formatting characters, which are never
drawn as such: they are shown as codes. Paired brackets follow their neighbours.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

_STRONG = {"L": 0, "R": 1, "AL": 1}
_NEUTRAL = ("B", "S", "WS", "ON")
_SIDE = {"L": "L", "R": "R", "EN": "R", "AN": "R"}


def base_level(text: str) -> int:
    """1 if the first letter of a paragraph is written from right to left, else 0."""
    kinds = map(unicodedata.bidirectional, text)
    return next((_STRONG[kind] for kind in kinds if kind in _STRONG), 0)


def levels(text: str, base: int | None = None) -> list[int]:
    """The embedding level of every character of a paragraph; odd ones run from right to left."""
    base = base_level(text) if base is None else base
    if base == 0 and text.isascii():
        return [0] * len(text)
    kinds = [unicodedata.bidirectional(character) or "L" for character in text]
    edge = "R" if base else "L"
    _numbers_and_marks(kinds, edge)
    _neutrals(kinds, edge)
    rise = {"L": base % 2, "R": 1 - base % 2, "EN": 2 - base % 2, "AN": 2 - base % 2}
    return [base + rise[kind] for kind in kinds]


def visual(items: Sequence[int]) -> list[int]:
    """Places of items with these levels, from left to right."""
    order = list(range(len(items)))
    odd = [level for level in items if level % 2]
    for level in range(max(items, default=0), min(odd, default=1) - 1, -1):
        # Whole runs are turned, so that runs of a lower level stay where they are.
        for start, end in _runs(items, level.__le__):
            order[start:end] = order[start:end][::-1]
    return order


def _numbers_and_marks(kinds: list[str], edge: str) -> None:
    """Rules W1 to W7: marks follow their letter, numbers their surroundings."""
    before = strong = edge
    for k, kind in enumerate(kinds):  # W1, W2
        if kind in ("NSM", "BN") or kind not in {*_STRONG, *_NEUTRAL, "EN", "AN", "ES", "ET", "CS"}:
            kind = before
        before = kind
        strong = kind if kind in _STRONG else strong
        kinds[k] = "AN" if kind == "EN" and strong == "AL" else kind
    kinds[:] = ["R" if kind == "AL" else kind for kind in kinds]  # W3
    for k in range(1, len(kinds) - 1):  # W4
        left, kind, right = kinds[k - 1 : k + 2]
        if left == right and (kind, right) in (("ES", "EN"), ("CS", "EN"), ("CS", "AN")):
            kinds[k] = right
    for start, end in _runs(kinds, lambda kind: kind == "ET"):  # W5
        if "EN" in (*kinds[max(start - 1, 0) : start], *kinds[end : end + 1]):
            kinds[start:end] = ["EN"] * (end - start)
    strong = edge
    for k, kind in enumerate(kinds):  # W6, W7
        strong = kind if kind in ("L", "R") else strong
        kinds[k] = "ON" if kind in ("ES", "ET", "CS") else kind
        if kind == "EN" and strong == "L":
            kinds[k] = "L"


def _neutrals(kinds: list[str], edge: str) -> None:
    """Rules N1 and N2: neutral characters between equal sides take their direction."""
    for start, end in _runs(kinds, lambda kind: kind in _NEUTRAL):
        left = _SIDE[kinds[start - 1]] if start else edge
        right = _SIDE[kinds[end]] if end < len(kinds) else edge
        kinds[start:end] = [left if left == right else edge] * (end - start)


def _runs(items: Sequence[object], chosen: Callable[..., bool]) -> list[tuple[int, int]]:
    """Start and end of the longest runs of items that are chosen."""
    flags = [False, *map(chosen, items), False]
    edges = [k for k in range(len(items) + 1) if flags[k] != flags[k + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))
