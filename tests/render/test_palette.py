"""The palette: zero is white, both sides are equally strong, text on it is readable."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from palrp_onnx.render.palette import (
    BLACK,
    LEVELS,
    TABLE,
    WHITE,
    colour,
    contrast,
    ink,
    levels,
    luminance,
)

pytestmark = pytest.mark.quick


def test_zero_is_white() -> None:
    assert colour(0.0, 1.0) == WHITE
    assert colour(5.0, 0.0) == WHITE


def test_scores_are_white_at_zero_and_below() -> None:
    found = [tuple(rgb) for rgb in levels([-3.0, 0.0, 1.0, 2.0, 5.0], 2.0).tolist()]
    assert found[0] == found[1] == WHITE and found[3] == found[4] == tuple(LEVELS[-1].tolist())
    assert luminance(WHITE) > luminance(found[2]) > luminance(found[3])
    assert levels([-1.0, -2.0], 0.0).tolist() == [list(WHITE)] * 2


def test_sides_are_equally_light_and_even() -> None:
    lightness = np.array([luminance(tuple(rgb)) for rgb in TABLE.tolist()])
    np.testing.assert_allclose(lightness[:128][::-1], lightness[128:], atol=0.02)
    assert (np.diff(lightness[:128]) >= 0).all()
    assert (np.diff(lightness[128:]) <= 0).all()


def test_red_is_for_and_blue_against() -> None:
    for value in (0.3, 1.0, 7.0):
        red, _, blue = colour(value, 1.0)
        assert red > blue
        red, _, blue = colour(-value, 1.0)
        assert blue > red


@pytest.mark.parametrize("table", [TABLE, LEVELS], ids=["signed", "score"])
def test_text_is_readable(table: NDArray[np.uint8]) -> None:
    """WCAG 2 asks for 4.5 : 1 (AA); one colour of letters reads better than two."""
    for red, green, blue in table.tolist():
        assert ink((red, green, blue)) == BLACK
        assert contrast(BLACK, (red, green, blue)) >= 6


#: Colour blindness of severity 1.0, on linear RGB: Machado, Oliveira and Fernandes (2009), table 1.
SEEN = {
    "all colours": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(colours: NDArray[np.uint8], seen: list[list[float]]) -> NDArray[np.float64]:
    """CIE L*a*b* of sRGB colours as somebody sees them."""
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    white = np.array([0.95047, 1.0, 1.08883])
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = np.clip(linear @ np.array(seen).T, 0, 1) @ np.array(to_xyz).T / white
    toe = xyz / (3 * (6 / 29) ** 2) + 4 / 29
    x, y, z = np.moveaxis(np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), toe), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN.keys())
def test_sides_differ_for_everybody(seen: list[list[float]]) -> None:
    """ΔE of 1976 between equal numbers for and against; 2.3 is just seen."""
    seen_as = lab(TABLE, seen)
    apart = np.linalg.norm(seen_as[:128][::-1] - seen_as[128:], axis=-1)
    assert apart[-1] > 60
    assert apart[64] > 30
    assert apart[16] > 7
    assert (np.diff(apart) > -1.5).all()


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN.keys())
def test_scores_grow_darker_for_everybody(seen: list[list[float]]) -> None:
    lightness = lab(LEVELS, seen)[:, 0]
    assert (np.diff(lightness) <= 0.5).all()
    assert lightness[0] - lightness[-1] > 35
