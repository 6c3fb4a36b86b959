"""Where a forward pass is cut, so that one segment after another can be computed again.

A cut is a place between two nodes. The values that are computed before it and read after it are
kept; those that the way back reads inside a segment are computed again from them, when it gets
there. Few and small values cross the residual stream between two layers, and any place of a chain
of layers; in the middle of an attention layer many do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]

#: A cut is made earlier, for a longer segment, if no more than this factor is kept for it.
_ALIKE = 1.05
#: Number of lengths of segments that are tried.
_TRIED = 40
#: A pass with fewer cuts is taken if it needs no more than this factor.
_ENOUGH = 1.1
#: Number of values, each as large as the largest, that are in work at any time.
_WORK = 3


@dataclass(frozen=True)
class Costs:
    """What a forward pass computes, node by node.

    Attributes:
        made: Index of the node that makes each value.
        last: Index of the last node that reads it.
        size: Its bytes.
        read: Whether the way back reads it.
        count: Number of nodes.
    """

    made: Integers
    last: Integers
    size: Integers
    read: Integers
    count: int

    @classmethod
    def of(cls, values: Sequence[tuple[int, int, int, bool]], count: int) -> Costs:
        """Costs from (made, last, size, read) of every value."""
        made, last, size, read = np.array(values, np.int64).reshape(-1, 4).T
        return cls(made, last, size, read.astype(bool), count)

    @property
    def kept(self) -> int:
        """Bytes of the values that the way back reads, all of which an uncut pass keeps."""
        return int(self.size[self.read].sum())

    def crossing(self) -> Integers:
        """Bytes that cross the place before each node."""
        change = np.zeros(self.count + 2, np.int64)
        np.add.at(change, self.made + 1, self.size)
        np.subtract.at(change, np.minimum(self.last, self.count) + 1, self.size)
        return change.cumsum()[: self.count]

    def inside(self) -> Integers:
        """Bytes that the way back reads of the results of each node."""
        found = np.zeros(self.count, np.int64)
        np.add.at(found, self.made[self.read], self.size[self.read])
        return found

    def peak(self, cuts: Sequence[int]) -> int:
        """Most bytes that are kept at any time of a way back through segments."""
        edges = np.array(cuts, np.int64)
        first = np.searchsorted(edges, self.made, side="right")
        crosses = np.searchsorted(edges, self.last, side="right") > first
        kept = np.bincount(first[crosses] + 1, self.size[crosses], len(edges) + 1).cumsum()
        segment = np.searchsorted(edges, self.made, side="right")[self.read & ~crosses]
        again = np.bincount(segment, self.size[self.read & ~crosses], len(edges) + 1)
        return int((kept + again).max())


def find_cuts(costs: Costs) -> list[int]:
    """Indices of the nodes before which the pass is cut, for about the lowest peak."""
    crossing, inside = costs.crossing(), costs.inside()
    most = int(inside.sum())
    tried = {int(most / 1.3**step) for step in range(_TRIED)}
    found = [_cuts(crossing, inside, bound) for bound in sorted(tried, reverse=True)]
    work = _WORK * int(costs.size[costs.read].max(initial=0))
    peaks = [costs.peak(cuts) + work for cuts in found]
    low = _ENOUGH * min(peaks)
    return next(cuts for cuts, peak in zip(found, peaks, strict=True) if peak <= low)


def work_of(costs: Costs) -> int:
    """Bytes that are in work at any time."""
    return _WORK * int(costs.size.max(initial=0))


def _cuts(crossing: Integers, inside: Integers, bound: int) -> list[int]:
    """Cuts from the end on, between which the way back reads at most ``bound`` bytes.

    Each is at the narrowest place that leaves a segment of at least half of it.
    """
    before = np.concatenate([[0], inside.cumsum()])
    found: list[int] = []
    end = len(inside)
    while before[end] > bound:
        low, high = np.searchsorted(before, before[end] - np.array([bound, bound / 2]))
        start = min(int(low), end - 1)
        if start == 0:
            break
        window = crossing[start : max(start, min(int(high), end - 1)) + 1]
        end = start + int(np.argmax(window <= window.min() * _ALIKE))
        found.append(end)
    return found[::-1]
