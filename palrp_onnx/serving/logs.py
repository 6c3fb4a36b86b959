"""Logs with one JSON object a line, without the texts of requests."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

#: What every record of ``logging`` has.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class LogLines(logging.Formatter):
    """A line: time, level, event, and what the event is about."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **{k: v for k, v in vars(record).items() if k not in _USUAL and v is not None},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def traceback_of(error: BaseException, *, texts: bool) -> str:
    """Where an error came from; without ``texts`` no message, which may have parts of a request."""
    if texts:
        return "".join(traceback.format_exception(error))
    found: list[str] = []
    each: BaseException | None = error
    while each is not None:
        found = [*traceback.format_tb(each.__traceback__), f"{type(each).__name__}\n", *found]
        each = each.__cause__ or each.__context__
    return "".join(found)


#: For :func:`logging.config.dictConfig`, and uvicorn, whose own line a request is left out.
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": LogLines}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {
        "palrp_onnx": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
    },
}
