"""Text generation: a prompt is extended by the tokens that a model predicts, or by given ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from msgspec import structs

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.conventions import assign_inputs, fixed_length
from palrp_onnx.inputs.generation import read_generation
from palrp_onnx.inputs.produced import sides
from palrp_onnx.inputs.purposes import IDS, MASK, PADDING, POSITIONS
from palrp_onnx.inputs.sample import GraphInput, Sample
from palrp_onnx.inputs.tokenizer_checks import panics_are_errors
from palrp_onnx.inputs.tokenizer_files import tokenizer_file
from palrp_onnx.inputs.tokens import encode_alone, id_units, load_tokenizer
from palrp_onnx.record import Units

#: How many preceding tokens a new one is decoded with: they decide whether it starts with a space,
#: or completes a character.
_CONTEXT = 8


class Continuation:
    """Appends tokens to samples of text, one at a time; to the decoder's side where there is one.

    Args:
        tokenizer: The tokenizer, a file or a folder; without it tokens are shown by their ids.
        graph_inputs: The inputs of the graph, in graph order.
        model_path: The model. Settings are read from the ``generation_config.json`` or
            ``config.json`` that belongs to it, or to the tokenizer.

    Attributes:
        settings: Which tokens end a text, and which are not chosen.

    Raises:
        InputError: There is no usable tokenizer, or the graph has a fixed length.
    """

    def __init__(
        self,
        tokenizer: Path | None,
        graph_inputs: Sequence[GraphInput],
        *,
        model_path: Path | None = None,
    ) -> None:
        both = sides(graph_inputs)
        self._inputs = assign_inputs(both.produced or both.source)
        self._decoder = self._inputs[IDS][0].name if both.produced else None
        if fixed_length(self._inputs) is not None:
            raise InputError(
                "the graph has a fixed length, so nothing can be appended",
                hint="export the model with a dynamic length",
            )
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        own = None if tokenizer is None else tokenizer_file(tokenizer)
        self.settings = read_generation([path for path in (model_path, own) if path is not None])

    def tokens(self, sample: Sample, text: str) -> list[int]:
        """The tokens of a text that continues ``sample``.

        A text is tokenized together with its prompt where that leaves the prompt's tokens as they
        are, so that a first space belongs to the first token.

        Raises:
            InputError: There is no tokenizer, or the text has no tokens.
        """
        if self._tokenizer is None:
            raise InputError("a text that continues another needs the tokenizer")
        prompt = "" if self._decoder else sample.facts.text or ""
        before, both = (encode_alone(self._tokenizer, each) for each in (prompt, prompt + text))
        found = both[len(before) :]
        if both[: len(before)] != before:
            found = encode_alone(self._tokenizer, text)
        if not found:
            raise InputError("the tokenizer finds no tokens in the text that continues")
        return found

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
        if self._decoder is not None:
            *read, own = sample.parts
            assert own.units is not None
            own = replace(own, units=self._grown(own.units, token)[0])
            return replace(sample, feeds=feeds, parts=(*read, own))
        assert sample.units is not None
        units, piece = self._grown(sample.units, token)
        facts, text = sample.facts, sample.facts.text
        if text is not None:
            start, end = (len(text), len(text) + len(piece)) if piece else (0, 0)
            units = structs.replace(units, start=[*units.start, start], end=[*units.end, end])
            facts = structs.replace(facts, text=text + piece)
        return replace(sample, feeds=feeds, units=units, facts=facts)

    def last(self, sample: Sample) -> str:
        """The text of the last token."""
        units = sample.parts[-1].units if self._decoder is not None else sample.units
        assert units is not None
        return units.text[-1]

    def _grown(self, units: Units, token: int) -> tuple[Units, str]:
        """``units`` with one token more, without its place in a text, and what it adds to that."""
        alone = id_units(self._tokenizer, [token])
        piece = "" if alone.special[0] else self._added(units, token)
        grown = structs.replace(
            units,
            text=[*units.text, piece or alone.text[0]],
            id=[*units.id, token],
            special=[*units.special, alone.special[0]],
            sequence=[*units.sequence, *units.sequence[-1:]],
        )
        return grown, piece

    def _added(self, units: Units, token: int) -> str:
        """What a token adds to the decoded text; empty if it changes what is before it."""
        if self._tokenizer is None:
            return ""
        with panics_are_errors("cannot be decoded", place=f"token {token}"):
            before, after = (
                self._tokenizer.decode(ids, skip_special_tokens=True)
                for ids in (units.id[-_CONTEXT:], [*units.id[-_CONTEXT:], token])
            )
        return after[len(before) :] if after.startswith(before) else ""
