"""The date of a record."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from palrp_onnx.errors import UsageError

_NAME = "SOURCE_DATE_EPOCH"


def utc_now() -> str:
    """The time in UTC, as in ISO 8601; ``SOURCE_DATE_EPOCH`` is taken for it if it is set.

    Raises:
        UsageError: That is not a number of seconds.
    """
    given = os.environ.get(_NAME)
    if not given:
        return _text(datetime.now(UTC))
    try:
        return _text(datetime.fromtimestamp(int(given), UTC))
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{_NAME} is {given[:40]!r}, which is no number of seconds since 1970",
            hint="Unset it, or give whole seconds.",
        ) from None


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
