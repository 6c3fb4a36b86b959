"""The palette: zero is white, both sides are equally strong, text on it is readable."""

from __future__ import annotations

import numpy as np
import pytest

from palrp_onnx.render.palette import TABLE, WHITE, colour, contrast, ink, luminance

pytestmark = pytest.mark.quick


def test_zero_is_white() -> None:
    assert colour(0.0, 1.0) == WHITE
    assert colour(5.0, 0.0) == WHITE


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


@pytest.mark.parametrize("index", range(256))
def test_text_is_readable(index: int) -> None:
    red, green, blue = TABLE[index].tolist()
    ground = (red, green, blue)
    assert contrast(ink(ground), ground) >= 4.5
