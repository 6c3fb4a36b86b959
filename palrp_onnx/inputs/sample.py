"""The result of every input reader: arrays for the graph, and the units that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from palrp_onnx.model.signature import GraphInput as GraphInput
from palrp_onnx.record import InputFacts, Units, Warning_
from palrp_onnx.types import Box

if TYPE_CHECKING:
    from PIL import Image

Feeds = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class ImageGeometry:
    """Which part of the original image the network saw.

    ``size`` is (width, height) of the original, turned upright by its EXIF orientation. ``box`` is
    in pixels of the original; it extends beyond the image if the crop was padded.
    """

    size: tuple[int, int]
    box: Box


@dataclass(frozen=True)
class TextWindow:
    """A part of a text as a row of its own; ``places`` are its units among those of the text."""

    feeds: Feeds
    units: Units
    places: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One input file, ready to run.

    Arrays of ``feeds`` have a leading batch axis. ``units`` are those of its row of the input
    ``subject``, or ``None`` if the reader does not know them (raw tensors, patches): the explainer
    then derives them. If that input got several texts as its ``rows``, they are the units of all.
    ``image`` is the original, upright, in RGB, and ``geometry`` the part of it that the network
    saw; both are ``None`` unless ``kind`` is "image". ``parts`` are the samples of several files
    that were joined to this one. ``stacked`` are the units of every row, where several texts were
    joined to one batch. ``windows`` are the parts of a text that is longer than the model, of which
    ``feeds`` holds the first. ``columns`` are names that were given for the units of an input, or
    of the only one that has as many (under no name). ``sound`` is the input that the step of the
    facts is of, where that is not ``subject``.
    """

    id: str
    kind: Literal["text", "image", "sound", "table", "tensors", "several"]
    feeds: Feeds
    facts: InputFacts
    units: Units | None = None
    warnings: tuple[Warning_, ...] = field(default=())
    geometry: ImageGeometry | None = None
    image: Image.Image | None = None
    subject: str | None = None
    rows: tuple[str, ...] = ()
    parts: tuple[Sample, ...] = ()
    stacked: tuple[Units, ...] = ()
    windows: tuple[TextWindow, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sound: str | None = None

    def alone(self, window: TextWindow) -> Sample:
        """One window as a text of its own."""
        return replace(self, feeds=window.feeds, units=window.units, warnings=(), windows=())

    def units_of(self, name: str, row: int = 0) -> Units | None:
        """The units of a row of an input of the graph, if the reader knows them."""
        own = next((p for p in self.parts if p.subject == name), None)
        if not self.parts and self.subject in (name, None):
            own = self
        if own is None:
            return None
        return own.stacked[row] if own.stacked else own.units

    def step_of(self, name: str) -> float | None:
        """Seconds from one entry of the time axis of an input to the next, if it is sound."""
        own = {part.sound or part.subject: part.facts.step for part in self.parts or (self,)}
        return own.get(name, own.get(None))

    def rows_of(self, name: str) -> tuple[str, ...]:
        """The texts that are the rows of an input."""
        return next((p.rows for p in (self, *self.parts) if p.subject == name), ())

    @property
    def texts(self) -> bool:
        """Whether several texts are its rows, and may be its labels."""
        return any(part.rows for part in (self, *self.parts))

    def row(self, name: str, row: int) -> Sample:
        """The sample with the units of one of the texts that are the rows of an input."""
        if self.parts:
            return replace(self, parts=tuple(part.row(name, row) for part in self.parts))
        if self.subject != name or not self.rows or self.units is None:
            return self
        length = len(self.units.text) // len(self.rows)
        own = slice(row * length, (row + 1) * length)
        lists = ("text", "id", "start", "end", "special", "unknown")
        units = structs.replace(self.units, **{k: getattr(self.units, k)[own] for k in lists})
        return replace(self, units=units, rows=self.rows[row : row + 1])

    def series(self, name: str, units: int) -> NDArray[np.generic] | None:
        """The one row of an input as [units, features], if one axis has this length."""
        array = self.feeds.get(name)
        if array is None or not array.ndim or len(array) != 1 or array.dtype.kind != "f":
            return None
        along = [k for k, size in enumerate(array.shape) if k and size == units]
        return np.moveaxis(array, along[0], 0).reshape(units, -1) if len(along) == 1 else None

    def picture_of(self, name: str) -> tuple[Image.Image | None, Box | None]:
        """The original image of an input, and the part of it that the network saw."""
        own = next((p for p in (*self.parts, self) if p.subject == name), None)
        return (None, None) if own is None else (own.image, own.box)

    @property
    def box(self) -> Box | None:
        """The part of ``image`` that the network saw, if there is an image."""
        return None if self.geometry is None else self.geometry.box
