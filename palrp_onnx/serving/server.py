"""Runs the application on uvicorn, in this process or in several."""

from __future__ import annotations

import os
import sys
import tempfile
from math import ceil
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from palrp_onnx.serving.app import application
from palrp_onnx.serving.logs import CONFIG
from palrp_onnx.serving.metrics import SHARED
from palrp_onnx.serving.options import ServingOptions
from palrp_onnx.serving.served import Served
from palrp_onnx.serving.wire import BoundedHttp

#: The options, for worker processes.
_VARIABLE = "PALRP_SERVING"
#: Seconds after which a worker that says nothing is replaced. The parent waits as long for one that
#: dies while it is asked, and hears no signal meanwhile.
_SILENT = 15
#: Seconds after which a thread hands over Python's lock. Reading and describing would otherwise
#: keep the event loop waiting, and with it the next run.
_SWITCH = 5e-4


def serve(options: ServingOptions, *, host: str, port: int, workers: int = 1) -> None:
    """Serve until a signal ends the process; what was accepted is answered first.

    Models are opened before anything is accepted. With several workers, every one is a process
    with models of its own, and one that dies is replaced.

    Args:
        options: What is served, and how.
        host: Address to listen at.
        port: Port; 0: a free one, which is logged.
        workers: Number of processes.

    Raises:
        PalrpError: A model cannot be explained with these options.
    """
    sys.setswitchinterval(_SWITCH)
    opened = {place.name: Served(place, options) for place in options.models}
    settings: dict[str, Any] = {
        "host": host,
        "port": port,
        "http": BoundedHttp,
        "ws": "none",
        "log_config": CONFIG,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": ceil(options.timeout) + 1,
    }
    if workers == 1:
        uvicorn.run(application(options, opened), **settings)
        return
    opened.clear()  # they can be explained; every worker opens its own
    with tempfile.TemporaryDirectory() as shared:
        os.environ |= {_VARIABLE: options.encoded(), SHARED: shared}
        uvicorn.run(
            "palrp_onnx.serving.server:from_environment",
            factory=True,
            workers=workers,
            timeout_worker_healthcheck=_SILENT,
            **settings,
        )


def from_environment() -> ASGIApp:
    """The application of a worker."""
    sys.setswitchinterval(_SWITCH)
    return application(ServingOptions.decoded(os.environ[_VARIABLE]))
