"""Text generation: a prompt is extended by the tokens that a model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from msgspec import structs

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.conventions import assign_inputs, fixed_length
from palrp_onnx.inputs.purposes import IDS, MASK, PADDING, POSITIONS
from palrp_onnx.inputs.reading import read_optional_json
from palrp_onnx.inputs.sample import GraphInput, Sample
from palrp_onnx.inputs.tokenizer_checks import panics_are_errors
from palrp_onnx.inputs.tokenizer_files import tokenizer_file
from palrp_onnx.inputs.tokens import id_units, load_tokenizer
from palrp_onnx.record import Units

#: How many preceding tokens a new one is decoded with: they decide whether it starts with a space,
#: or completes a character.
_CONTEXT = 8


class Continuation:
    """Appends tokens to samples of text, one at a time.

    Args:
        tokenizer: The tokenizer, a file or a folder. The tokens that end a text are read from the
            ``generation_config.json`` or ``config.json`` that belongs to the model, or to it.
        graph_inputs: The inputs of the graph, in graph order.
        model_path: The model.

    Attributes:
        ends: Ids of the tokens that end a text.

    Raises:
        InputError: There is no usable tokenizer, or the graph has a fixed length.
    """

    def __init__(
        self,
        tokenizer: Path,
        graph_inputs: Sequence[GraphInput],
        *,
        model_path: Path | None = None,
    ) -> None:
        self._inputs = assign_inputs(graph_inputs)
        if fixed_length(self._inputs) is not None:
            raise InputError(
                "the graph has a fixed length, so nothing can be appended",
                hint="export the model with a dynamic length",
            )
        self._tokenizer = load_tokenizer(tokenizer)
        own = tokenizer_file(tokenizer)
        self.ends = _ends([own] if model_path is None else [model_path, own])

    def extend(self, sample: Sample, token: int) -> Sample:
        """``sample`` with one token appended to its arrays, units and text."""
        added = {IDS: token, MASK: 1, PADDING: 0}
        feeds = dict(sample.feeds)
        for purpose, several in self._inputs.items():
            for each in several:
                row = feeds[each.name]
                last = int(row.flat[-1]) + (purpose == POSITIONS)
                new = np.full((*row.shape[:-1], 1), added.get(purpose, last), row.dtype)
                feeds[each.name] = np.concatenate([row, new], axis=-1)
        assert sample.units is not None and sample.facts.text is not None
        text, units = self._spelled(sample.facts.text, sample.units, token)
        return replace(
            sample, feeds=feeds, units=units, facts=structs.replace(sample.facts, text=text)
        )

    def _spelled(self, text: str, units: Units, token: int) -> tuple[str, Units]:
        alone = id_units(self._tokenizer, [token])
        special = alone.special[0]
        with panics_are_errors("cannot be decoded", place=f"token {token}"):
            before, after = (
                self._tokenizer.decode(ids, skip_special_tokens=True)
                for ids in (units.id[-_CONTEXT:], [*units.id[-_CONTEXT:], token])
            )
        piece = after[len(before) :] if after.startswith(before) and not special else ""
        start, end = (len(text), len(text) + len(piece)) if piece else (0, 0)
        grown = structs.replace(
            units,
            text=[*units.text, piece or alone.text[0]],
            id=[*units.id, token],
            start=[*units.start, start],
            end=[*units.end, end],
            special=[*units.special, special],
            sequence=[*units.sequence, *units.sequence[-1:]],
        )
        return text + piece, grown


def _ends(owners: Sequence[Path]) -> frozenset[int]:
    """``eos_token_id`` of the files that belong to the first owner; empty if there is none."""
    names = ("generation_config.json", "config.json")
    for path in (beside(owner, name) for owner in owners for name in names):
        known = read_optional_json(path).get("eos_token_id")
        if known is not None:
            ids = known if isinstance(known, list) else [known]
            if not all(isinstance(each, int) for each in ids):
                raise InputError(f"eos_token_id is {known!r}", place=str(path))
            return frozenset(ids)
    return frozenset()
