"""Relevance along time: the signal, and below it a ribbon for each map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from palrp_onnx.record import Relevance, Units
from palrp_onnx.render.curves import COLOURS, ticks
from palrp_onnx.render.page import GREY, INNER, LINE, MARGIN, shorten, width, write
from palrp_onnx.render.palette import WHITE, colours

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


def merged(relevance: Relevance, most: int = CELLS) -> tuple[Relevance, int]:
    """At most so many cells, each the sum of equally many units; and how many those are."""
    count = len(relevance.total)
    each = max(-(-count // most), 1)
    starts = np.arange(0, count, each)
    parts = (relevance.content, relevance.position, relevance.total)
    if each > 1:
        parts = tuple(np.add.reduceat(np.array(part), starts).tolist() for part in parts)
    content, position, total = parts
    return Relevance(content=content, position=position, total=total), each


@dataclass
class Timeline:
    """The signal above ribbons of content, position and total, with a common axis.

    Attributes:
        relevance: One number a cell.
        units: The units.
        each: Units of a cell.
        limit: The number that gets the full colour.
        image: The drawn signal, if it is known.
        reduction: How sinks were reduced to one number a unit.
    """

    relevance: Relevance
    units: Units
    each: int
    limit: float
    image: Image.Image | None
    reduction: str

    def __post_init__(self) -> None:
        self._rows = [
            ("content", self.relevance.content),
            (f"position  ({self.reduction})", self.relevance.position),
            ("total", self.relevance.total),
        ]
        self._top = 0 if self.image is None else _SIGNAL + _GAP
        self._width = INNER - _LABEL
        self.height = self._top + len(self._rows) * (_ROW + _GAP) + 26

    def draw(self, page: Image.Image, top: int) -> None:
        """Draw onto the page."""
        left = MARGIN + _LABEL
        if self.image is not None:
            write(page, (MARGIN, top + _SIGNAL / 2), "input", _SIZE, GREY)
            self._paste(page, self.image.convert("RGB"), (left, top), _SIGNAL)
        upper = top + self._top
        for name, values in self._rows:
            label = shorten(name, _SIZE, _LABEL - 8)
            write(page, (MARGIN, upper + _ROW / 2), label, _SIZE, GREY)
            cells = Image.fromarray(colours(np.array([values]), self.limit))
            self._paste(page, cells, (left, upper), _ROW)
            upper += _ROW + _GAP
        self._axis(page, left, upper)

    def _paste(
        self, page: Image.Image, image: Image.Image, place: tuple[int, int], height: int
    ) -> None:
        how = Image.Resampling.NEAREST if image.height == 1 else Image.Resampling.BILINEAR
        page.paste(image.resize((self._width, height), how), place)
        left, top = place
        outline = (left - 1, top - 1, left + self._width, top + height)
        ImageDraw.Draw(page).rectangle(outline, outline=LINE)

    def _axis(self, page: Image.Image, left: int, top: int) -> None:
        """Seconds, or numbers of steps."""
        count = len(self.relevance.total) * self.each
        step = self.units.step or 1.0
        unit = "s" if self.units.step is not None else self.units.kind
        marks = [mark for mark in ticks(0.0, count * step) if mark <= count * step]
        for place, mark in enumerate(marks):
            across = left + mark / (count * step) * self._width
            text = f"{mark:.4g}" + (f" {unit}" if place == len(marks) - 1 else "")
            room = left + self._width - width(text, _SIZE)
            write(page, (min(across - width(f"{mark:.4g}", _SIZE) / 2, room), top + 8), text, _SIZE)


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
