"""Bounded, strict reading of small files, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from palrp_onnx.errors import InputError

_MIB = 1 << 20
_CONFIG_LIMIT = 64 * _MIB


def read_stream(stream: BinaryIO, *, limit: int, place: str) -> bytes:
    """All bytes of ``stream``.

    Raises:
        InputError: There are more than ``limit`` bytes, or they cannot be read.
    """
    try:
        data = stream.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", place=place) from error
    if len(data) > limit:
        raise InputError(f"is larger than {limit // _MIB} MiB", place=place)
    return data


def read_bytes(path: Path, *, limit: int, hint: str = "") -> bytes:
    """All bytes of the file ``path``.

    Raises:
        InputError: There is no such file, it cannot be read, or it is larger than ``limit`` bytes.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot be read: {reason}", place=str(path), hint=hint) from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"cannot be read: {error}", place=repr(str(path)), hint=hint) from error
    with stream:
        return read_stream(stream, limit=limit, place=str(path))


def read_json_object(path: Path, *, hint: str = "") -> dict[str, Any]:
    """The JSON object in the file ``path``.

    Raises:
        InputError: The file cannot be read, is not JSON, or does not hold an object.
    """
    data = read_bytes(path, limit=_CONFIG_LIMIT, hint=hint)
    try:
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()  # refuses half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid JSON: {error}", place=str(path)) from error
    if not isinstance(value, dict):
        raise InputError("does not hold a JSON object", place=str(path))
    return value


def read_optional_json(path: Path) -> dict[str, Any]:
    """As `read_json_object`, but an empty object if there is no such file."""
    return read_json_object(path) if path.is_file() else {}
