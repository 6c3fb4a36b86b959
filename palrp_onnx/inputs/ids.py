"""Token ids that are given as such, instead of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.conventions import assign_inputs, token_feeds
from palrp_onnx.inputs.purposes import IDS
from palrp_onnx.inputs.sample import GraphInput, Sample
from palrp_onnx.inputs.signature import check_shape
from palrp_onnx.inputs.tokens import id_units, load_tokenizer
from palrp_onnx.record import InputFacts


class IdReader:
    """Turns token ids into the feeds of one graph.

    Args:
        graph_inputs: The inputs of the graph, in graph order.
        tokenizer: The tokenizer, to show tokens as text; without it their ids are shown.

    Raises:
        InputError: The tokenizer cannot be used, or the graph has inputs that token ids do not
            provide.
    """

    def __init__(self, graph_inputs: Sequence[GraphInput], tokenizer: Path | None) -> None:
        self._graph_inputs = graph_inputs
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
        feeds = token_feeds(self._inputs, ids, place=id)
        for each in self._graph_inputs:
            check_shape(each, feeds[each.name].shape, place=id)
        units = None if self._tokenizer is None else id_units(self._tokenizer, ids)
        return Sample(
            id=id,
            kind="tensors",
            feeds=feeds,
            facts=InputFacts(kind="tensors"),
            units=units,
            subject=self._inputs[IDS][0].name,
        )
