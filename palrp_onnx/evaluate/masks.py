"""Masks of objects: reading them, and aligning maps with them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from palrp_onnx.errors import InputError
from palrp_onnx.evaluate.segmentation import IGNORED
from palrp_onnx.inputs import ImageGeometry
from palrp_onnx.inputs.moves import PIXEL_LIMIT
from palrp_onnx.inputs.reading import read_bytes
from palrp_onnx.types import Array, Box

_FILE_LIMIT = 256 << 20
#: Modes with one number per pixel: black and white, grey, or an index into a palette.
_MODES = ("1", "L", "P")


def read_mask(path: Path, *, ignored: int | None = None) -> Array:
    """Labels of every pixel [height, width] from a PNG: 0 background, 1 foreground, -1 ignored.

    Args:
        path: A PNG; level 0 is background, every other grey level or palette index foreground.
        ignored: The level of pixels that are ignored.

    Raises:
        InputError: The file cannot be read, is not such a PNG, or is too large.
    """
    data = read_bytes(path, limit=_FILE_LIMIT, hint="every image needs a mask with the same name")
    try:
        image = Image.open(BytesIO(data), formats=("PNG",))
        if image.width * image.height > PIXEL_LIMIT:
            raise InputError(f"has more than {PIXEL_LIMIT:,} pixels", place=str(path))
        if image.mode not in _MODES:
            raise InputError(
                f"has mode {image.mode}, not one 8-bit number a pixel",
                place=str(path),
                hint="save it in grey or with a palette",
            )
        levels = np.asarray(image).astype(np.int16)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"is not a readable PNG: {error}", place=str(path)) from error
    labels: Array = (levels != 0).astype(np.int8)
    if ignored is not None:
        labels[levels == ignored] = IGNORED
    return labels


def align(relevance: Array, mask: Array, geometry: ImageGeometry | None) -> tuple[Array, Array]:
    """The map at the mask's pixels, and the mask, over the part that the network saw.

    Resizing is bilinear between the centres of pixels. Pixels that were cropped away are left out.

    Args:
        relevance: The map [H, W] over the network's input.
        mask: Labels [height, width] over the whole picture.
        geometry: The part of the picture that the network saw; ``None``: all of it.

    Raises:
        InputError: The mask has another aspect ratio than the picture, or the network saw none of
            it.
    """
    height, width = mask.shape
    size, box = (width, height), Box(0.0, 0.0, float(width), float(height))
    if geometry is not None:
        size, box = geometry.size, geometry.box
    if abs(width * size[1] - height * size[0]) > max(*size, width, height):
        raise InputError(
            f"The mask is {width} × {height}, its picture {size[0]} × {size[1]}",
            hint="Masks cover the whole picture.",
        )
    rows, row_places = _seen(height, size[1], (box.top, box.bottom), relevance.shape[0])
    columns, column_places = _seen(width, size[0], (box.left, box.right), relevance.shape[1])
    if not len(rows) or not len(columns):
        raise InputError("The network saw nothing of the mask")
    across = _interpolate(relevance.T, column_places).T
    return _interpolate(across, row_places), mask[np.ix_(rows, columns)]


def _seen(count: int, length: int, edges: tuple[float, float], size: int) -> tuple[Array, Array]:
    """Rows of a mask that the network saw, and their places between the rows of its map.

    ``count`` rows of the mask cover a picture of ``length``; ``size`` rows of the map cover the
    part of it between ``edges``.
    """
    centres = (np.arange(count) + 0.5) * length / count
    (rows,) = np.nonzero((centres >= edges[0]) & (centres < edges[1]))
    places = (centres[rows] - edges[0]) / (edges[1] - edges[0]) * size - 0.5
    return rows, places.clip(0, size - 1)


def _interpolate(values: Array, places: Array) -> Array:
    """Rows of ``values`` at fractional places."""
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, len(values) - 1)
    share = (places - below).astype(values.dtype)[:, None]
    return np.asarray((1 - share) * values[below] + share * values[above])
