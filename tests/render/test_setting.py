"""Texts in lines: nothing is lost, blanks and breaks stay, and lines have their direction."""

from __future__ import annotations

import re
from itertools import groupby, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palrp_onnx.record import InputFacts, Units
from palrp_onnx.render.flow import Paragraph, Piece, paragraphs
from palrp_onnx.render.setting import Set, Setting

pytestmark = pytest.mark.quick


def cut(text: str, *pieces: str) -> Units:
    """Units where they stand in the text; all words and marks by default."""
    start, end, done = [], [], 0
    for piece in pieces or re.findall(r"\w+|[^\w\s]", text):
        start.append(text.index(piece, done))
        done = start[-1] + len(piece)
        end.append(done)
    return Units(
        kind="token",
        text=[text[a:b] for a, b in zip(start, end, strict=True)],
        start=start,
        end=end,
        special=[False] * len(start),
    )


def flow(text: str, *pieces: str) -> list[Paragraph]:
    return paragraphs(cut(text, *pieces), InputFacts(kind="text", text=text))


def lines(setting: Setting) -> list[list[Set]]:
    return [list(words) for _, words in groupby(setting.words, key=lambda word: word.row)]


def read(setting: Setting) -> list[str]:
    return ["".join(word.shaped.text for word in line) for line in lines(setting)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("The plot is wonderful", ("The", " plot", " is", " wonder", "ful")),  # byte-level
        ("The plot is wonderful", ("The", "plot", "is", "wonder", "ful")),
    ],
)
def test_blanks_are_kept_and_words_joined(text: str, pieces: tuple[str, ...]) -> None:
    set_ = Setting(flow(text, *pieces), 19, 1000, 10)
    assert read(set_) == [text]
    *_, plot, _, is_, _, wonderful = set_.words
    assert len(wonderful.ends) == 2
    assert plot.left + plot.width < is_.left
    (one, left, middle), (other, again, right) = wonderful.grounds()
    assert (one, other, middle) == (3, 4, again)
    assert (left, right) == (wonderful.left, wonderful.left + wonderful.width)


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (("▁The", "▁plot", "▁wonder", "ful"), "The plot wonderful"),
        (("The", "Ġplot", "Ċ", "Ġwonder", "ful"), "The plot\n wonderful"),
        (("The", " plot", " wonder", "ful"), "The plot wonderful"),
        (("the", "plot", "wonder", "##ful"), "the plot wonderful"),
        (("101", "77", "102"), "101 77 102"),
    ],
)
def test_units_without_a_text_are_joined_as_their_vocabulary_says(
    units: tuple[str, ...], text: str
) -> None:
    made = paragraphs(Units(kind="token", text=list(units)), InputFacts(kind="tensors"))
    shown = [line.strip(" ↵") for line in read(Setting(made, 19, 1000, 10))]
    assert "\n".join(shown) == text.replace("\n ", "\n")


def test_bytes_of_a_character_show_it_once() -> None:
    units = Units(
        kind="token", text=["ð", "Ł", "ĺ"], start=[0, 0, 0], end=[1, 1, 1], special=[False] * 3
    )
    made = Setting(paragraphs(units, InputFacts(kind="text", text="🙂")), 19, 500, 10)
    assert read(made) == ["🙂"]
    grounds = list(made.words[0].grounds())
    assert [unit for unit, _, _ in grounds] == [0, 1, 2]
    assert all(left < right for _, left, right in grounds)


def test_bytes_do_not_part_arabic_letters() -> None:
    units = Units(
        kind="token", text=[*"ØÙØ§"], start=[0, 0, 1, 1], end=[1, 1, 2, 2], special=[False] * 4
    )
    word = Setting(paragraphs(units, InputFacts(kind="text", text="كا")), 19, 500, 10).words[0]
    assert word.shaped.text == "كا"
    assert [unit for unit, _, _ in word.grounds()] == [3, 2, 1, 0]


def test_special_tokens_are_not_mirrored() -> None:
    paragraph: Paragraph = [
        (Piece(0, "<s>", True),),
        " ",
        (Piece(1, "كان"),),
        (Piece(2, "</s>", True),),
    ]
    first, *_, last = Setting([paragraph], 19, 500, 10).words
    assert first.left > last.left
    assert not (first.shaped.backwards or last.shaped.backwards)


def test_line_breaks_and_indents_are_kept() -> None:
    set_ = Setting(flow("def f():\n    return 1\n\nf()"), 19, 1000, 10)
    assert read(set_) == ["def f():", "    return 1", "f()"]
    assert [line[0].row for line in lines(set_)] == [0, 1, 3]
    returned = next(word for word in set_.words if word.shaped.text == "return")
    assert returned.left > 10


def test_lines_end_between_words_and_never_before_a_mark() -> None:
    text = "(fine), good. " * 20
    for room in range(200, 500, 20):
        made = Setting(flow(text), 19, room, 100)
        assert {line[0] for line in read(made)} <= {"(", "g"}
    set_ = Setting(flow(text), 19, 330, 100)
    assert " ".join(read(set_)) == text.strip()


def test_a_line_of_arabic_begins_at_the_right() -> None:
    set_ = Setting(flow("كان الفيلم 12 OK"), 19, 500, 10)
    first, *_, last = set_.words
    assert first.left + first.width == pytest.approx(500, abs=2)
    assert last.left < first.left
    assert read(set_) == ["كان الفيلم 12 OK"]


def test_special_tokens_do_not_set_the_direction() -> None:
    paragraph: Paragraph = [(Piece(0, "[CLS]", True),), " ", (Piece(1, "كان"),)]
    cls, _, word = Setting([paragraph], 19, 500, 10).words
    assert cls.left > word.left


def test_what_is_too_long_for_a_line_is_parted() -> None:
    set_ = Setting(flow("x" * 5000, "x" * 5000), 19, 400, 1000)
    assert "".join(read(set_)) == "x" * 5000
    assert all(word.left + word.width <= 400 for word in set_.words)


def test_lines_are_left_out_beyond_the_most() -> None:
    text = "word " * 500
    set_ = Setting(flow(text), 19, 300, 7)
    assert set_.rows == 7
    assert 0 < set_.done < 500
    assert Setting(flow(text), 19, 300, 10**6).done == 500


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=40), st.integers(100, 900))
@settings(max_examples=80)
def test_grounds_neither_overlap_nor_overflow(texts: list[str], room: int) -> None:
    units = Units(kind="token", text=texts)
    set_ = Setting(paragraphs(units, InputFacts(kind="tensors")), 19, room, 10**6)
    assert set_.done == len(texts)
    for line in lines(set_):
        spans = sorted((a, b) for word in line for _, a, b in word.grounds())
        assert all(0 <= a <= b <= room for a, b in spans)
        assert all(one[1] <= other[0] for one, other in pairwise(spans))
