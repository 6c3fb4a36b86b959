"""A page as PNG."""

from __future__ import annotations

import io
from itertools import pairwise

from PIL import Image, ImageDraw, PngImagePlugin

from palrp_onnx.render.page import Page, compose, foot
from palrp_onnx.render.palette import WHITE
from palrp_onnx.render.scene import Picture, Polygon, Rectangle, Scene, Span, Stroke, WordLine
from palrp_onnx.render.shaping import mask, pictures

_FINE = 4  # strokes are drawn this many times larger, then averaged


def png(page: Page) -> bytes:
    """A page as a file, with its facts; a foot says which characters no font has."""
    scene, size = compose(page.blocks)
    if scene.missing:
        scene, size = compose([*page.blocks, foot(scene.missing)])
    info = PngImagePlugin.PngInfo()
    for key, value in page.facts.items():
        info.add_itxt(key, value)
    data = io.BytesIO()
    raster(scene, size).save(data, "PNG", pnginfo=info)
    return data.getvalue()


def raster(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Draw all marks on a white page."""
    page = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(page)
    for mark in scene.marks:
        match mark:
            case WordLine():
                _line(page, mark)
            case Rectangle(fill=None, outline=None):
                pass  # a title alone
            case Rectangle():
                edges = (mark.left, mark.top, mark.right, mark.bottom)
                draw.rectangle(edges, fill=mark.fill, outline=mark.outline)
            case Picture():
                _picture(page, mark)
            case Stroke():
                _stroke(page, mark)
            case Polygon():
                draw.polygon(mark.points, fill=mark.fill)
    return page


def _line(page: Image.Image, line: WordLine) -> None:
    for span in line.spans:
        if line.upright:
            _upright(page, line.base, span)
        else:
            _span(page, (span.left, line.base), span)


def _span(page: Image.Image, origin: tuple[int, int], span: Span) -> None:
    """Each part takes its colour; a ligature of two parts has two colours."""
    left, base = origin
    covered, right, down = mask(span.shaped)
    for start, end, ink in _parts(span):
        part = covered.crop((start - right, 0, end - right, covered.height))
        page.paste(ink, (left + start, base + down), part)
    for image, right, down in pictures(span.shaped):
        page.paste(image, (left + right, base + down), image)


def _parts(span: Span) -> list[tuple[int, int, tuple[int, int, int]]]:
    """Left and right edge of the parts of a word, with their colours; the ends have no limits."""
    parts, done = [], 0
    for end, ink, _ in span.inks:
        edges = span.shaped.edges[done:end]
        if edges:
            lows, highs = zip(*edges, strict=True)
            parts.append([round(min(lows)), round(max(highs)), ink])
        done = end
    parts.sort(key=lambda part: part[0])
    beyond = 2 * span.shaped.size
    for one, other in pairwise(parts):
        one[1] = other[0]
    if parts:
        parts[0][0] -= beyond
        parts[-1][1] += beyond
    return [(start, end, ink) for start, end, ink in parts]


def _upright(page: Image.Image, lower: int, span: Span) -> None:
    size = span.shaped.size
    length = round(span.shaped.width) + 2 * size
    flat = Image.new("RGBA", (length, 2 * size), (255, 255, 255, 0))
    covered, right, down = mask(span.shaped)
    flat.paste((*span.inks[0][1], 255), (right, round(1.5 * size) + down), covered)
    for image, right, down in pictures(span.shaped):
        flat.paste(image, (right, round(1.5 * size) + down), image)
    turned = flat.rotate(90, expand=True)
    page.paste(turned, (span.left - round(1.5 * size), lower - length), turned)


def _picture(page: Image.Image, mark: Picture) -> None:
    size = (mark.width, mark.height)
    how = Image.Resampling.LANCZOS if mark.smooth else Image.Resampling.NEAREST
    scaled = mark.image if mark.image.size == size else mark.image.resize(size, how)
    page.paste(scaled, (mark.left, mark.top), scaled if scaled.mode == "RGBA" else None)


def _stroke(page: Image.Image, mark: Stroke) -> None:
    """Lines are smooth: their coverage is averaged."""
    across, down = zip(*mark.points, strict=True)
    left, top = int(min(across)) - mark.thick, int(min(down)) - mark.thick
    size = (int(max(across)) + mark.thick + 2 - left, int(max(down)) + mark.thick + 2 - top)
    fine = Image.new("L", (size[0] * _FINE, size[1] * _FINE))
    points = [((x - left) * _FINE, (y - top) * _FINE) for x, y in mark.points]
    ImageDraw.Draw(fine).line(points, fill=255, width=mark.thick * _FINE, joint="curve")
    page.paste(mark.ink, (left, top), fine.reduce(_FINE))
