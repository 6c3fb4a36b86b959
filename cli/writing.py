"""Standard output, which may have gone or have no room."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from palrp_onnx.files import refusal


def write_stdout(data: bytes) -> None:
    """Write to stdout; a reader that has gone is no failure.

    Raises:
        ResourceError: There is no room where stdout leads.
    """
    stream = sys.stdout.buffer
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        close_stdout()
    except OSError as error:
        close_stdout()
        raise refusal(error, "stdout") from error


def close_stdout() -> None:
    """Let the interpreter's last flush go nowhere, after stdout has failed."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
