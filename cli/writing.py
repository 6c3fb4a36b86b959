"""Writing to stdout, which may be closed or full."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from palrp_onnx.files import refusal


def write_stdout(data: bytes) -> None:
    """Write to stdout. It is no failure if the reader has closed the pipe.

    Raises:
        ResourceError: The disk that stdout is redirected to is full.
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
    """Redirect stdout to the null device after a failure, as the interpreter flushes it at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_closed_streams() -> None:
    """Open the null device for stdin, stdout and stderr where the shell has closed them (``>&-``).

    Otherwise the next file that is opened would get the number of the closed stream, and what a
    native library prints would go into it. The system gives the lowest free number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
