"""One line of text as glyphs: HarfBuzz chooses and places them, and fills their outlines."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise

import uharfbuzz as hb
from PIL import Image

from palrp_onnx.render.bidi import levels, visual
from palrp_onnx.render.fonts import FINE, Font, bundled, clusters, font_of

#: Han characters look as in Chinese, unless the text has Japanese or Korean letters.
_KANA, _HANGUL = ("\u3040", "\u30ff"), ("\uac00", "\ud7a3")


@dataclass(frozen=True)
class Glyph:
    """A glyph of a font; its origin in pixels, upwards from the base line."""

    font: Font
    number: int
    x: float
    y: float


@dataclass(frozen=True)
class Shaped:
    """A shaped line.

    Attributes:
        text: The text, in the order of reading.
        size: Size in pixels.
        glyphs: Its glyphs.
        edges: Left and right edge of every character; those of a ligature share its width.
        width: Width of the line.
        missing: Characters that no font has; boxes are drawn for them.
        backwards: Whether it is part of a line that runs from right to left.
    """

    text: str
    size: int
    glyphs: tuple[Glyph, ...]
    edges: tuple[tuple[float, float], ...]
    width: float
    missing: str
    backwards: bool = False


@lru_cache(maxsize=20_000)
def shape(text: str, size: int, base: int | None = None) -> Shaped:
    """Shape a line; ``base`` is 1 in a paragraph that runs from right to left."""
    ranks = levels(text, base)
    runs = list(_runs(text, ranks))
    language = _language(text)
    glyphs: list[Glyph] = []
    edges = [(0.0, 0.0)] * len(text)
    left = 0.0
    for place in visual([ranks[start] for start, _, _ in runs]):
        start, end, font = runs[place]
        part, backwards = (text, start, end), ranks[start] % 2
        left = _run(part, font or bundled(), size, backwards, language, left, glyphs, edges)
    missing = "".join(text[start:end] for start, end, font in runs if font is None)
    return Shaped(text, size, tuple(glyphs), tuple(edges), left, missing, base == 1)


def _runs(text: str, ranks: Sequence[int]) -> Iterator[tuple[int, int, Font | None]]:
    """Start and end of parts with one direction and one font."""
    parts, place = [], 0
    for cluster in clusters(text):
        font = font_of(cluster)
        # Where no font has a character with its mark, each has a font of its own.
        for part in [cluster] if font else cluster:
            parts.append((place, place + len(part), ranks[place], font or font_of(part)))
            place += len(part)
    for (_, font), group in groupby(parts, key=lambda part: part[2:]):
        joined = list(group)
        yield joined[0][0], joined[-1][1], font


def _run(
    part: tuple[str, int, int],
    font: Font,
    size: int,
    backwards: int,
    language: str,
    left: float,
    glyphs: list[Glyph],
    edges: list[tuple[float, float]],
) -> float:
    """Add the glyphs and edges of one run; returns where it ends."""
    text, start, end = part
    buffer = hb.Buffer()
    buffer.add_str(text, start, end - start)
    buffer.guess_segment_properties()
    buffer.direction = "rtl" if backwards else "ltr"
    buffer.language = language
    hb.shape(font.sized(size), buffer)
    widths: dict[int, tuple[float, float]] = {}
    for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        x, y = left + place.x_offset / FINE, place.y_offset / FINE
        glyphs.append(Glyph(font, info.codepoint, x, y))
        first, _ = widths.get(info.cluster, (left, left))
        left += place.x_advance / FINE
        widths[info.cluster] = (first, left)
    for cluster, following in pairwise([*sorted(widths), end]):
        low, high = widths[cluster]
        each = (high - low) / (following - cluster)
        for k in range(following - cluster):
            near = high - (k + 1) * each if backwards else low + k * each
            edges[cluster + k] = (near, near + each)
    return left


def _language(text: str) -> str:
    for language, (low, high) in (("ja", _KANA), ("ko", _HANGUL)):
        if any(low <= character <= high for character in text):
            return language
    return "zh-hans"


@lru_cache(maxsize=5_000)
def mask(shaped: Shaped) -> tuple[Image.Image, int, int]:
    """Coverage of the outlines, and where its left and upper edges are from the origin."""
    raster = hb.RasterDraw()
    raster.scale_factor = (FINE, FINE)
    for glyph in shaped.glyphs:
        if not _coloured(glyph):
            raster.transform = (1, 0, 0, 1, glyph.x * FINE, glyph.y * FINE)
            raster.draw_glyph(glyph.font.sized(shaped.size), glyph.number)
    drawn = raster.render()
    extents = drawn.extents
    if not (extents.width and extents.height):
        return Image.new("L", (0, 0)), 0, 0
    area = (extents.width, extents.height)
    image = Image.frombytes("L", area, bytes(drawn.buffer), "raw", "L", extents.stride, -1)
    return image, extents.x_origin, -extents.y_origin - extents.height


def pictures(shaped: Shaped) -> Iterator[tuple[Image.Image, int, int]]:
    """Colour glyphs, and where their left and upper edges are from the origin."""
    for glyph in filter(_coloured, shaped.glyphs):
        font = glyph.font.sized(shaped.size)
        extents = font.get_glyph_extents(glyph.number)
        if extents is None or not (extents.width and extents.height):
            continue
        area = (math.ceil(extents.width / FINE), math.ceil(-extents.height / FINE))
        image = _picture(font, glyph.number, area)
        if image is not None:
            left, top = glyph.x + extents.x_bearing / FINE, glyph.y + extents.y_bearing / FINE
            yield image, round(left), round(-top)


def _coloured(glyph: Glyph) -> bool:
    face = glyph.font.face
    return bool(face.has_color_png or face.has_color_paint or face.has_color_layers)


def _picture(font: hb.Font, number: int, area: tuple[int, int]) -> Image.Image | None:
    png = font.get_glyph_color_png(number)
    if png is not None and len(png.data):
        found = Image.open(io.BytesIO(png.data)).convert("RGBA")
        return found.resize(area, Image.Resampling.LANCZOS)
    paint = hb.RasterPaint()
    paint.scale_factor = (FINE, FINE)
    extents = font.get_glyph_extents(number)
    if not paint.set_glyph_extents(extents):
        return None
    paint.paint_glyph(font, number)
    drawn = paint.render()
    if drawn is None or not drawn.extents.width:
        return None
    shown = drawn.extents
    size = (shown.width, shown.height)
    return Image.frombytes("RGBA", size, bytes(drawn.buffer), "raw", "BGRA", shown.stride, -1)
