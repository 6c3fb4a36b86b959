"""The two sides of a sequence-to-sequence graph: what is read, and what was produced so far."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from palrp_onnx.errors import InputError, RoleError
from palrp_onnx.inputs.beside import beside
from palrp_onnx.inputs.conventions import assign_inputs, token_feeds
from palrp_onnx.inputs.generation import FILES, read_generation
from palrp_onnx.inputs.purposes import IDS
from palrp_onnx.inputs.sample import Feeds, GraphInput, Sample
from palrp_onnx.inputs.tokens import encode_alone, id_units, load_tokenizer
from palrp_onnx.model.signature import known_of, with_values
from palrp_onnx.record import InputFacts

if TYPE_CHECKING:
    import onnx_ir as ir

#: What was found of a graph; every sample that is read asks for it.
_FOUND: WeakKeyDictionary[ir.Graph, str | None] = WeakKeyDictionary()


@dataclass(frozen=True)
class Sides:
    """The inputs of a graph.

    Attributes:
        source: Those that are read: of other graphs, all.
        produced: Those of the tokens that were produced so far: ids, and what has their length.
    """

    source: tuple[GraphInput, ...]
    produced: tuple[GraphInput, ...] = ()


def sides(graph_inputs: Sequence[GraphInput]) -> Sides:
    """Which inputs belong to the decoder: those as long as its ids, by their declared lengths."""
    name = decoder_input(graph_inputs)
    ids = next((each for each in graph_inputs if each.name == name), None)
    if ids is None:
        return Sides(tuple(graph_inputs))
    length = ids.shape[-1] if ids.shape else None

    def theirs(each: GraphInput) -> bool:
        return each.name == name or (length is not None and (each.shape or (None,))[-1] == length)

    return Sides(
        tuple(each for each in graph_inputs if not theirs(each)),
        tuple(filter(theirs, graph_inputs)),
    )


def decoder_input(graph_inputs: Sequence[GraphInput]) -> str | None:
    """Name of the input with the tokens of a decoder that reads an encoder; else ``None``."""
    if (known := known_of(graph_inputs)) is not None:
        return known.produced
    import onnx_ir as ir

    values = [each.value for each in with_values(graph_inputs) if each.value is not None]
    graph = values[0].graph if values else None
    if not isinstance(graph, ir.Graph):
        return None
    if graph not in _FOUND:
        _FOUND[graph] = _decoder_input(graph)
    return _FOUND[graph]


def _decoder_input(graph: ir.Graph) -> str | None:
    from palrp_onnx.analysis.inputs import input_roles
    from palrp_onnx.analysis.produced import produced_input

    try:
        return produced_input(graph, input_roles(graph))
    except RoleError:  # reported where the graph is explained
        return None


class Beginning:
    """Adds the tokens that every text of a decoder begins with.

    They are ``decoder_start_token_id`` and the tokens that are forced after it, of
    ``generation_config.json`` or ``config.json``.

    Args:
        produced: The decoder's inputs.
        model_path: The model.
        tokenizer: The tokenizer, to show and read tokens as text.
        start: The text of other tokens to begin with.

    Raises:
        InputError: ``start`` needs a tokenizer, or a file is damaged.
    """

    def __init__(
        self,
        produced: Sequence[GraphInput],
        *,
        model_path: Path,
        tokenizer: Path | None,
        start: str | None = None,
    ) -> None:
        self._inputs = assign_inputs(produced)
        self._place = str(beside(model_path, FILES[0]))
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
        if start is None:
            self._ids = list(read_generation([model_path]).start)
        elif self._tokenizer is None:
            raise InputError("a text to begin with needs the tokenizer", place=start)
        else:
            self._ids = encode_alone(self._tokenizer, start)

    @property
    def name(self) -> str:
        """Name of the input with the decoder's tokens."""
        return self._inputs[IDS][0].name

    def of(self, sample: Sample) -> Sample:
        """``sample`` with the first tokens.

        Raises:
            InputError: Nothing says what they are.
        """
        if not self._ids:
            raise InputError(
                "nothing says which token the decoder begins with",
                place=self._place,
                hint="give decoder_start_token_id there, or say it: --start TEXT",
            )
        feeds = token_feeds(self._inputs, self._ids, place=self._place)
        return self._joined(sample, feeds, self._ids)

    def shown(self, sample: Sample) -> Sample:
        """``sample``, which holds the decoder's tokens, with their texts if it is one row."""
        ids = sample.feeds[self.name]
        return self._joined(sample, {}, ids.reshape(-1).tolist()) if len(ids) == 1 else sample

    def _joined(self, sample: Sample, feeds: Feeds, ids: list[int]) -> Sample:
        own = Sample(
            id=sample.id,
            kind="tensors",
            feeds=feeds,
            facts=InputFacts(kind="tensors"),
            units=id_units(self._tokenizer, ids),
            subject=self.name,
        )
        parts = (*(sample.parts or (sample,)), own)
        return replace(sample, feeds={**sample.feeds, **feeds}, parts=parts)


def read_both(
    read: Callable[[Sequence[GraphInput]], Sample],
    graph_inputs: Sequence[GraphInput],
    *,
    held: Collection[str],
    model_path: Path,
    tokenizer: Path | None,
    start: str | None = None,
) -> Sample:
    """Read a sample, with what the decoder begins with where the graph has an encoder.

    Args:
        read: Reads the arrays of these inputs.
        graph_inputs: The inputs of the graph.
        held: Names of arrays that are given; those of the decoder's tokens are taken as they are.
        model_path: The model.
        tokenizer: The tokenizer, to show tokens as text.
        start: The text that the decoder begins with, instead of what the model's files say.

    Raises:
        InputError: The files cannot be used, or nothing says what the decoder begins with.
    """
    both = sides(graph_inputs)
    if not both.produced:
        if start is not None:
            raise InputError("only a decoder with an encoder begins with a text", place=start)
        return read(graph_inputs)
    begin = Beginning(both.produced, model_path=model_path, tokenizer=tokenizer, start=start)
    given = begin.name in held
    sample = read(graph_inputs if given else both.source)
    if sample.windows:
        raise whole_source(sample.id)
    return begin.shown(sample) if given else begin.of(sample)


def whole_source(id: str) -> InputError:
    """The error for windows of what an encoder reads."""
    message = "a decoder reads a text as a whole, so that windows of it cannot be joined"
    return InputError(message, place=id)
