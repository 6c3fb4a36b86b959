"""Logs with one JSON object a line, without the texts of requests."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import traceback
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

#: What every record of ``logging`` has.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

#: Seconds from one look at what is to be written to the next.
_SECONDS = 0.1
#: Most records that wait to be written.
_MOST = 100_000


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


class Aside(logging.Handler):
    """Writes to stderr in a thread of its own, all lines of a short time at once.

    Every write hands over Python's lock. Where threads run models, whoever writes waits to get it
    back, and the event loop may not wait once a line. If nobody takes the lines, the oldest go.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[logging.LogRecord] = deque(maxlen=_MOST)
        self._writing = threading.Lock()
        threading.Thread(target=self._serve, name="logs", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written soon."""
        self._records.append(record)

    def flush(self) -> None:
        """Write what there is."""
        with self._writing:
            records = [self._records.popleft() for _ in range(len(self._records))]
            if records:
                with suppress(OSError, ValueError):  # nobody reads them
                    sys.stderr.write("".join(f"{self.format(each)}\n" for each in records))
                    sys.stderr.flush()

    def _serve(self) -> None:
        while True:
            time.sleep(_SECONDS)
            self.flush()


#: For :func:`logging.config.dictConfig`, and uvicorn, whose own line a request is left out.
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": LogLines}},
    "handlers": {"stderr": {"()": Aside, "formatter": "json"}},
    "loggers": {
        "palrp_onnx": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
    },
}
