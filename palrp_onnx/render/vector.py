"""A page as SVG: text stays text, numbers are titles, nothing is loaded and nothing runs."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from html import escape

from PIL import Image

from palrp_onnx.render.page import Page, compose
from palrp_onnx.render.palette import RGB, WHITE
from palrp_onnx.render.scene import Mark, Picture, Polygon, Rectangle, Span, Stroke, WordLine

#: Fonts of the same width come first, as words have room for DejaVu Sans.
_FAMILY = "'DejaVu Sans',Verdana,'Noto Sans',sans-serif"

_BACKWARDS = 'direction="rtl" unicode-bidi="embed"'
#: Characters that XML cannot hold.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def svg(page: Page) -> bytes:
    """A page as a file, with its title and its facts."""
    scene, (width, height) = compose(page.blocks)
    facts = "; ".join(f"{name} {value}" for name, value in page.facts.items())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{_FAMILY}">',
        f"<title>{_text(page.title)}</title>",
        f"<desc>{_text(facts)}</desc>",
        "<style>text{white-space:pre}.c{image-rendering:pixelated}</style>",
        f'<rect width="{width}" height="{height}" fill="{_hex(WHITE)}"/>',
    ]
    lines += [line for mark in scene.marks for line in _drawn(mark)]
    return "\n".join([*lines, "</svg>", ""]).encode()


def _drawn(mark: Mark) -> Iterator[str]:
    match mark:
        case WordLine():
            yield _line(mark)
        case Rectangle():
            yield _rectangle(mark)
        case Picture():
            sharp = "" if mark.smooth else ' class="c"'
            yield (
                f'<image x="{mark.left}" y="{mark.top}" width="{mark.width}" '
                f'height="{mark.height}" preserveAspectRatio="none"{sharp} '
                f'href="{_data(mark.image)}"/>'
            )
        case Stroke():
            yield (
                f'<polyline points="{_points(mark.points)}" fill="none" stroke="{_hex(mark.ink)}" '
                f'stroke-width="{mark.thick}" stroke-linejoin="round"/>'
            )
        case Polygon():
            yield f'<polygon points="{_points(mark.points)}" fill="{_hex(mark.fill)}"/>'


def _line(line: WordLine) -> str:
    size = line.spans[0].shaped.size if line.spans else 0
    turned = f' transform="rotate(-90 {line.spans[0].left} {line.base})"' if line.upright else ""
    words = "".join(map(_span, line.spans))
    return f'<text y="{line.base}" font-size="{size}"{turned}>{words}</text>'


def _span(span: Span) -> str:
    """A word has the width that was measured, in whatever font it is drawn."""
    parts, done = [], 0
    for end, ink, title in span.inks:
        about = f"<title>{_text(title)}</title>" if title else ""
        text = _text(span.shaped.text[done:end])
        if not text:
            continue
        parts.append(f'<tspan fill="{_hex(ink)}">{about}{text}</tspan>')
        done = end
    shaped, place = span.shaped, f'x="{span.left}"'
    if shaped.backwards:  # from its middle, as programs differ in what its start is
        place = f'x="{span.left + shaped.width / 2:.1f}" text-anchor="middle" {_BACKWARDS}'
    if not shaped.text.isspace():
        place += f' textLength="{shaped.width:.1f}" lengthAdjust="spacingAndGlyphs"'
    return f"<tspan {place}>{''.join(parts)}</tspan>"


def _rectangle(mark: Rectangle) -> str:
    """An outline is drawn in the middle of its pixels."""
    inset = 0.5 if mark.outline else 0
    size = (mark.right - mark.left + 1 - 2 * inset, mark.bottom - mark.top + 1 - 2 * inset)
    outline = f' stroke="{_hex(mark.outline)}"' if mark.outline else ""
    fill = f'fill="{_hex(mark.fill)}"' if mark.fill else 'fill="none" pointer-events="all"'
    shape = f'x="{mark.left + inset}" y="{mark.top + inset}" width="{size[0]}" height="{size[1]}"'
    if not mark.title:
        return f"<rect {shape} {fill}{outline}/>"
    return f"<rect {shape} {fill}{outline}><title>{_text(mark.title)}</title></rect>"


def _text(text: str) -> str:
    return escape(_FORBIDDEN.sub("�", text))


def _points(points: tuple[tuple[float, float], ...]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _hex(colour: RGB) -> str:
    return "#" + bytes(colour).hex()


def _data(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
