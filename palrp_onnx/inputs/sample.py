"""The result of every input reader: arrays for the graph, and the units that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
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
class Sample:
    """One input file, ready to run.

    Arrays of ``feeds`` have a leading batch axis. ``units`` are those of its row, or ``None`` if
    the reader does not know them (raw tensors, patches): the explainer then derives them.
    ``others`` are the units of further inputs by name, where they are known.
    ``image`` is the original, upright, in RGB, and ``geometry`` the part of it that the network
    saw; both are ``None`` unless ``kind`` is "image".
    """

    id: str
    kind: Literal["text", "image", "tensors"]
    feeds: Feeds
    facts: InputFacts
    units: Units | None = None
    others: Mapping[str, Units] = field(default_factory=dict)
    warnings: tuple[Warning_, ...] = field(default=())
    geometry: ImageGeometry | None = None
    image: Image.Image | None = None

    @property
    def box(self) -> Box | None:
        """The part of ``image`` that the network saw, if there is an image."""
        return None if self.geometry is None else self.geometry.box
