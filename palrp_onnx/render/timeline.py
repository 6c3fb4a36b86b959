"""Relevance along time: the signal, and below it a ribbon for each map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from palrp_onnx.record import PARTS, Map, Units
from palrp_onnx.render.curves import COLOURS, ticks
from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN, shorten, width
from palrp_onnx.render.palette import WHITE
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.views import MapView, label_cells

#: Kinds of units that follow each other in time.
TIMED = ("frame", "step")
#: Largest number of cells of a ribbon; more units are added up.
CELLS = 960

_LABEL = 130
_SIGNAL = 150
_ROW = 30
_GAP = 6
_SIZE = 14
_FINE = 3
_SHADE = (70, 70, 70)


def in_cells(shown: Map, most: int = CELLS) -> tuple[Map, int]:
    """A map of at most so many cells, each the sum of equally many units; and how many those are.

    Only units in time are added up.
    """
    units, count = shown.units, len(shown.relevance.total)
    each = -(-count // most)
    if units.kind not in TIMED or each <= 1:
        return shown, 1
    starts = np.arange(0, count, each)

    def summed(values: Sequence[float]) -> list[float]:
        found: list[float] = np.add.reduceat(np.asarray(values, np.float64), starts).tolist()
        return found

    spans = (f"{units.kind}s {k} to {min(k + each, count) - 1}" for k in starts.tolist())
    relevance = {name: summed(getattr(shown.relevance, name)) for name in PARTS}
    return Map(
        input=shown.input,
        units=Units(kind=units.kind, text=list(spans))
        if units.step is None
        else Units(kind=units.kind, step=units.step * each),
        relevance=structs.replace(shown.relevance, **relevance),
        sites=[structs.replace(s, relevance=summed(s.relevance)) for s in shown.sites],
    ), each


@dataclass
class Timeline:
    """The signal above a ribbon for each map, with a common axis.

    Attributes:
        maps: The maps.
        units: The units, or cells of them.
        each: Steps of a cell.
        image: The drawn signal, if it is known.
    """

    maps: Sequence[MapView]
    units: Units
    each: int
    image: Image.Image | None

    def __post_init__(self) -> None:
        self._top = 0 if self.image is None else _SIGNAL + _GAP
        self._width = INNER - _LABEL
        self.height = self._top + len(self.maps) * (_ROW + _GAP) + 26

    def draw(self, page: Scene, top: int) -> None:
        """Draw onto the page."""
        left = MARGIN + _LABEL
        if self.image is not None:
            page.write((MARGIN, top + _SIGNAL / 2), "input", _SIZE, GREY)
            self._paste(page, self.image.convert("RGB"), (left, top), _SIGNAL)
        upper = top + self._top
        for view in self.maps:
            label = shorten(view.name, _SIZE, _LABEL - 8)
            page.write((MARGIN, upper + _ROW / 2), label, _SIZE, GREY)
            cells = Image.fromarray(view.paint([view.values], view.limit))
            self._paste(page, cells, (left, upper), _ROW)
            numbers = np.array([view.values])
            label_cells(page, (left, upper), (self._width, _ROW), view.name, numbers)
            upper += _ROW + _GAP
        self._axis(page, left, upper)

    def _paste(self, page: Scene, image: Image.Image, place: tuple[int, int], height: int) -> None:
        page.picture(image, place, (self._width, height), smooth=image.height > 1)
        left, top = place
        outline = (left - 1, top - 1, left + self._width, top + height)
        page.box(outline, outline=LINE)

    def _axis(self, page: Scene, left: int, top: int) -> None:
        """Seconds, or numbers of steps."""
        count = len(self.maps[0].values)
        step = self.units.step or self.each
        label = "seconds" if self.units.step is not None else f"{self.units.kind}s"
        page.write((MARGIN, top + 8), label, _SIZE, GREY)
        for mark in ticks(0.0, count * step):
            text, across = f"{mark:.6g}", mark / (count * step) * self._width
            if across <= self._width:
                half = width(text, _SIZE) / 2
                at = left + min(across - half, self._width - 2 * half)
                page.write((at, top + 8), text, _SIZE)


# --- the signal -----------------------------------------------------------------------------------
def draw_signal(series: NDArray[np.generic], kind: str) -> Image.Image:
    """A series [units, features] as a picture: a wave, a spectrogram, or curves.

    Features of frames are frequencies, from low to high; those of steps are channels, of which the
    first seven have colours.
    """
    numbers = np.asarray(series, np.float64)
    if kind == "frame" and numbers.shape[1] > 1:
        return _spectrogram(numbers)
    fine = Image.new("RGB", (CELLS * _FINE, _SIGNAL * _FINE), WHITE)
    draw = ImageDraw.Draw(fine)
    low, high = float(numbers.min()), float(numbers.max())
    span = (high - low) or 1.0
    down = (high - numbers) / span * (fine.height - 8 * _FINE) + 4 * _FINE
    across = (np.arange(len(numbers)) + 0.5) / len(numbers) * fine.width
    for channel in reversed(range(numbers.shape[1])):
        known = numbers.shape[1] > 1 and channel < len(COLOURS)
        ink = COLOURS[channel] if known else _SHADE
        points = list(zip(across.tolist(), down[:, channel].tolist(), strict=True))
        thick = 2 * _FINE if len(numbers) < CELLS else 1
        draw.line(points if len(points) > 1 else points * 2, fill=ink, width=thick)
    return fine.reduce(_FINE)


def _spectrogram(numbers: NDArray[np.float64]) -> Image.Image:
    """Dark where there is much; the lowest frequencies are at the bottom."""
    low, high = np.percentile(numbers, [2, 99.5])
    level = np.clip((numbers - low) / ((high - low) or 1.0), 0, 1).T[::-1]
    grey = Image.fromarray(np.rint(255 - 215 * level).astype(np.uint8))
    return grey.resize((CELLS, _SIGNAL), Image.Resampling.BILINEAR).convert("RGB")
