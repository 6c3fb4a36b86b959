"""Types that mean the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

#: An array of any type of numbers.
Array = NDArray[Any]
#: Arrays by the name of the graph input that they are for.
Feeds = Mapping[str, Array]
#: Lengths of the axes of a value.
Shape = tuple[int, ...]


class Box(NamedTuple):
    """A rectangle in the pixels of an image; it may reach beyond it."""

    left: float
    top: float
    right: float
    bottom: float
