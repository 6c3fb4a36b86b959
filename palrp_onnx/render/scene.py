"""What is drawn where: the marks of a picture, which files of PNG and SVG only draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from palrp_onnx.render.palette import BLACK, RGB
from palrp_onnx.render.shaping import Shaped, shape

#: From the middle of a line down to its base line, for a size of one pixel.
_BASE = 0.346


@dataclass(frozen=True)
class Span:
    """A word of a line.

    Attributes:
        shaped: Its text.
        left: Its left edge.
        inks: End of each part in the text, its colour, and its title.
    """

    shaped: Shaped
    left: int
    inks: tuple[tuple[int, RGB, str], ...]


@dataclass(frozen=True)
class WordLine:
    """Words on one base line; what is upright is rotated about its left end, to read upwards."""

    base: int
    spans: tuple[Span, ...]
    upright: bool = False


@dataclass(frozen=True)
class Rectangle:
    """A rectangle with both its edges, in whole pixels; its title is shown where files can."""

    left: int
    top: int
    right: int
    bottom: int
    fill: RGB | None = None
    outline: RGB | None = None
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """An image that is scaled to a rectangle; cells stay sharp unless it is smooth."""

    image: Image.Image
    left: int
    top: int
    width: int
    height: int
    smooth: bool = False


@dataclass(frozen=True)
class Stroke:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    ink: RGB
    thick: int


@dataclass(frozen=True)
class Polygon:
    """A filled polygon."""

    points: tuple[tuple[float, float], ...]
    fill: RGB


Mark = WordLine | Rectangle | Picture | Stroke | Polygon


@dataclass
class Scene:
    """Marks, the later ones above the earlier ones."""

    marks: list[Mark] = field(default_factory=list)

    def write(
        self,
        place: tuple[float, float],
        text: str,
        size: int,
        ink: RGB = BLACK,
        *,
        upright: bool = False,
    ) -> None:
        """One line of text; ``place`` is the middle of its left edge, or of its lower one."""
        if text:
            left, middle = place
            down = size * _BASE
            shaped = shape(text, size)
            inks = ((len(text), ink, ""),)
            if upright:
                span = Span(shaped, round(left + down), inks)
                self.marks.append(WordLine(round(middle), (span,), upright=True))
            else:
                self.marks.append(
                    WordLine(round(middle + down), (Span(shaped, round(left), inks),))
                )

    def words(self, middle: float, size: int, spans: Sequence[Span]) -> None:
        """A line of words that are placed already."""
        self.marks.append(WordLine(round(middle + size * _BASE), tuple(spans)))

    def box(
        self,
        edges: tuple[float, float, float, float],
        fill: RGB | None = None,
        outline: RGB | None = None,
        title: str = "",
    ) -> None:
        """A rectangle: left, top, right and bottom, with both edges."""
        left, top, right, bottom = map(round, edges)
        self.marks.append(Rectangle(left, top, right, bottom, fill, outline, title))

    def picture(
        self,
        image: Image.Image,
        place: tuple[float, float],
        size: tuple[int, int],
        *,
        smooth: bool = False,
    ) -> None:
        """An image, scaled to a width and a height."""
        left, top = map(round, place)
        self.marks.append(Picture(image, left, top, *size, smooth))

    def stroke(self, points: Sequence[tuple[float, float]], ink: RGB, thick: int = 1) -> None:
        """A line through points."""
        self.marks.append(Stroke(tuple(points), ink, thick))

    def polygon(self, points: Sequence[tuple[float, float]], fill: RGB) -> None:
        """A filled polygon."""
        self.marks.append(Polygon(tuple(points), fill))

    @property
    def missing(self) -> str:
        """Characters that no font has, each once."""
        spans = (span for mark in self.marks if isinstance(mark, WordLine) for span in mark.spans)
        return "".join(dict.fromkeys("".join(span.shaped.missing for span in spans)))
