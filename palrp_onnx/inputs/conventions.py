"""The usual names of text inputs, and arrays of tokens for graphs that use them.

Names serve only to make arrays from text. The role of an input in the explanation never follows
from its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.sample import Feeds, GraphInput
from palrp_onnx.inputs.signature import describe, describe_input, is_integer

IDS, MASK = "input_ids", "attention_mask"
SEGMENTS, POSITIONS = "token_type_ids", "position_ids"
NAMES = (IDS, MASK, SEGMENTS, POSITIONS)

#: The next step if a graph has inputs that text does not provide.
TENSORS_HINT = "pass one array per graph input as .npz"


def assign_inputs(graph_inputs: Sequence[GraphInput]) -> dict[str, GraphInput]:
    """Graph inputs by the usual name of what they receive.

    Raises:
        InputError: The graph has other inputs, or one of another type or shape.
    """
    roles = {each.name: each for each in graph_inputs if each.name in NAMES}
    others = [each for each in graph_inputs if each.name not in NAMES]
    if IDS not in roles and len(others) == 1 and is_integer(others[0]):
        roles[IDS] = others.pop()
    if others or IDS not in roles:
        names = ", ".join(each.name for each in others) or IDS
        message = f"the graph has inputs that text does not provide; {describe(graph_inputs)}"
        raise InputError(message, place=names, hint=TENSORS_HINT)
    for role, graph_input in roles.items():
        _check_input(role, graph_input)
    return roles


def _check_input(role: str, graph_input: GraphInput) -> None:
    kinds = "iufb" if role == MASK else "iu"
    shape = graph_input.shape
    if np.dtype(graph_input.dtype).kind in kinds and (
        shape is None or (len(shape) == 2 and (not isinstance(shape[0], int) or shape[0] == 1))
    ):
        return
    raise InputError(
        f"text provides one row of integers [1, tokens], not {describe_input(graph_input)}",
        place=graph_input.name,
        hint=TENSORS_HINT,
    )


def fixed_length(inputs: Mapping[str, GraphInput]) -> int | None:
    """The fixed number of tokens of the graph, or ``None`` if it is free.

    Raises:
        InputError: Its inputs have different fixed lengths.
    """
    lengths = {
        each.shape[1] for each in inputs.values() if each.shape and isinstance(each.shape[1], int)
    }
    if len(lengths) > 1:
        message = f"the fixed lengths contradict; {describe(list(inputs.values()))}"
        raise InputError(message, hint=TENSORS_HINT)
    return int(lengths.pop()) if lengths else None


def token_feeds(
    inputs: Mapping[str, GraphInput],
    ids: Sequence[int],
    *,
    mask: Sequence[int] | None = None,
    segments: Sequence[int] | None = None,
    place: str,
) -> Feeds:
    """One row of tokens as arrays [1, tokens], in the types that the graph declares.

    Args:
        inputs: The result of `assign_inputs`.
        ids: The tokens.
        mask: 1 for tokens and 0 for padding; 1 everywhere by default.
        segments: 0 for the first sequence, 1 for the second; 0 everywhere by default.
        place: Where errors are located, for their messages.

    Raises:
        InputError: An id does not fit the type of its input.
    """
    count = len(ids)
    values = {
        IDS: ids,
        MASK: [1] * count if mask is None else mask,
        SEGMENTS: [0] * count if segments is None else segments,
        POSITIONS: range(count),
    }
    return {each.name: _row(values[role], each, place) for role, each in inputs.items()}


def _row(values: Sequence[int], graph_input: GraphInput, place: str) -> NDArray[np.generic]:
    try:
        row = np.asarray([values], np.int64)
    except OverflowError as error:
        raise InputError("a token id is too large", place=place) from error
    cast = row.astype(graph_input.dtype)
    if not np.array_equal(cast, row):
        raise InputError(f"a token id is too large for {describe_input(graph_input)}", place=place)
    return cast
