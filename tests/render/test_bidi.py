"""Right-to-left text: levels and orders by the rules of Unicode Standard Annex 9."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palrp_onnx.render.bidi import base_level, levels, visual

pytestmark = pytest.mark.quick

ALEF, BET, MARK = "א", "ב", "\u05b8"  # Hebrew letters, and a vowel below one
MIM, NUN = "م", "ن"  # Arabic letters


@pytest.mark.parametrize(
    ("text", "base", "expected"),
    [
        ("ab", 0, [0, 0]),
        (f"a {ALEF}{BET} b", 0, [0, 0, 1, 1, 0, 0]),
        (f"{ALEF} ab {BET}", 1, [1, 1, 2, 2, 1, 1]),
        (f"{ALEF} {BET}", 0, [1, 1, 1]),  # N1: a blank between equal sides
        (f"{ALEF}12", 0, [1, 2, 2]),  # I1: numbers run from left to right
        (f"{ALEF} 1,2", 1, [1, 1, 2, 2, 2]),  # W4: a comma inside a number
        (f"{MIM} 1+2", 1, [1, 1, 2, 1, 2]),  # W2, W4: after Arabic letters, + parts two numbers
        (f"{ALEF} 5%", 1, [1, 1, 2, 2]),  # W5: a sign of a number
        (f"a 5{ALEF}", 0, [0, 0, 0, 1]),  # W7: a number after Latin letters
        (f"{ALEF}{MARK}a", 0, [1, 1, 0]),  # W1: a mark follows its letter
        (f"({NUN})", 1, [1, 1, 1]),
        (f"({NUN})", 0, [0, 1, 0]),
    ],
)
def test_levels(text: str, base: int, expected: list[int]) -> None:
    assert levels(text, base) == expected


def test_the_first_letter_sets_the_direction() -> None:
    assert base_level("12 (a) " + ALEF) == 0
    assert base_level("12 (" + MIM + ") a") == 1
    assert base_level("12 !") == 0


def test_lines_are_turned_from_the_highest_level_down() -> None:
    assert visual([0, 0, 1, 1, 0]) == [0, 1, 3, 2, 4]
    assert visual([1, 1, 2, 2, 1]) == [4, 2, 3, 1, 0]
    assert visual([2, 2, 1]) == [2, 0, 1]
    assert visual([]) == []


@given(st.text(max_size=30), st.integers(0, 1))
def test_every_character_is_drawn_once_and_latin_stays(text: str, base: int) -> None:
    ranks = levels(text, base)
    assert all(base <= rank <= base + 2 for rank in ranks)
    assert sorted(visual(ranks)) == list(range(len(text)))
    if text.isascii() and base == 0:
        assert visual(ranks) == list(range(len(text)))
