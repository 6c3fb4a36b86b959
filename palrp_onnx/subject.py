"""The subject of an explanation: an output and an input of a model, and facts about both."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from msgspec import Struct, structs

from palrp_onnx.errors import InputError
from palrp_onnx.record import ModelFacts, UnitKind, Warning_
from palrp_onnx.types import Array, Feeds


class OutputFacts(Struct, frozen=True, kw_only=True):
    """Facts about the explained output, from the graph.

    Attributes:
        ending: ``Softmax``, ``Sigmoid`` or ``LogSoftmax``, if it is the result of one.
        before: Name of the input of that operation.
        followed: Which of these operations reads it, if the result is an output of the model.
        blended: Whether it is made of probabilities alone, and not itself one of these results.
        inner: Whether it is an intermediate value, and no output of the model.
        tokens: Whether its last axis runs along tokens.
        vocabularies: Number of rows of each table in which tokens are looked up.
        shape: Its shape in the trial run, samples first.
        sequence: Whether it has an axis of tokens before its last axis.
        choices: Whether its last axis runs along the first of several axes of units.
        causal: Whether attention looks at earlier tokens only; ``None`` where nothing shows it.
        siblings: Other outputs of the same axes, as the ends of answers are of their starts.
        second: Whether the first of these comes before this output.
        pooled: Other outputs with one vector for each sample.
        ends: Names of the two outputs that it joins: where an answer starts, and where it ends.
        boxes: The output that holds four numbers for each of its places, if there is one.
        along: The input whose tokens it has an entry for, where that is not the explained one: the
            decoder's, where an encoder reads another.
    """

    ending: str | None = None
    before: str | None = None
    followed: str | None = None
    blended: bool = False
    inner: bool = False
    tokens: bool = False
    vocabularies: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    sequence: bool = False
    choices: bool = False
    causal: bool | None = None
    siblings: tuple[str, ...] = ()
    second: bool = False
    pooled: tuple[str, ...] = ()
    boxes: str | None = None
    along: str | None = None
    ends: tuple[str, str] | None = None

    @property
    def open(self) -> bool:
        """Whether the graph does not show that its entries are scores, as of its last layer."""
        return self.inner or self.blended


class ImageAxes(NamedTuple):
    """Which axes of an input are those of an image, or of a video's ``pictures``."""

    batch: int
    channels: int
    rows: int
    columns: int
    pictures: int | None = None


class FurtherInput(Struct, frozen=True, kw_only=True):
    """What a subject is of another explained input: see :class:`Subject`."""

    input: str
    kind: UnitKind
    unit_mask: str | None
    image: ImageAxes | None
    patch: tuple[int, ...] | None
    rows: int | None


class Subject(Struct, frozen=True, kw_only=True):
    """The subject of an explanation.

    Attributes:
        source: The model.
        output: Name of the explained output.
        axes: Number of axes of the output as :meth:`by_sample` returns it.
        input: Name of the explained input; its units are those of the record.
        kind: What its units are, as far as the graph shows: frames of sound are steps.
        further: The other explained inputs, each with a map of its own.
        columns: The one of them whose samples the last axis of the output runs along.
        batched: Axis that runs over the explained samples, of every input that has one. Where the
            explained input has none, it is one sample.
        output_batch: Axis of the output that runs over these samples; ``None`` where the output is
            of one sample.
        masks: Names of the inputs that are masks.
        mask: The mask of the output's tokens, if there is one.
        unit_mask: The mask of the units, if there is one.
        hiding: Names of those of the two that hide a token where they are not zero.
        image: Axes of the input, where it is an image.
        patch: Height and width of the patches of an image; before them the number of pictures that
            a patch of a video has, if it may have several.
        rows: Axis of the input along which it has samples that are not those explained, as the
            texts that one image is compared with. They are among its units.
        mixed: Why samples of a batch are not separate, if they are not.
        crossed: Whether samples are combined only in a table of all pairs, are between tokens
            along an axis, or share an input that gets relevance, so that each has to be explained
            alone.
        measured: Whether scales are measured over all samples of a batch, or rows of all of them
            are selected into one axis, so that each has to be explained alone to be independent of
            the others.
        tables: Number of rows of the table that an input is looked up in, by its name.
        faults: Warnings about the numbers in the file.
        facts: Facts about the output.
    """

    source: ModelFacts
    output: str
    axes: int
    input: str
    batched: dict[str, int]
    output_batch: int | None = 0
    masks: tuple[str, ...]
    mask: str | None
    unit_mask: str | None
    image: ImageAxes | None
    patch: tuple[int, ...] | None
    mixed: str | None
    crossed: bool = False
    measured: bool = False
    hiding: tuple[str, ...] = ()
    tables: dict[str, int] = {}
    faults: tuple[Warning_, ...] = ()
    facts: OutputFacts = OutputFacts()
    rows: int | None = None
    kind: UnitKind = "token"
    further: tuple[FurtherInput, ...] = ()
    columns: str | None = None

    @property
    def views(self) -> tuple[Self, ...]:
        """The subject as it is for each explained input, the first one first."""
        rest = (structs.replace(self, **structs.asdict(each)) for each in self.further)
        return self, *rest

    @property
    def along(self) -> Self | None:
        """The view of the input that places of the output are of; ``None``: not explained."""
        name = self.facts.along or self.input
        return next((view for view in self.views if view.input == name), None)

    def samples(self, feeds: Feeds) -> int:
        """Number of samples.

        Raises:
            InputError: Inputs have different numbers of them.
        """
        found = {name: int(feeds[name].shape[axis]) for name, axis in self.batched.items()}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in found.items())
            raise InputError(f"The batch sizes differ: {listed}")
        return found.get(self.input, 1)

    def one(self, feeds: Feeds, row: int) -> dict[str, Array]:
        """The arrays of one sample."""
        return {
            name: array.take([row], axis) if (axis := self.batched.get(name)) is not None else array
            for name, array in feeds.items()
        }

    def by_sample(self, output: Array) -> Array:
        """The output with the axis of samples first [B, …]."""
        axis = self.output_batch
        return output[None] if axis is None else np.moveaxis(output, axis, 0)

    def in_place(self, rows: Array) -> Array:
        """An array [B, …] in the shape of the output: the inverse of :meth:`by_sample`."""
        axis = self.output_batch
        return rows[0] if axis is None else np.moveaxis(rows, 0, axis)

    def mask_axis(self, name: str) -> int | None:
        """The axis of a mask that runs over samples; ``None`` where there is one sample."""
        return self.batched.get(name, 0) if self.batched else None

    def refuse_mixing(self, samples: int) -> None:
        """Refuse a batch whose samples are not separate."""
        if samples > 1 and (self.mixed is not None or self.crossed):
            reason = self.mixed or "two batches meet in a table, or samples share an input"
            raise InputError(
                f"The model mixes the samples of a batch: {reason}",
                place=f"{samples} entries along the first axis of input {self.input!r}",
                hint="Explain samples one at a time. If the first axis of this input is no batch, "
                "the file cannot be explained.",
            )

    def check_filled(self, feeds: Feeds) -> None:
        """Refuse explained inputs without entries, such as texts of no tokens.

        Further inputs of real numbers may have none, as a cache that is still empty.

        Raises:
            InputError: There is such an input.
        """
        for view in self.views:
            array = feeds[view.input]
            shape, may_be = list(array.shape), view.input != self.input and array.dtype.kind == "f"
            if 0 in shape and not may_be:
                raise InputError(
                    f"There is nothing to explain: the shape is {shape}",
                    place=f"input {view.input}",
                )

    def check_rows(self, feeds: Feeds) -> None:
        """Refuse ids that are rows of no table, which not every device reports.

        Raises:
            InputError: There is such an id.
        """
        for name, rows in self.tables.items():
            outside = (feeds[name] < -rows) | (feeds[name] >= rows)
            if outside.any():
                number = feeds[name][outside].ravel()[0]
                raise InputError(
                    f"{number} is not in the table that is looked up, which has {rows} rows",
                    place=f"input {name}",
                    hint="Is the tokenizer that of this model?",
                )

    def output_mask(self, feeds: Feeds, length: int) -> Array | None:
        """The mask [B, T] of the output's tokens, not zero at kept ones, if the graph has one."""
        return self._of_length(feeds, self.mask, length)

    def units_mask(self, feeds: Feeds, length: int) -> Array | None:
        """The mask [B, units], not zero at kept ones, if the graph has one."""
        return self._of_length(feeds, self.unit_mask, length)

    def _of_length(self, feeds: Feeds, name: str | None, length: int) -> Array | None:
        if name is None:
            return None
        if self.rows is not None and name == self.unit_mask:
            array = feeds[name].reshape(1, -1)
            return None if array.shape[1] != length else self._kept(name, array)
        axis = self.mask_axis(name)
        array = feeds[name][None] if axis is None else np.moveaxis(feeds[name], axis, 0)
        if array.shape[1:] != (length,):
            return None
        return self._kept(name, array)

    def _kept(self, name: str, mask: Array) -> Array:
        """A mask that is not zero at kept tokens."""
        return mask == 0 if name in self.hiding else mask
