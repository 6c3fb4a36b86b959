"""What must be known to read what an engine computed; an explainer file carries it along."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from numpy.typing import NDArray

from palrp_onnx.attribution import ModelFacts, Warning_
from palrp_onnx.errors import InputError, ModelError

#: Prefix of the metadata of explainer files.
PREFIX = "palrp_onnx."

Feeds = Mapping[str, NDArray[Any]]


class OutputFacts(Struct, frozen=True, kw_only=True):
    """What the graph says of the explained output.

    Attributes:
        ending: ``Softmax``, ``Sigmoid`` or ``LogSoftmax``, where it is the result of one.
        before: Name of the value that was taken of.
        followed: Which of these is taken of it, where the result of that is an output.
        inner: Whether it is a value inside the graph, and no output of the model.
        tokens: Whether its last axis runs along tokens.
        vocabularies: Rows of the tables that tokens are looked up in.
    """

    ending: str | None = None
    before: str | None = None
    followed: str | None = None
    inner: bool = False
    tokens: bool = False
    vocabularies: tuple[int, ...] = ()


class Subject(Struct, frozen=True, kw_only=True):
    """What is explained.

    Attributes:
        source: The model.
        output: Name of the explained output, and the number of its ``axes``.
        input: Name of the input whose units the record is about.
        batched: Names of the inputs whose first axis runs over the samples that are explained.
        masks: Names of the inputs that mask.
        mask: The one that masks the tokens of the output, if there is one.
        unit_mask: The one that masks the units, if there is one.
        image: Where an image has its batch, channel, row and column axis.
        patch: Height and width of the patches an image is cut into.
        mixed: Why samples of a batch are not separate, if they are not.
        crossed: Whether samples meet others only in a table of all with all, so that each can be
            explained by itself.
        measured: Whether scales are measured over all samples of a batch, so that each has to be
            explained by itself not to depend on the others.
        faults: What is wrong with the file's numbers.
        facts: What the graph says of the output.
    """

    source: ModelFacts
    output: str
    axes: int
    input: str
    batched: tuple[str, ...]
    masks: tuple[str, ...]
    mask: str | None
    unit_mask: str | None
    image: tuple[int, int, int, int] | None
    patch: tuple[int, int] | None
    mixed: str | None
    crossed: bool = False
    measured: bool = False
    faults: tuple[Warning_, ...] = ()
    facts: OutputFacts = OutputFacts()

    def refuse_mixing(self, samples: int) -> None:
        """Refuse a batch whose samples are not separate."""
        if samples > 1 and (self.mixed is not None or self.crossed):
            reason = self.mixed or "two batches meet in a table of all with all"
            raise InputError(
                f"The model mixes the samples of a batch: {reason}",
                place=f"{samples} entries along the first axis of input {self.input!r}",
                hint="Explain samples singly. If the first axis of this input is no batch, the "
                "file cannot be explained.",
            )

    def output_mask(self, feeds: Feeds, length: int) -> NDArray[Any] | None:
        """The attention mask [B, T] of the output's tokens, where the graph has one."""
        return _of_length(feeds, self.mask, length)

    def units_mask(self, feeds: Feeds, length: int) -> NDArray[Any] | None:
        """The attention mask [B, units], where the graph has one."""
        return _of_length(feeds, self.unit_mask, length)


def _of_length(feeds: Feeds, name: str | None, length: int) -> NDArray[Any] | None:
    array = None if name is None else feeds[name]
    return array if array is not None and array.shape[1:] == (length,) else None


class Manifest(Subject, frozen=True, kw_only=True):
    """What an explainer file says about itself, one metadata property a field.

    Attributes:
        version: Of the program that compiled it.
        method: Which relevance it computes.
        positions: How sinks reduce to one number a unit.
        sites: Kind, layer and part of every row of ``relevance_sites``.
        unaligned: Names of sites that do not run over the units.
        ledger: Entry of every column of ``relevance_ledger``.
        roles: Roles of values that were given rather than found.
    """

    version: str
    method: str
    positions: str
    sites: tuple[tuple[str, int, str], ...]
    unaligned: tuple[str, ...]
    ledger: tuple[str, ...]
    roles: dict[str, str]

    def properties(self) -> dict[str, str]:
        """As metadata: text as it is, everything else as JSON."""
        fields, texts = msgspec.to_builtins(self), self._texts()
        return {
            PREFIX + name: value if name in texts else json.dumps(value)
            for name, value in fields.items()
        }

    @classmethod
    def _texts(cls) -> set[str]:
        """Names of the fields that are text and never left out."""
        return {f.name for f in msgspec.structs.fields(cls) if f.type is str}

    @classmethod
    def read(cls, properties: Mapping[str, str]) -> Manifest | None:
        """The manifest among a model's metadata; ``None`` where it is no explainer.

        Raises:
            ModelError: It is damaged, or of another version of the format.
        """
        mine = {k.removeprefix(PREFIX): v for k, v in properties.items() if k.startswith(PREFIX)}
        if not mine:
            return None
        texts = cls._texts()
        try:
            fields = {k: v if k in texts else json.loads(v) for k, v in mine.items()}
            return msgspec.convert(fields, cls)
        except (ValueError, RecursionError) as error:
            raise ModelError(
                "The explainer's metadata cannot be read",
                place=f"metadata {PREFIX}*",
                hint=f"Compile the model again. {error}",
            ) from error
