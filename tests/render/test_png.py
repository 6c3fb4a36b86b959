"""Pictures: every kind of record is drawn, the same bytes each time, hostile text included."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictured import TEXT, record, words
from PIL import Image

from palrp_onnx.record import (
    Attribution,
    InputFacts,
    Map,
    TargetFacts,
    Units,
    Warning_,
    decode,
    encode,
)
from palrp_onnx.render import page, strip
from palrp_onnx.render.flow import visible
from palrp_onnx.render.layout import lay_out
from palrp_onnx.render.page import MARGIN, WIDTH, compose, foot, wrap
from palrp_onnx.render.palette import WHITE, colour
from palrp_onnx.render.png import render_png
from palrp_onnx.render.scene import WordLine
from palrp_onnx.render.strip import TALLEST
from palrp_onnx.render.wording import shares


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_text() -> None:
    units = words(TEXT)
    values = np.linspace(-1, 1, len(units.text)).tolist()
    data = render_png(record(units, values, text=TEXT))
    image = opened(data)
    assert image.width == WIDTH
    assert data == render_png(record(units, values, text=TEXT))
    assert image.info["Model"] == "0" * 64  # type: ignore[attr-defined]


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_text_can_be_drawn(texts: list[str]) -> None:
    count = len(texts)
    units = Units(kind="token", text=texts, special=[i == 0 for i in range(count)])
    opened(render_png(record(units, np.linspace(-3, 1, count).tolist(), id="".join(texts))))


def test_what_would_not_show_is_spelled_out() -> None:
    assert visible("a\u202eb") == "a‹202E›b"
    assert visible("\t") == "‹0009›"
    assert visible("\u4e2d") == "\u4e2d"
    assert visible("é Ω א") == "é Ω א"


def test_colours_are_where_the_tokens_are() -> None:
    units = Units(kind="token", text=["mmmm", "mmmm"], special=[False, False])
    image = opened(render_png(record(units, [1.0, 0.0]))).convert("RGB")
    total = colour(1.5, 1.5)
    assert sum(n for n, c in image.getcolors(10**6) or [] if c == total) > 300
    assert image.getpixel((MARGIN // 2, 200)) == WHITE


def test_special_tokens_do_not_set_the_scale() -> None:
    units = Units(kind="token", text=["[CLS]", "fine"], special=[True, False])
    loud = opened(render_png(record(units, [100.0, 1.0]))).convert("RGB")
    shades = {c for _, c in loud.getcolors(10**6) or []}
    assert colour(1.0, 1.5) in shades


def written(made: Attribution) -> list[str]:
    """The lines of text of a picture."""
    scene, _ = compose(lay_out(made).blocks)
    lines = [mark for mark in scene.marks if isinstance(mark, WordLine)]
    return ["".join(span.shaped.text for span in line.spans) for line in lines]


@pytest.mark.parametrize(
    ("count", "maps", "cut"), [(1, 4, False), (400, 4, False), (1_500, 1, False), (6_000, 1, True)]
)
def test_long_texts_are_readable_and_bounded(
    count: int, maps: int, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tenth of the height."""
    monkeypatch.setattr(strip, "TALLEST", TALLEST // 10)
    units = Units(kind="token", text=["tok"] * count)
    made = record(units, [0.5, -0.4] * (count // 2) + [0.1] * (count % 2), sites=[])
    assert opened(render_png(made)).height < TALLEST // 10 + 600
    lines = written(made)
    assert sum(line.count("tok") for line in lines) == count * maps or cut
    assert any("more tokens are in the record" in line for line in lines) == cut
    assert any("content, position" in line for line in lines) == (maps == 1)


def test_warnings_are_wrapped_and_never_cut() -> None:
    message = "the text was cut: " + "only the first tokens were read, " * 12 + "so says the file"
    made = record(words("a film"), [1, 2], warnings=[Warning_(code="truncated", message=message)])
    lines = written(made)
    first = next(k for k, line in enumerate(lines) if line.startswith("⚠"))
    assert " ".join(lines[first : first + 5]).startswith(f"⚠ {message}")


def test_a_foot_says_what_no_font_has() -> None:
    made = record(words("good 电影"), [1, 2], text="good 电影")
    tall, short_ = (
        opened(render_png(each)).height for each in (made, record(words("a b"), [1, 2]))
    )
    assert tall > short_
    assert (
        foot("电影")
        .lines[0][0]
        .startswith(
            "⚠ Boxes stand for characters that no font on this machine has (CJK: U+7535, U+5F71)"
        )
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"sites": []},
        {"target": TargetFacts(output="y", kind="element", index=[1, 2], value=-1.0)},
        {
            "target": TargetFacts(
                output="y", kind="contrast", index=1, value=1.0, against=0, against_label="NEG"
            )
        },
        {"warnings": [Warning_(code="truncated", message="256 of 300 tokens were kept")]},
    ],
)
def test_other_records(changes: dict[str, Any]) -> None:
    units = Units(kind="token", text=["a", "b"])
    opened(render_png(record(units, [0.0, 0.0], **changes)))


@pytest.mark.parametrize("size", [(8, 8), (300, 200), (90, 400)])
def test_images(size: tuple[int, int]) -> None:
    units = Units(kind="patch", grid=(2, 3))
    values = [1.0, -1.0, 0.0, 0.5, 0.2, -0.1]
    original = Image.new("RGB", size, (10, 200, 30))
    box = (0.0, 0.0, size[0] / 2, float(size[1]))
    facts = InputFacts(kind="image", truncated=False, size=size)
    data = render_png(record(units, values, input=facts), image=original, box=box)
    shades = {c for _, c in opened(data).convert("RGB").getcolors(10**6) or []}
    assert (10, 200, 30) in shades
    assert colour(1.0, 1.5) in shades
    opened(render_png(record(units, values, input=facts)))


def test_several_inputs_are_below_each_other() -> None:
    texts = record(words("a good film"), [0.1, 0.2, 0.3], text="a good film")
    pictures = record(Units(kind="patch", grid=(1, 3)), [0.1, -0.2, 0.3])
    second = Map(
        input="pixels", units=pictures.units, relevance=pictures.relevance, sites=pictures.sites
    )
    both = msgspec.structs.replace(texts, input_name="words", others=[second])
    one, two = (Image.open(io.BytesIO(render_png(each))).height for each in (texts, both))
    assert two > one
    assert "words " in shares(both) and "pixels " in shares(both)
    content, position = both.magnitudes()
    assert both.position_share == position / (content + position)
    assert content == pytest.approx(1.2)
    assert decode(encode(both)).maps == both.maps
    assert b"others" not in encode(texts)


def test_wrapping() -> None:
    lines = wrap(["word"] * 200, 15)
    assert len(lines) > 1
    assert "   ".join(lines).split() == ["word"] * 200


@pytest.mark.parametrize("letters", [1, 100, 4_000, 1_000_000])
def test_long_labels_are_measured_a_few_times(
    letters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def counted(text: str, size: int) -> int:
        measured.append(len(text))
        return 7 * len(text)

    monkeypatch.setattr(page, "width", counted)
    found = page.shorten("i" * letters, 16, 700)
    assert found == ("i" * letters if letters <= 100 else "i" * 99 + "…")
    assert len(measured) < 15 and max(measured) <= 2001


@given(st.text(max_size=40), st.integers(20, 300))
def test_what_is_shortened_fits_as_far_as_it_goes(text: str, room: int) -> None:
    found = page.shorten(text, 16, room)
    if found != text:
        assert found[:-1] == text[: len(found) - 1]
        assert page.width(found, 16) <= room
        assert page.width(text[: len(found)] + "…", 16) > room
