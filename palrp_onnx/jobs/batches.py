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
