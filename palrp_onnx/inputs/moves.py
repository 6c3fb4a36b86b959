"""Moves of an image before its pixels are numbers: resizing, cropping, padding.

Every move keeps track of which part of the original image the pixels show. The sizes are those of
the image processors of Hugging Face, rounding included. The usual moves are data, for readers in
other languages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from palrp_onnx.errors import InputError

#: Largest number of pixels of an image, before and after resizing; above it Pillow warns as well.
PIXEL_LIMIT = 89_478_485

#: Scales are searched to this precision.
_PRECISION = 1e-5

#: (width, height) of an image → those that it gets.
Sizing = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Seen:
    """An image whose pixel (x, y) begins at (left + across x, top + down y) of the original."""

    image: Image.Image
    left: float = 0.0
    top: float = 0.0
    across: float = 1.0
    down: float = 1.0


Move = Callable[[Seen], Seen]


def check_pixels(width: int, height: int) -> None:
    """Refuse images that are too large.

    Raises:
        InputError: There are more than `PIXEL_LIMIT` pixels.
    """
    if width * height > PIXEL_LIMIT:
        raise too_large()


def too_large() -> InputError:
    """The error for an image that is too large."""
    message = f"has, or is resized to, more than {PIXEL_LIMIT:,} pixels"
    return InputError(message, hint="make it smaller, or less elongated")


@dataclass(frozen=True)
class resized:
    """Resize, with Pillow's ``reducing_gap``."""

    sizing: Sizing
    resample: Image.Resampling
    gap: float | None = None

    def __call__(self, seen: Seen) -> Seen:
        """The moved image."""
        before = seen.image.size
        width, height = self.sizing(*before)
        check_pixels(width, height)
        if not width or not height:
            raise InputError(f"{before[0]} × {before[1]} pixels are too few to be resized")
        image = seen.image.resize((width, height), resample=self.resample, reducing_gap=self.gap)
        across, down = seen.across * before[0] / width, seen.down * before[1] / height
        return Seen(image, seen.left, seen.top, across, down)


@dataclass(frozen=True)
class cropped:
    """Cut out the centre; what is beyond the image is black."""

    sizing: Sizing

    def __call__(self, seen: Seen) -> Seen:
        """The moved image."""
        (width, height), (wide, high) = seen.image.size, self.sizing(*seen.image.size)
        check_pixels(wide, high)
        left, top = (width - wide) // 2, (height - high) // 2
        return _placed(seen, left, top, left + wide, top + high)


def padded(wide: int, high: int) -> Move:
    """Put the image into the middle of a black one."""

    def move(seen: Seen) -> Seen:
        check_pixels(wide, high)
        left, top = (wide - seen.image.width) // 2, (high - seen.image.height) // 2
        return _placed(seen, -left, -top, wide - left, high - top)

    return move


def mirrored(sizing: Sizing) -> Move:
    """Continue the image to the right and below by its mirror image."""

    def move(seen: Seen) -> Seen:
        (width, height), (wide, high) = seen.image.size, sizing(*seen.image.size)
        check_pixels(wide, high)
        beyond = ((0, high - height), (0, wide - width), (0, 0))
        pixels = np.asarray(seen.image)
        grown = np.pad(pixels, beyond[: pixels.ndim], mode="symmetric")
        return Seen(Image.fromarray(grown), seen.left, seen.top, seen.across, seen.down)

    return move


def _placed(seen: Seen, left: int, top: int, right: int, bottom: int) -> Seen:
    image = seen.image.crop((left, top, right, bottom))
    x, y = seen.left + left * seen.across, seen.top + top * seen.down
    return Seen(image, x, y, seen.across, seen.down)


# --- sizes ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class sides:
    """These, whatever the image."""

    width: int
    height: int

    def __call__(self, width: int, height: int) -> tuple[int, int]:
        """The new sides."""
        return self.width, self.height


@dataclass(frozen=True)
class edge:
    """The shortest edge; the longer one is rounded down."""

    shortest: int

    def __call__(self, width: int, height: int) -> tuple[int, int]:
        """The new sides."""
        longer = int(self.shortest * max(width, height) / min(width, height))
        return (self.shortest, longer) if width <= height else (longer, self.shortest)


def longest_edge(longest: int) -> Sizing:
    """The longest edge; the other is rounded to the nearest."""

    def size(width: int, height: int) -> tuple[int, int]:
        scale = longest / max(width, height)
        return int(width * scale + 0.5), int(height * scale + 0.5)

    return size


def multiples(divisor: int) -> Sizing:
    """The image's own, rounded down to multiples."""
    return lambda width, height: (width // divisor * divisor, height // divisor * divisor)


def next_multiples(divisor: int) -> Sizing:
    """The next larger multiples, also where a side is one already (Swin2SR)."""
    return lambda width, height: (
        (width // divisor + 1) * divisor,
        (height // divisor + 1) * divisor,
    )


def scaled_sides(wide: int, high: int, multiple: int, *, keep: bool) -> Sizing:
    """Sides as multiples; with ``keep`` scaled as little as needed, without distortion (DPT)."""

    def size(width: int, height: int) -> tuple[int, int]:
        across, down = wide / width, high / height
        if keep:
            across = down = min(across, down, key=lambda scale: (abs(1 - scale), scale != down))
        found = (round(each / multiple) * multiple for each in (across * width, down * height))
        return next(found), next(found)

    return size


def between(shorter: int, longer: int, divisor: int) -> Sizing:
    """The shortest edge unless the other becomes too long, as multiples (ViLT)."""

    def size(width: int, height: int) -> tuple[int, int]:
        scale = shorter / min(width, height)
        scaled = (width * scale, float(shorter)) if height < width else (shorter, height * scale)
        if (most := max(scaled)) > longer:
            scaled = (longer / most * scaled[0], longer / most * scaled[1])
        across, down = (int(each + 0.5) // divisor * divisor for each in scaled)
        return across, down

    return size


def bounded_edge(shortest: int, longest: int | None, divisor: int = 1) -> Sizing:
    """The shortest edge, or a smaller one with which the other is ``longest`` (DETR)."""

    def size(width: int, height: int) -> tuple[int, int]:
        low, high = min(width, height), max(width, height)
        exact = float(shortest)
        if longest is not None and high / low * shortest > longest:
            exact = longest * low / high
        whole = round(exact)
        found = (low, high) if low == whole else (whole, int(exact * high / low))
        across, down = found if width <= height else found[::-1]
        return across // divisor * divisor, down // divisor * divisor

    return size


def raised_edge(shortest: int, longest: int, divisor: int) -> Sizing:
    """The shortest edge, or a smaller one with which the other is ``longest``, as multiples."""

    def size(width: int, height: int) -> tuple[int, int]:
        low, high = min(width, height), max(width, height)
        short, long = shortest, int(shortest * high / low)
        if long > longest:
            short, long = int(longest * short / long), longest
        across, down = (short, long) if width <= height else (long, short)
        return -(-across // divisor) * divisor, -(-down // divisor) * divisor

    return size


def whole_patches(side: int, most: int) -> Sizing:
    """The largest scale with which whole patches that cover the image are ``most`` (SigLIP 2)."""

    def size(width: int, height: int) -> tuple[int, int]:
        low, high = _PRECISION / 10, 100.0
        while high - low >= _PRECISION:
            scale = (low + high) / 2
            across, down = (covering(each, scale) for each in (width, height))
            low, high = (scale, high) if across * down <= most else (low, scale)
        return covering(width, low) * side, covering(height, low) * side

    def covering(length: int, scale: float) -> int:
        return max(math.ceil(length * scale / side), 1)

    return size


def thumbnail(wide: int, high: int) -> Sizing:
    """Small enough for both sides, never larger (Donut)."""

    def size(width: int, height: int) -> tuple[int, int]:
        across, down = min(width, wide), min(height, high)
        if (across, down) != (width, height) and height > width:
            across = int(width * down / height)
        elif (across, down) != (width, height) and width > height:
            down = int(height * across / width)
        return across, down

    return size


def part_of_shortest(across: float, down: float) -> Sizing:
    """These shares of the shortest edge, rounded down (Perceiver)."""
    return lambda w, h: (int(across * min(w, h)), int(down * min(w, h)))


def shrunk(length: int, share: float) -> int:
    """``length / share``, rounded down: the size of which a crop of ``length`` is that share."""
    return max(math.floor(length / share), 1)
