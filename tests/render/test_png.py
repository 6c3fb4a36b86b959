"""Pictures: every kind of record is drawn, the same bytes each time, hostile text included."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from recorded import MODEL, RUN

from palrp_onnx.record import (
    Attribution,
    InputFacts,
    Map,
    Relevance,
    Site,
    TargetFacts,
    Units,
    Warning_,
    decode,
    encode,
)
from palrp_onnx.render import page
from palrp_onnx.render.page import INNER, MARGIN, WIDTH, visible, wrap
from palrp_onnx.render.palette import WHITE, colour
from palrp_onnx.render.png import render_png
from palrp_onnx.render.strip import LIMIT, ROW, place
from palrp_onnx.render.wording import shares


def record(
    units: Units, values: list[float], *, text: str | None = None, **changes: Any
) -> Attribution:
    facts: dict[str, Any] = {
        "id": "x",
        "model": MODEL,
        "run": RUN,
        "input": InputFacts(kind="text", truncated=False, text=text),
        "target": TargetFacts(output="logits", kind="class", index=1, value=2.0, label="POSITIVE"),
        "units": units,
        "relevance": Relevance(
            content=values,
            position=[abs(v) / 2 for v in values],
            total=[1.5 * v for v in values],
            score=[2 * abs(v) for v in values],
        ),
        "sites": [
            Site(name=f"site/{k}/cos", kind="rope", layer=k, part="cos", relevance=values)
            for k in range(2)
        ],
        "ledger": {"target": 2.0, "content": sum(values), "position": 0.5, "segment": 0.0,
                   "bias": 0.0, "norm": 0.0, "softmax": 0.0, "other": 0.0, "residual": 0.0,
                   "residual_relative": 0.0},
        "warnings": [],
    }  # fmt: skip
    return Attribution(**(facts | changes))


def words(text: str) -> Units:
    """Words and the marks that touch them."""
    pieces, start, end = [], [], []
    for word in text.split():
        begin = text.index(word, end[-1] if end else 0)
        cut = len(word.rstrip(".,!"))
        for left, right in ((0, cut), (cut, len(word))):
            if left < right:
                pieces.append(word[left:right])
                start.append(begin + left)
                end.append(begin + right)
    return Units(
        kind="token",
        text=pieces,
        id=[0] * len(pieces),
        start=start,
        end=end,
        special=[False] * len(pieces),
    )


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


TEXT = "A dull story, wonderfully acted.\nGo and see it!"


def test_text() -> None:
    units = words(TEXT)
    values = np.linspace(-1, 1, len(units.text)).tolist()
    data = render_png(record(units, values, text=TEXT))
    image = opened(data)
    assert image.width == WIDTH
    assert data == render_png(record(units, values, text=TEXT))
    assert image.info["Model"] == "0" * 64  # type: ignore[attr-defined]


def test_pieces_of_a_word_touch_and_line_breaks_are_kept() -> None:
    units = words(TEXT)
    boxes = place(units, TEXT)
    story, comma, acted = boxes[2], boxes[3], boxes[4]
    assert comma.left == story.left + story.width
    assert acted.left > comma.left + comma.width
    assert boxes[units.text.index("Go")].row == 1


@given(st.lists(st.text(max_size=30), min_size=1, max_size=60), st.integers(80, INNER))
@settings(max_examples=40, deadline=None)
def test_tokens_neither_overlap_nor_overflow(texts: list[str], room: int) -> None:
    units = Units(kind="token", text=texts)
    boxes = place(units, None, room)
    for left, right in pairwise(boxes):
        assert right.row > left.row or right.left >= left.left + left.width
    assert all(box.left + box.width <= room for box in boxes)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_text_can_be_drawn(texts: list[str]) -> None:
    count = len(texts)
    units = Units(kind="token", text=texts, special=[i == 0 for i in range(count)])
    opened(render_png(record(units, np.linspace(-3, 1, count).tolist(), id="".join(texts))))


def test_what_would_not_show_is_spelled_out() -> None:
    assert visible("a\u202eb") == "a‹202E›b"
    assert visible("\t") == "‹0009›"
    assert visible("\u4e2d") == "‹4E2D›"
    assert visible("é Ω א") == "é Ω א"


def test_colours_are_where_the_tokens_are() -> None:
    units = Units(kind="token", text=["mmmm", "mmmm"], special=[False, False])
    image = opened(render_png(record(units, [1.0, 0.0]))).convert("RGB")
    total = colour(1.5, 1.5)
    assert sum(n for n, c in image.getcolors(10**6) or [] if c == total) > ROW * 10
    assert image.getpixel((MARGIN // 2, 200)) == WHITE


def test_special_tokens_do_not_set_the_scale() -> None:
    units = Units(kind="token", text=["[CLS]", "fine"], special=[True, False])
    loud = opened(render_png(record(units, [100.0, 1.0]))).convert("RGB")
    shades = {c for _, c in loud.getcolors(10**6) or []}
    assert colour(1.0, 1.5) in shades


@pytest.mark.parametrize("count", [1, 512, LIMIT + 3])
def test_lengths(count: int) -> None:
    units = Units(kind="token", text=["tok"] * count)
    image = opened(render_png(record(units, [0.5] * count)))
    assert image.height < 12_000


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
