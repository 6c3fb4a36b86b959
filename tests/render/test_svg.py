"""SVG: the picture of PNG with text as text, numbers as titles, nothing loaded, nothing run."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictured import TEXT, record, words
from PIL import Image

from palrp_onnx.record import InputFacts, Units, Warning_
from palrp_onnx.render.curves import Chart, render_curves
from palrp_onnx.render.page import WIDTH
from palrp_onnx.render.palette import BLACK, colour
from palrp_onnx.render.png import render_png
from palrp_onnx.render.raster import raster
from palrp_onnx.render.scale import number
from palrp_onnx.render.scene import Scene
from palrp_onnx.render.svg import render_svg

pytestmark = pytest.mark.quick

NAMES = "{http://www.w3.org/2000/svg}"
KNOWN = {"svg", "title", "desc", "style", "rect", "text", "tspan", "image", "polyline", "polygon"}
HOSTILE = "</text><script>alert(1)</script><image href='http://x'/> \"'& \0\u202e\ufffe\x1b\ud800"


def parsed(data: bytes) -> ElementTree.Element:
    root = ElementTree.fromstring(data)
    for each in root.iter():
        assert each.tag.removeprefix(NAMES) in KNOWN
        for name, value in each.attrib.items():
            assert not name.startswith("on")
            assert name != "href" or value.startswith("data:image/png;base64,")
    return root


def lines(root: ElementTree.Element) -> list[str]:
    found = []
    for text in root.iter(f"{NAMES}text"):
        for title in list(text.iter(f"{NAMES}title")):
            title.text = ""
        found.append("".join(text.itertext()))
    return found


def test_text_stays_text_with_its_blanks_and_breaks() -> None:
    units = words(TEXT)
    values = np.linspace(-1, 1, len(units.text)).tolist()
    made = record(units, values, text=TEXT)
    root = parsed(render_svg(made))
    shown = lines(root)
    assert [shown.count(line) for line in TEXT.split("\n")] == [4, 4]  # total, parts and score
    assert root.find(f"{NAMES}title").text == "POSITIVE"  # type: ignore[union-attr]
    titles = [each.text for each in root.iter(f"{NAMES}title")]
    for value in made.relevance.total:
        assert f"total {number(value)}" in titles
    assert render_svg(made) == render_svg(made)


def test_grounds_and_letters_have_the_colours_of_the_png() -> None:
    units = words(TEXT)
    values = np.linspace(-1, 1, len(units.text)).tolist()
    made = record(units, values, text=TEXT)
    root = parsed(render_svg(made))
    fills = {each.get("fill") for each in root.iter(f"{NAMES}rect")}
    page = Image.open(io.BytesIO(render_png(made))).convert("RGB")
    assert (root.get("width"), root.get("height")) == tuple(map(str, page.size))
    shades = {colours for _, colours in page.getcolors(10**6) or []}
    for value in made.relevance.total:
        shade = colour(value, 1.5)
        assert "#" + bytes(shade).hex() in fills
        assert shade in shades


@pytest.mark.parametrize("kind", ["token", "column", "patch", "frame"])
def test_hostile_text_is_text(kind: str) -> None:
    facts = InputFacts(kind="text", text=f"{HOSTILE} {HOSTILE}")
    grid = (1, 2) if kind == "patch" else None
    units = Units(kind=kind, text=[] if grid else [HOSTILE, HOSTILE], grid=grid)  # type: ignore[arg-type]
    warning = Warning_(code="x", message=HOSTILE)
    made = record(units, [1.0, -2.0], id=HOSTILE, input=facts, warnings=[warning])
    data = render_svg(made)
    parsed(data)
    assert b"<script" not in data and b"http://x'" not in data


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=12))
@settings(max_examples=40)
def test_any_text_can_be_written(texts: list[str]) -> None:
    units = Units(kind="token", text=texts)
    parsed(render_svg(record(units, [0.5] * len(texts), id="".join(texts))))


def test_images_are_embedded() -> None:
    original = Image.new("RGB", (30, 20), (10, 200, 30))
    made = record(Units(kind="patch", grid=(2, 3)), [1.0, -1.0, 0.0, 0.5, 0.2, -0.1])
    root = parsed(render_svg(made, image=original))
    images = [each.get("href") or "" for each in root.iter(f"{NAMES}image")]
    opened = [Image.open(io.BytesIO(base64.b64decode(each.split(",")[1]))) for each in images]
    assert any(each.convert("RGB").getpixel((0, 0)) == (10, 200, 30) for each in opened)


def test_curves() -> None:
    chart = Chart("t", "share", {"one": [0.0, 1.0], "two": [1.0, 0.0]})
    root = parsed(render_curves("title", "remark", [0.0, 1.0], [chart], "height", vector=True))
    strokes = {each.get("stroke") for each in root.iter(f"{NAMES}polyline")}
    assert {"#0072b2", "#d55e00"} <= strokes


def test_right_to_left_words_say_so() -> None:
    text = "كان (رائعا)"
    start = [m.start() for m in re.finditer(r"\w+|[()]", text)]
    end = [m.end() for m in re.finditer(r"\w+|[()]", text)]
    pieces = [text[a:b] for a, b in zip(start, end, strict=True)]
    units = Units(kind="token", text=pieces, start=start, end=end, special=[False] * 4)
    root = parsed(render_svg(record(units, [1.0, 2.0, 3.0, 4.0], text=text)))
    assert text in lines(root)
    turned = [each for each in root.iter(f"{NAMES}tspan") if each.get("direction") == "rtl"]
    assert len(turned) == 4 * 5  # four maps; a blank among the words


def test_marks_are_where_they_are_said_to_be() -> None:
    scene = Scene()
    scene.box((10, 10, 19, 14), fill=(1, 2, 3))
    scene.stroke([(0, 30), (WIDTH, 30)], (200, 0, 0), 3)
    scene.polygon([(100, 0), (110, 0), (110, 10)], (0, 0, 200))
    scene.write((50, 50), "mm", 19)
    scene.write((200, 90), "mm", 19, upright=True)
    page = np.asarray(raster(scene, (WIDTH, 100)))
    assert (page[10:15, 10:20] == (1, 2, 3)).all() and (page[9, 9:21] == 255).all()
    assert (page[30, 5:-5] == (200, 0, 0)).all()
    assert tuple(page[3, 108]) == (0, 0, 200)
    dark = np.argwhere((page == BLACK).all(-1))
    flat, upright = (dark[(dark[:, 1] > 150) == side] for side in (False, True))
    assert np.ptp(flat[:, 1]) > 2 * np.ptp(flat[:, 0])
    assert np.ptp(upright[:, 0]) > 2 * np.ptp(upright[:, 1])
    assert abs(flat[:, 0].mean() - 50) < 5 and flat[:, 1].min() >= 50
    assert abs(upright[:, 1].mean() - 200) < 5 and upright[:, 0].max() <= 90
