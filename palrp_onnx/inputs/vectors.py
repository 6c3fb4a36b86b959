"""A vector from a ``.npy`` file, without pickle."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from palrp_onnx.errors import InputError
from palrp_onnx.inputs.reading import read_bytes
from palrp_onnx.inputs.tensors import read_npy
from palrp_onnx.relevance.target import Vector

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
    numbers = array.reshape(-1).astype("<f8")
    with np.errstate(over="ignore"):
        length = np.linalg.norm(numbers)
    if not 0 < length < np.inf:
        raise InputError(
            "holds NaN, infinity, only zeros, or numbers whose squares overflow",
            place=str(path),
        )
    return Vector(path.name, numbers, hashlib.sha256(numbers.tobytes()).hexdigest())
