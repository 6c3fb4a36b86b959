"""The inputs of a graph that text is given to, and their arrays.

What an input receives is decided in `palrp_onnx.inputs.purposes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.purposes import (
    BIND_HINT,
    IDS,
    MASK,
    PADDING,
    POSITIONS,
    TYPES,
    UNUSED,
    purposes,
)
from palrp_onnx.inputs.sample import Feeds, GraphInput
from palrp_onnx.inputs.signature import describe, describe_input, is_integer

#: The next step if a graph has inputs that text does not provide.
TENSORS_HINT = "give a file for each input (--input again), or one array per graph input as .npz"


def assign_inputs(graph_inputs: Sequence[GraphInput]) -> dict[str, list[GraphInput]]:
    """Graph inputs by what they receive: ``ids``, ``mask``, ``types``, ``positions``, …

    Raises:
        InputError: The graph has other inputs, or it is open what one receives.
    """
    found = purposes(graph_inputs)
    missing = [each for each in graph_inputs if found[each.name] is None]
    if len(missing) == 1 and IDS not in found.values() and is_integer(missing[0]):
        found[missing.pop().name] = IDS
    texts = [name for name, what in found.items() if what == IDS]
    if not missing and len(texts) > 1:
        raise InputError(
            f"one text gives one of the inputs that look words up: {' and '.join(texts)}",
            hint=f"Give each: {' '.join(f'--input {name}=FILE' for name in texts)}",
        )
    if missing or not texts:
        names = ", ".join(each.name for each in missing) or "token ids"
        open_ = [each for each in missing if is_integer(each) or each.dtype.kind == "b"]
        problem = "the graph has inputs that text does not provide"
        if missing and open_ == missing:
            problem = "the graph leaves open what text provides for some inputs"
        raise InputError(
            f"{problem}; {describe(graph_inputs)}",
            place=names,
            hint=BIND_HINT if open_ == missing else TENSORS_HINT,
        )
    assigned: dict[str, list[GraphInput]] = {}
    for each in graph_inputs:
        purpose = found[each.name]
        assert purpose is not None
        _check_input(purpose, each)
        assigned.setdefault(purpose, []).append(each)
    return assigned


def _check_input(purpose: str, graph_input: GraphInput) -> None:
    kinds = "iufb" if purpose in (MASK, PADDING, UNUSED) else "iu"
    shape = graph_input.shape
    rank = shape is None or len(shape) in (1, 2) or (len(shape) == 3 and shape[2] != 1)
    if np.dtype(graph_input.dtype).kind in kinds and rank:
        return
    raise InputError(
        f"text provides one row of integers [1, tokens], not {describe_input(graph_input)}",
        place=graph_input.name,
        hint=TENSORS_HINT,
    )


def fixed_length(inputs: Mapping[str, Sequence[GraphInput]]) -> int | None:
    """The fixed number of tokens of the graph, or ``None`` if it is free.

    Raises:
        InputError: Its inputs have different fixed lengths.
    """
    listed = [each for purpose, several in inputs.items() if purpose != UNUSED for each in several]
    lengths = {each.shape[-1] for each in listed if each.shape and isinstance(each.shape[-1], int)}
    if len(lengths) > 1:
        message = f"the fixed lengths contradict; {describe(listed)}"
        raise InputError(message, hint=TENSORS_HINT)
    return int(lengths.pop()) if lengths else None


def token_feeds(
    inputs: Mapping[str, Sequence[GraphInput]],
    ids: Sequence[int],
    *,
    mask: Sequence[int] | None = None,
    types: Sequence[int] | None = None,
    place: str,
) -> Feeds:
    """One row of tokens as arrays [1, tokens], or [tokens], in the types that the graph declares.

    Of a graph that takes several choices, [1, choices, tokens], it is one choice.

    Args:
        inputs: The result of `assign_inputs`.
        ids: The tokens.
        mask: 1 for tokens and 0 for padding; 1 everywhere by default.
        types: 0 for the first sequence, 1 for the second; 0 everywhere by default.
        place: Where errors are located, for their messages.

    Raises:
        InputError: An id does not fit the type of its input.
    """
    count = len(ids)
    kept = np.ones(count, np.int64) if mask is None else np.asarray(mask)
    # Tokens are counted from the first that is not padding, as Transformers does.
    places = np.maximum(np.cumsum(kept) - 1, 0) if not kept[0] else np.arange(count)
    values: dict[str, Sequence[int]] = {
        IDS: ids,
        MASK: kept.tolist(),
        PADDING: (1 - kept).tolist(),
        TYPES: [0] * count if types is None else types,
        POSITIONS: places.tolist(),
    }
    feeds = {
        each.name: _row(values[purpose], each, place)
        for purpose, several in inputs.items()
        for each in several
        if purpose != UNUSED
    }
    (tokens,) = inputs[IDS]
    for each in inputs.get(UNUSED, ()):
        shape = feeds[tokens.name].shape
        rank = len(shape) if each.shape is None else len(each.shape)
        feeds[each.name] = np.zeros(shape[:rank], each.dtype)
    return feeds


def _row(values: Sequence[int], graph_input: GraphInput, place: str) -> NDArray[np.generic]:
    try:
        row = np.asarray([values], np.int64)
    except OverflowError as error:
        raise InputError("a token id is too large", place=place) from error
    cast = row.astype(graph_input.dtype)
    if not np.array_equal(cast, row):
        raise InputError(f"a token id is too large for {describe_input(graph_input)}", place=place)
    return cast[0] if graph_input.shape is not None and len(graph_input.shape) == 1 else cast
