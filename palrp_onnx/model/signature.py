"""Inputs and outputs of a graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from palrp_onnx.errors import InputError
from palrp_onnx.types import Feeds, Shape

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Answers:
    """What was found about the inputs of a graph when it was opened before.

    Attributes:
        names: Names of all inputs.
        purposes: What each receives of a text, where the caller says nothing:
            :func:`palrp_onnx.inputs.purposes.purposes`.
        ids: The input with the ids of a text.
        produced: The input with the tokens of a decoder that reads an encoder.
        open: Opens the graph, and returns its inputs by name.
    """

    names: tuple[str, ...]
    purposes: Mapping[str, str | None]
    ids: str | None
    produced: str | None
    open: Callable[[], Mapping[str, GraphInput]]


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
        known: What was found before about a graph that is not open; then ``value`` is ``None``.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str | None, ...] | None
    value: ir.Value | None = field(default=None, repr=False, compare=False)
    receives: str | None = None
    known: Answers | None = field(default=None, repr=False, compare=False)


def known_of(inputs: Sequence[GraphInput]) -> Answers | None:
    """What is known about the graph of some inputs, if it is not open."""
    found = {id(each.known): each.known for each in inputs}
    return next(iter(found.values())) if len(found) == 1 else None


def answered(inputs: Sequence[GraphInput]) -> Answers | None:
    """What is known about all inputs of a graph of whose purposes the caller says nothing."""
    known = known_of(inputs)
    if known is None or tuple(each.name for each in inputs) != known.names:
        return None
    return known if all(each.receives is None for each in inputs) else None


def with_values(inputs: Sequence[GraphInput]) -> tuple[GraphInput, ...]:
    """Inputs with the values of their graph, which is opened where it is not."""
    return tuple(
        each if each.known is None else replace(each, value=each.known.open()[each.name].value)
        for each in inputs
    )


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


def check_feeds(
    inputs: Sequence[GraphInput], feeds: Feeds, masks: Collection[str] | None = None
) -> None:
    """Refuse arrays that do not fit the graph's inputs, differ in batch size or are not finite.

    Args:
        inputs: Inputs of the graph.
        feeds: The arrays.
        masks: Names of inputs that may hold infinity; it is not looked for where they are unknown.

    Raises:
        InputError: There is such an array, or one is missing.
    """
    wanted = [s.name for s in inputs]
    missing = [name for name in wanted if name not in feeds]
    unknown = [name for name in feeds if name not in wanted]
    if missing or unknown:
        problem = f"missing {missing}" if missing else f"unknown {unknown}"
        raise InputError(
            f"The arrays do not fit the graph's inputs: {problem}", hint=f"Inputs: {wanted}."
        )
    lengths = {name: len(array) for name, array in feeds.items() if array.ndim}
    if (differ := first_axes(inputs, lengths)) is not None:
        raise InputError(differ[0].upper() + differ[1:])
    for name, array in feeds.items():
        if array.dtype.kind != "f":
            continue
        infinite = masks is not None and name not in masks and np.isinf(array).any()
        if infinite or np.isnan(array).any():
            raise InputError("The input holds NaN or infinity", place=f"input {name}")


def shapes_of(feeds: Feeds) -> dict[str, Shape]:
    """Shapes by name."""
    return {name: array.shape for name, array in feeds.items()}
