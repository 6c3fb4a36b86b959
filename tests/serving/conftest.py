"""Applications in this process, which tests ask as any client of HTTP would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("starlette")
from serving_options import serving
from starlette.testclient import TestClient

from palrp_onnx.serving import application
from palrp_onnx.serving.served import Served

Start = Callable[..., TestClient]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts an application, and closes it after the test."""
    with ExitStack() as stack:

        def started(*models: str, opened: Any = None, **named: Any) -> TestClient:
            app = application(serving(*models, **named), opened)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield started


@pytest.fixture(scope="session")
def opened() -> dict[str, Served]:
    """Models that are open with their usual options, for tests that change neither."""
    found = serving("reviews-rope", "digits-vit", methods=("pa-lrp", "attnlrp"))
    return {place.name: Served(place, found) for place in found.models}


@pytest.fixture
def client(start: Start, opened: dict[str, Served]) -> TestClient:
    """A client of both models."""
    return start("reviews-rope", "digits-vit", opened=opened, methods=("pa-lrp", "attnlrp"))
