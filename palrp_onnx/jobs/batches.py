"""Batches of records: of the same form, and of similar length."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol, TypeVar

#: Largest share of a batch that may be padding.
WASTE = 0.2


class Item(Protocol):
    """What can be put into a batch.

    Attributes:
        key: Equal for records that may run together.
        length: Number of tokens; 0 if all records of this key have the same shape.
    """

    @property
    def key(self) -> Hashable: ...  # noqa: D102

    @property
    def length(self) -> int: ...  # noqa: D102


T = TypeVar("T", bound=Item)


def cut(items: Sequence[T], *, size: int, tokens: int) -> Iterator[list[T]]:
    """Cut into batches, each of one key, from the shortest to the longest.

    A batch has at most ``size`` items, at most ``tokens`` tokens with padding (a longer item is a
    batch of its own), and a share of padding of at most `WASTE`. The order depends only on the
    items.
    """
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(item.key, []).append(item)
    for group in groups.values():
        batch: list[T] = []
        real = 0
        for item in sorted(group, key=lambda each: each.length):
            whole, filled = (len(batch) + 1) * item.length, real + item.length
            full = len(batch) >= size or whole > tokens or whole - filled > WASTE * whole
            if batch and full:
                yield batch
                batch, real = [], 0
            batch.append(item)
            real += item.length
        yield batch


def around(first: T, items: Sequence[T], *, size: int, tokens: int) -> list[T]:
    """One batch of :func:`cut` with an item and those of its key that are nearest in length."""
    ordered = sorted((item for item in items if item.key == first.key), key=lambda e: e.length)
    low = next(place for place, item in enumerate(ordered) if item is first)
    high = low + 1

    def together(sides: tuple[int, int]) -> bool:
        start, end = sides
        if start < 0 or end > len(ordered):
            return False
        return len(list(cut(ordered[start:end], size=size, tokens=tokens))) == 1

    while wider := [*filter(together, ((low, high + 1), (low - 1, high)))]:
        low, high = min(wider, key=lambda e: ordered[e[1] - 1].length - ordered[e[0]].length)
    return ordered[low:high]
