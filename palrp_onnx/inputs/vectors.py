"""Vectors and masks of targets, from files; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_bytes
from palrp_onnx.inputs.tensors import read_npy
from palrp_onnx.relevance.target import Vector
from palrp_onnx.types import Array, Box

#: Largest size of the file, in bytes.
_LIMIT = 16 << 20


def read_vector(path: Path) -> Vector:
    """The vector in ``path``: an array [D] or [1, D] of real numbers with a finite norm above 0.

    Raises:
        InputError: The file holds anything else, cannot be read, or is larger than 16 MiB.
    """
    data = read_bytes(path, limit=_LIMIT)
    array = read_npy(io.BytesIO(data), len(data), str(path))
    if array.ndim != 1 and (array.ndim != 2 or len(array) != 1):
        raise InputError(
            f"holds an array of shape {list(array.shape)}, not one vector",
            place=str(path),
            hint="Write one row of it: np.save(file, array[0]).",
        )
    return vector_of(array.reshape(-1), path)


def vector_of(numbers: Array, path: Path) -> Vector:
    """The vector [D] with the name of the file that it comes from.

    Raises:
        InputError: Its norm is not finite, or 0.
    """
    wide = numbers.astype("<f8")
    with np.errstate(over="ignore"):
        length = np.linalg.norm(wide)
    if not 0 < length < np.inf:
        raise InputError(
            "holds NaN, infinity, only zeros, or numbers whose squares overflow",
            place=str(path),
        )
    return Vector(path.name, wide, hashlib.sha256(wide.tobytes()).hexdigest())


def read_mask(path: Path) -> Array:
    """A mask of places, true where it is not zero: an array in a ``.npy`` file, or a picture.

    Raises:
        InputError: The file cannot be read, or is larger than 16 MiB.
    """
    from PIL import Image

    data = read_bytes(path, limit=_LIMIT)
    if path.suffix.lower() == ".npy":
        return np.asarray(read_npy(io.BytesIO(data), len(data), str(path)) != 0)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(np.asarray(picture.convert("L")) != 0)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"is no mask that can be read: {error}",
            place=str(path),
            hint="Use a .npy file, or a picture that is black outside of the region.",
        ) from error


def mask_of_places(mask: Array, box: Box, size: tuple[int, int]) -> Array:
    """A mask of pixels as one of places: those of which at least half of the area is in it.

    Args:
        mask: [height, width] of a picture.
        box: The part of it that the places cover, in pixels; what is outside of it is not masked.
        size: Rows and columns of places.
    """
    rows, columns = size
    down = _overlaps(box.top, box.bottom, rows, mask.shape[0])
    across = _overlaps(box.left, box.right, columns, mask.shape[1])
    share = down @ (mask != 0) @ across.T
    return np.asarray(share >= 0.5 - 1e-9)


def _overlaps(first: float, last: float, places: int, pixels: int) -> Array:
    """[places, pixels]: which share of each place, between ``first`` and ``last``, a pixel is."""
    edges = np.linspace(first, last, places + 1)
    upper = np.minimum(edges[1:, None], np.arange(1, pixels + 1))
    lower = np.maximum(edges[:-1, None], np.arange(pixels))
    return np.asarray(np.maximum(upper - lower, 0) * places / (last - first))
