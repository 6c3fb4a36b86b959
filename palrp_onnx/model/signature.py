"""Inputs and outputs of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class GraphInput:
    """One input or output of the graph.

    Attributes:
        name: Its name.
        dtype: Its type.
        shape: Lengths of its axes, each a number, a symbol or ``None``; ``None`` where the rank is
            unknown.
        value: The value of the plain graph, where one was read; its uses tell what it is for.
        receives: What a text provides for it, where the caller says so.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str | None, ...] | None
    value: ir.Value | None = field(default=None, repr=False, compare=False)
    receives: str | None = None


def first_axes(inputs: Sequence[GraphInput], lengths: Mapping[str, int]) -> str | None:
    """The problem with the lengths of the inputs' first axes; ``None`` where there is none.

    Axes with the same symbol must have the same length, and none may be empty.
    """
    symbols: dict[str, dict[str, int]] = {}
    for each in inputs:
        if each.shape and isinstance(each.shape[0], str) and each.name in lengths:
            symbols.setdefault(each.shape[0], {})[each.name] = lengths[each.name]
    for found in symbols.values():
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} {size}" for name, size in found.items())
            return f"the batch sizes differ: {listed}"
    declared = {each.name: each.shape[0] for each in inputs if each.shape}
    empty = [name for name, size in lengths.items() if size == 0 != declared.get(name)]
    return f"the batch is empty: {', '.join(empty)}" if empty else None
