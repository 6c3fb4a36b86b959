"""One line of the result: an explained record, or the error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from palrp_onnx.errors import PalrpError
from palrp_onnx.record import Attribution


@dataclass(frozen=True)
class Line:
    """A JSON object, without the newline."""

    data: bytes
    failed: bool = False


class Explained(Attribution, frozen=True, kw_only=True):
    """A result record with ``meta`` of the input.

    ``run.ms`` is empty, and there is no ``run.date``: lines of two equal runs are equal.
    """

    meta: Any | UnsetType = UNSET


class Failure(Struct, frozen=True, kw_only=True):
    """The error of a record; ``code`` is the code of the error class."""

    code: str
    message: str
    place: str
    hint: str


class Failed(Struct, frozen=True, kw_only=True):
    """The line of a record that could not be explained."""

    id: str
    error: Failure


def explained(record: Attribution, meta: Any) -> Line:
    """The line of an explained record.

    Raises:
        ModelError: It holds NaN or infinity, which JSON cannot represent.
    """
    record.require_finite()
    run = structs.replace(record.run, ms={}, date=UNSET)
    fields = structs.asdict(structs.replace(record, run=run))
    return Line(msgspec.json.encode(Explained(**fields, meta=meta)))


def failed(name: str, place: str, error: Exception) -> Line:
    """The line of a record that could not be explained."""
    if isinstance(error, PalrpError):
        where = place if error.place in ("", name, place) else f"{place}: {error.place}"
        what = Failure(
            code=error.code, message=_steady(error.message), place=where, hint=_steady(error.hint)
        )
    elif isinstance(error, MemoryError):
        what = Failure(code="resource", message="Out of memory", place=place, hint="")
    else:
        detail = " ".join(str(error).split())
        message = _steady(f"{type(error).__name__}: {detail}")
        what = Failure(code="bug", message=message, place=place, hint="Please report it.")
    return Line(msgspec.json.encode(Failed(id=name, error=what)), failed=True)


def _steady(message: str) -> str:
    """The message without addresses of objects, which differ from run to run."""
    return re.sub(r" (object )?at 0x[0-9a-f]+", "", message)
