"""What goes into and comes out of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GraphInput:
    """One input or output of the graph. A dimension is a number, a symbol, or ``None``."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str | None, ...] | None


def first_axes(inputs: Sequence[GraphInput], lengths: Mapping[str, int]) -> str | None:
    """What is wrong with the lengths of the inputs' first axes; ``None`` where nothing is.

    Axes of one symbol are one; those that the graph fixes, or leaves without a symbol, need not
    follow others.
    """
    symbols: dict[str, dict[str, int]] = {}
    for each in inputs:
        if each.shape and isinstance(each.shape[0], str) and each.name in lengths:
            symbols.setdefault(each.shape[0], {})[each.name] = lengths[each.name]
    for found in symbols.values():
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} {size}" for name, size in found.items())
            return f"the batch sizes differ: {listed}"
    empty = [name for name, size in lengths.items() if size == 0]
    return f"the batch is empty: {', '.join(empty)}" if empty else None
