"""Errors as answers: a status, a code, and a message that names no place of the file system."""

from __future__ import annotations

import re
from pathlib import PurePath

from palrp_onnx.errors import (
    CheckError,
    InputError,
    OutputError,
    PalrpError,
    ResourceError,
    TargetError,
    UsageError,
)

#: What begins as an absolute path does, up to what cannot be part of one.
_PATH = re.compile(r"(?<![\w.:/])/[^\s'\"|,;()\[\]]+")
#: Errors that the caller can do something about.
_OF_CALLER = (UsageError, InputError, TargetError)


class Refusal(Exception):
    """An answer that is an error.

    Args:
        status: Status of HTTP.
        code: A stable code, as those of :class:`palrp_onnx.errors.PalrpError`.
        message: What is wrong, and the next step.
        headers: Further headers.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def refusal_of(error: Exception) -> Refusal:
    """The answer to an error of the library; of another error it says nothing but that."""
    if isinstance(error, Refusal):
        return error
    if not isinstance(error, PalrpError) or isinstance(error, OutputError):
        return Refusal(500, "internal", "An unexpected error; the log has it under the request id")
    status = 400 if isinstance(error, _OF_CALLER) else 422
    if isinstance(error, CheckError | ResourceError):
        status = 500 if isinstance(error, CheckError) else 503
    parts = [error.message, error.place and f"at {error.place}", error.hint]
    return Refusal(status, error.code, concealed(" | ".join(filter(None, parts))))


def concealed(text: str) -> str:
    """The text with the last part of every absolute path alone."""
    return _PATH.sub(lambda found: PurePath(found.group()).name, text)
