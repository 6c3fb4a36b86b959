"""What is explained of a model, and what readers of the result must know of it."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from palrp_onnx.errors import InputError
from palrp_onnx.record import ModelFacts, Warning_
from palrp_onnx.types import Array, Feeds


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


class ImageAxes(NamedTuple):
    """Which axes of an input are those of an image."""

    batch: int
    channels: int
    rows: int
    columns: int


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
        image: Axes of the input, where it is an image.
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
    image: ImageAxes | None
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

    def output_mask(self, feeds: Feeds, length: int) -> Array | None:
        """The attention mask [B, T] of the output's tokens, where the graph has one."""
        return _of_length(feeds, self.mask, length)

    def units_mask(self, feeds: Feeds, length: int) -> Array | None:
        """The attention mask [B, units], where the graph has one."""
        return _of_length(feeds, self.unit_mask, length)


def _of_length(feeds: Feeds, name: str | None, length: int) -> Array | None:
    array = None if name is None else feeds[name]
    return array if array is not None and array.shape[1:] == (length,) else None
