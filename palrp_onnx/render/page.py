"""The sheet: its measures, its type, and blocks stacked from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from palrp_onnx.render.glyphs import draw_text, measure, shorten
from palrp_onnx.render.palette import RGB, TABLE, WHITE
from palrp_onnx.render.scale import number

WIDTH = 1600
MARGIN = 64
INNER = WIDTH - 2 * MARGIN

INK: RGB = (24, 24, 27)
GREY: RGB = (92, 92, 99)
HAIRLINE: RGB = (222, 222, 226)
AMBER: RGB = (146, 84, 0)

TITLE, FIGURE, HEADING, BODY, SMALL, TINY = 44, 36, 26, 24, 20, 16


def blank(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A white block of the inner width, and the means to draw on it."""
    image = Image.new("RGB", (INNER, max(height, 1)), WHITE)
    return image, ImageDraw.Draw(image)


def stack(blocks: Sequence[Image.Image], gap: int) -> Image.Image:
    """Blocks below one another."""
    height = sum(block.height for block in blocks) + gap * (len(blocks) - 1)
    image = Image.new("RGB", (INNER, height), WHITE)
    top = 0
    for block in blocks:
        image.paste(block, (0, top))
        top += block.height + gap
    return image


def with_margins(image: Image.Image) -> Image.Image:
    """The finished sheet."""
    sheet = Image.new("RGB", (WIDTH, image.height + 2 * MARGIN), WHITE)
    sheet.paste(image, (MARGIN, MARGIN))
    return sheet


def line_of_text(text: str, size: int, fill: RGB = GREY) -> Image.Image:
    """One line across the sheet, shortened where it does not fit."""
    image, canvas = blank(round(size * 1.4))
    draw_text(canvas, (0, size), shorten(text, size, INNER), size, fill)
    return image


def rule() -> Image.Image:
    """A thin line across the sheet."""
    image, canvas = blank(2)
    canvas.rectangle((0, 0, INNER, 1), fill=HAIRLINE)
    return image


def heading(title: str, note: str, figure: str = "") -> Image.Image:
    """Title, what it means in grey behind it, and a figure at the right end."""
    image, canvas = blank(36)
    draw_text(canvas, (0, 27), title, HEADING, INK)
    start, room = measure(title, HEADING) + 18, INNER - measure(figure, SMALL)
    draw_text(canvas, (start, 27), shorten(note, SMALL, room - start - 24), SMALL, GREY)
    draw_text(canvas, (room, 27), figure, SMALL, GREY)
    return image


def colour_bar(canvas: ImageDraw.ImageDraw, left: int, top: int, width: int, limit: float) -> None:
    """The palette with −v, 0 and +v below it; 58 pixels high."""
    for x in range(width):
        fill = tuple(TABLE[x * len(TABLE) // width].tolist())
        canvas.line((left + x, top, left + x, top + 21), fill=fill)
    canvas.rectangle((left, top, left + width - 1, top + 21), outline=HAIRLINE)
    ends = (number(-limit), "0", number(limit)) if limit else ("", "0", "")
    for label, part in zip(ends, (0, 1, 2), strict=True):
        x = left + part * (width - measure(label, SMALL)) // 2
        draw_text(canvas, (x, top + 48), label, SMALL, INK)


def facts(entries: Sequence[tuple[str, str]], columns: int) -> Image.Image:
    """Small grey names above their values, in columns."""
    room = INNER // columns
    rows = -(-len(entries) // columns)
    image, canvas = blank(rows * 72 - 12)
    for i, (name, value) in enumerate(entries):
        left, top = i % columns * room, i // columns * 72
        draw_text(canvas, (left, top + 18), shorten(name, TINY, room - 20), TINY, GREY)
        draw_text(canvas, (left, top + 50), shorten(value, SMALL, room - 20), SMALL, INK)
    return image
