"""Types that mean the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

#: An array of any type of numbers.
Array = NDArray[Any]
#: Arrays by the name of the graph input that they are for.
Feeds = Mapping[str, Array]
#: Lengths of the axes of a value.
Shape = tuple[int, ...]
