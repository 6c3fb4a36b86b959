"""Types that are used throughout the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

#: An array of any type of numbers.
Array = NDArray[Any]
#: Arrays by the name of their graph input.
Feeds = Mapping[str, Array]
#: Lengths of the axes of a value.
Shape = tuple[int, ...]


class Box(NamedTuple):
    """A rectangle in pixels of an image; it may extend beyond the image."""

    left: float
    top: float
    right: float
    bottom: float
