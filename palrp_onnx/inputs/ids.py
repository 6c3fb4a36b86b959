"""Token ids as they are: what goes with them, and what fills a row up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.sample import Feeds, GraphInput, Sample
from palrp_onnx.inputs.signature import check_shape
from palrp_onnx.inputs.text import assign_inputs
from palrp_onnx.inputs.tokens import id_units, load_tokenizer
from palrp_onnx.record import InputFacts


class IdReader:
    """Turns token ids into the feeds of one graph.

    Args:
        graph_inputs: The inputs of the graph, in graph order.
        tokenizer: Where given, tokens are shown as a person reads them.

    Raises:
        InputError: There is no usable tokenizer under the path given, or the graph takes more than
            token ids can give.
    """

    def __init__(self, graph_inputs: Sequence[GraphInput], tokenizer: Path | None) -> None:
        self._inputs = assign_inputs(graph_inputs)
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)

    def read(self, ids: list[int], *, id: str) -> Sample:
        """One row; nothing is added, truncated or padded, and every token is unmasked.

        Raises:
            InputError: There are no ids, one is not in the vocabulary or too large for the graph,
                or the graph has another fixed length.
        """
        if not ids:
            raise InputError("there are no token ids", place=id)
        count = len(ids)
        values = {
            "input_ids": ids,
            "attention_mask": [1] * count,
            "token_type_ids": [0] * count,
            "position_ids": range(count),
        }
        feeds: Feeds = {}
        for role, each in self._inputs.items():
            check_shape(each, (1, count), place=id)
            feeds[each.name] = _row(values[role], each, id)
        units = None if self._tokenizer is None else id_units(self._tokenizer, ids)
        return Sample(
            id=id, kind="tensors", feeds=feeds, facts=InputFacts(kind="tensors"), units=units
        )


def _row(values: Sequence[int], graph_input: GraphInput, id: str) -> np.ndarray[tuple[int, ...]]:
    try:
        row = np.asarray([values], np.int64)
    except OverflowError as error:
        raise InputError("a token id is too large", place=id) from error
    cast = row.astype(graph_input.dtype)
    if not np.array_equal(cast, row):
        raise InputError(f"a token id does not fit {graph_input.dtype}", place=id)
    return cast


def find_pad_id(model_path: Path, tokenizer: Path) -> int | None:
    """The token that fills rows up, or ``None`` where no file names one.

    The first of: ``pad_token_id`` of the ``config.json`` beside the model, which the model itself
    may compare tokens with; the padding section of the tokenizer; ``pad_token`` of the
    ``tokenizer_config.json`` beside it.

    Raises:
        InputError: One of these files cannot be used.
    """
    known = read_optional_json(model_path.parent / "config.json").get("pad_token_id")
    if isinstance(known, int):
        return known
    if not tokenizer.is_file():
        return None
    loaded = load_tokenizer(tokenizer)
    if loaded.padding is not None:
        return int(loaded.padding["pad_id"])
    token = read_optional_json(tokenizer.parent / "tokenizer_config.json").get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    found = loaded.token_to_id(token) if isinstance(token, str) else None
    return None if found is None else int(found)
