"""Inputs of the graph: their description for messages, and whether an array fits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.sample import GraphInput


def describe(graph_inputs: Sequence[GraphInput]) -> str:
    """Name, type and shape of every input, for messages."""
    if not graph_inputs:
        return "the graph has no inputs"
    return "the graph takes " + ", ".join(describe_input(each) for each in graph_inputs)


def describe_input(graph_input: GraphInput) -> str:
    """Name, type and shape of one input: ``input_ids int64[batch, 128]``."""
    if graph_input.shape is None:
        return f"{graph_input.name} {graph_input.dtype}[?]"
    dims = ", ".join("?" if dim is None else str(dim) for dim in graph_input.shape)
    return f"{graph_input.name} {graph_input.dtype}[{dims}]"


def check_shape(graph_input: GraphInput, shape: tuple[int | None, ...], *, place: str) -> None:
    """Compare ``shape`` with the rank and the fixed dimensions of the graph.

    ``None`` fits any length: a single sample fills up a fixed batch.

    Raises:
        InputError: They differ.
    """
    declared = graph_input.shape
    if declared is None:
        return
    fits = len(declared) == len(shape) and all(
        not isinstance(want, int) or have in (None, want)
        for want, have in zip(declared, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"an array of shape {list(shape)} does not fit {describe_input(graph_input)}",
            place=place,
        )


def is_integer(graph_input: GraphInput) -> bool:
    """Whether the input holds integers (bool does not count)."""
    return np.dtype(graph_input.dtype).kind in "iu"
