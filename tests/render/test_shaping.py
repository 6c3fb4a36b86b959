"""Shaped text: the packaged font alone, so that the same is drawn on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palrp_onnx.render import fonts
from palrp_onnx.render.fonts import bundled, clusters, font_of
from palrp_onnx.render.shaping import Shaped, mask, pictures, shape

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def packaged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(fonts.VARIABLE, "")
    _forget()
    yield
    _forget()


def _forget() -> None:
    font_of.cache_clear()
    shape.cache_clear()


def lefts(shaped: Shaped) -> list[float]:
    return [left for left, _ in shaped.edges]


def test_characters_stand_side_by_side() -> None:
    shaped = shape("plot", 19)
    assert [one[1] == other[0] for one, other in pairwise(shaped.edges)] == [True] * 3
    assert shaped.edges[-1][1] == shaped.width > shape("plo", 19).width


def test_arabic_letters_are_joined_and_run_to_the_left() -> None:
    joined, apart = shape("سسس", 19), [shape("س", 19).glyphs[0].number] * 3
    assert len({*[glyph.number for glyph in joined.glyphs], *apart}) == 4  # start, middle, end
    assert lefts(joined) == sorted(lefts(joined), reverse=True)


def test_a_ligature_is_shared_by_its_characters() -> None:
    shaped = shape("لا", 19)  # lam and alef are one glyph
    assert len(shaped.glyphs) == 1
    (_, right), (left, middle) = shaped.edges
    assert (left, right) == (0.0, shaped.width)
    assert middle == pytest.approx(shaped.width / 2)


def test_numbers_and_latin_words_within_arabic() -> None:
    shaped = shape("م 12 ab", 19, 1)
    one, two = (shaped.text.index(c) for c in "12")
    assert shaped.edges[one][1] == shaped.edges[two][0]
    assert shaped.edges[shaped.text.index("a")][0] < shaped.edges[one][0] < shaped.edges[0][0]


def test_brackets_are_mirrored() -> None:
    assert shape("(", 19, 1).glyphs[0].number == shape(")", 19).glyphs[0].number


def test_what_no_font_has_is_a_box_and_named() -> None:
    shaped = shape("a这b", 19)
    assert shaped.missing == "这"
    assert shaped.glyphs[1].number == 0
    left, right = (round(x) for x in shaped.edges[1])
    covered, start, _ = mask(shaped)
    assert np.asarray(covered)[:, left - start : right - start].max() > 200


def test_fonts_of_a_named_folder_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    data = bundled().path.read_bytes()
    (tmp_path / "below" / "Some-Bold.ttf").write_bytes(data)
    (tmp_path / "Some-Regular.ttf").write_bytes(data)
    (tmp_path / "Noto-broken.ttf").write_bytes(b"no font")
    (tmp_path / "text.txt").write_text("no font")
    monkeypatch.setenv(fonts.VARIABLE, str(tmp_path))
    _forget()
    monkeypatch.setattr(fonts, "bundled", lambda: fonts.Font(tmp_path / "Noto-broken.ttf"))
    found = font_of("a")
    assert found is not None and found.path.name == "Some-Regular.ttf"


def test_marks_and_joined_emoji_stay_together() -> None:
    assert list(clusters("e\u0301a")) == ["e\u0301", "a"]
    assert list(clusters("👨\u200d👩\u200d👧🙂")) == ["👨\u200d👩\u200d👧", "🙂"]
    assert list(clusters("🇩🇪🇫🇷🇮")) == ["🇩🇪", "🇫🇷", "🇮"]
    assert list(clusters("👍🏽ok")) == ["👍🏽", "o", "k"]
    assert list(clusters("")) == []


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), st.integers(8, 30))
@settings(max_examples=60, deadline=None)
def test_any_text_is_shaped(text: str, size: int) -> None:
    shaped = shape(text, size)
    assert len(shaped.edges) == len(text)
    assert all(-1e-6 <= a <= b + 1e-6 and b <= shaped.width + 1e-6 for a, b in shaped.edges)
    mask(shaped)
    assert list(pictures(shaped)) == []
