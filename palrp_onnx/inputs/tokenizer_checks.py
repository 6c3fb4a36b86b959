"""Checks of tokenizer files, which can make the native tokenizers library abort the process."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from palrp_onnx.errors import InputError

#: Largest number of characters that a normaliser may make of one, over all its replacements.
MAX_GROWTH = 16


class _File(msgspec.Struct):
    """The part of ``tokenizer.json`` that can make native code abort."""

    normalizer: Any = None


@contextmanager
def panics_are_errors(message: str, *, place: str, hint: str = "") -> Iterator[None]:
    """Turn whatever the native library raises into an `InputError`.

    A panic of the library is a ``BaseException``, not an ``Exception``.
    """
    try:
        yield
    except (InputError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise InputError(f"{message}: {error}", place=place, hint=hint) from error


def check_normalizer(data: bytes, place: str) -> None:
    """Refuse a normaliser that would exhaust memory or abort the process.

    A replacement can write many characters for one, and the next one replaces each of these. A
    character table that is shorter than its header states aborts the process.

    Raises:
        InputError: The normaliser is of this kind, or the file is not JSON.
    """
    try:
        steps = list(_steps(msgspec.json.decode(data, type=_File).normalizer))
    except (ValueError, RecursionError) as error:
        message = f"is not a tokenizer.json that can be used: {error}"
        raise InputError(message, place=place) from error
    growth = 1
    for step in steps:
        growth *= _growth(step)
        if growth > MAX_GROWTH:
            message = f"its normaliser writes more than {MAX_GROWTH} characters for one"
            raise InputError(message, place=place)
        if step.get("type") == "Precompiled" and not _is_whole(step.get("precompiled_charsmap")):
            raise InputError("its table of characters is damaged", place=place)


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(normalizer, dict):
        return
    yield normalizer
    inner = normalizer.get("normalizers")
    for each in inner if isinstance(inner, list) else ():
        yield from _steps(each)


def _growth(step: dict[str, Any]) -> int:
    if step.get("type") != "Replace":
        return 1
    content, pattern = step.get("content"), step.get("pattern")
    replaced = pattern.get("String") if isinstance(pattern, dict) else None
    # A regular expression may match a single character, or none.
    shortest = len(replaced) if isinstance(replaced, str) else 1
    return -(-len(content) // max(shortest, 1)) or 1 if isinstance(content, str) else 1


def _is_whole(table: Any) -> bool:
    """Whether the table holds its whole trie, whose size in bytes comes first, a multiple of 4."""
    if table is None or table == "":
        return True
    try:
        data = base64.b64decode(table, validate=True)
    except (ValueError, TypeError, binascii.Error):
        return False
    size = int.from_bytes(data[:4], "little")
    return len(data) >= 4 and size % 4 == 0 and size <= len(data) - 4
