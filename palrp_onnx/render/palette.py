"""Blue-white-red: 256 colours for signed relevance, of equal lightness on both sides of zero.

Numbers that only rank have a hue of their own, from white at zero and below to full.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RGB = tuple[int, int, int]

BLACK: RGB = (0, 0, 0)
WHITE: RGB = (255, 255, 255)

_STEPS = 128  # colours on one side, white among them
_DARKEST = 58.0  # CIE L* at full relevance: black text is easy to read on all colours
_DARK = (8.0, 47.0)  # CIE L* at zero and at full relevance, on a dark page
# Chroma, hue at white, and hue at full relevance; with a constant hue, light blues look violet.
_RED = (65.0, 35.0, 35.0)
_BLUE = (48.0, 260.0, 276.0)
_GREEN = (38.0, 165.0, 165.0)
_D65 = np.array([0.95047, 1.0, 1.08883])
_XYZ_TO_RGB = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
)


def colours(values: ArrayLike, limit: float) -> NDArray[np.uint8]:
    """Colours of signed numbers, ``[...] → [..., 3]``: zero is white, ``±limit`` the full colours.

    Values beyond the limit get the full colour. If the limit is zero, everything is white.
    """
    numbers = np.asarray(values, dtype=np.float64)
    strength = np.zeros(numbers.shape) if limit == 0 else np.minimum(np.abs(numbers) / limit, 1.0)
    step = np.rint(strength * (_STEPS - 1)).astype(np.int64)
    picked: NDArray[np.uint8] = TABLE[np.where(numbers < 0, _STEPS - 1 - step, _STEPS + step)]
    return picked


def levels(values: ArrayLike, limit: float) -> NDArray[np.uint8]:
    """Colours of ranks, ``[...] → [..., 3]``: zero and less is white, ``limit`` full green."""
    numbers = np.asarray(values, dtype=np.float64)
    strength = np.clip(numbers / limit, 0.0, 1.0) if limit > 0 else np.zeros(numbers.shape)
    picked: NDArray[np.uint8] = LEVELS[np.rint(strength * (_STEPS - 1)).astype(np.int64)]
    return picked


def colour(value: float, limit: float) -> RGB:
    """Colour of one number, as `colours` gives it."""
    red, green, blue = colours(value, limit).tolist()
    return red, green, blue


@cache
def ink(background: RGB) -> RGB:
    """Black or white, whichever is easier to read: black on all colours of the palette."""
    return max(BLACK, WHITE, key=lambda candidate: contrast(candidate, background))


def contrast(one: RGB, other: RGB) -> float:
    """Contrast ratio of WCAG 2: (L_lighter + 0.05) / (L_darker + 0.05), from 1 to 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(rgb: RGB) -> float:
    """Relative luminance of an sRGB colour, 0 to 1."""
    encoded = np.array(rgb) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _side(
    chroma: float, light_hue: float, full_hue: float, ends: tuple[float, float] = (100.0, _DARKEST)
) -> NDArray[np.uint8]:
    """Grey to full colour in even steps of lightness, ``[steps, 3]``, through CIE LCh."""
    strength = np.linspace(0.0, 1.0, _STEPS)
    lightness = ends[0] + (ends[1] - ends[0]) * strength
    angle = np.radians(light_hue + (full_hue - light_hue) * strength)
    green_red = chroma * strength * np.cos(angle)
    blue_yellow = chroma * strength * np.sin(angle)
    height = (lightness + 16) / 116
    cube_roots = np.stack([height + green_red / 500, height, height - blue_yellow / 200], axis=-1)
    toe = 3 * (6 / 29) ** 2 * (cube_roots - 4 / 29)
    xyz = _D65 * np.where(cube_roots > 6 / 29, cube_roots**3, toe)
    linear = np.clip(xyz @ _XYZ_TO_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    side: NDArray[np.uint8] = np.rint(encoded * 255).astype(np.uint8)
    return side


#: The colours, from full blue (0) over white (127 and 128) to full red (255).
TABLE: NDArray[np.uint8] = np.concatenate([_side(*_BLUE)[::-1], _side(*_RED)])
#: The colours of ranks, from white to full green.
LEVELS: NDArray[np.uint8] = _side(*_GREEN)
#: The same on a dark page: zero is nearly black, and white letters are readable on every colour.
DARK_TABLE: NDArray[np.uint8] = np.concatenate([_side(*_BLUE, _DARK)[::-1], _side(*_RED, _DARK)])
DARK_LEVELS: NDArray[np.uint8] = _side(*_GREEN, _DARK)
for _table in (TABLE, LEVELS, DARK_TABLE, DARK_LEVELS):
    _table.flags.writeable = False
