"""Applications in this process, which tests ask as any client of HTTP would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from committed import MODELS

pytest.importorskip("starlette")
from starlette.testclient import TestClient  # noqa: E402

from palrp_onnx.serving import ServingOptions, application, places  # noqa: E402
from palrp_onnx.serving.served import Served  # noqa: E402

Start = Callable[..., TestClient]
TEXT = "A gripping film."


def options(*models: str, **named: Any) -> ServingOptions:
    """Options for committed models; files are read once."""
    found = places(str(MODELS / name) for name in models or ("reviews-rope",))
    return ServingOptions(models=found, **{"reload": 0, **named})


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts an application, and closes it after the test."""
    with ExitStack() as stack:

        def started(*models: str, opened: Any = None, **named: Any) -> TestClient:
            app = application(options(*models, **named), opened)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield started


@pytest.fixture(scope="session")
def opened() -> dict[str, Served]:
    """Models that are open with their usual options, for tests that change neither."""
    found = options("reviews-rope", "digits-vit", methods=("pa-lrp", "attnlrp"))
    return {place.name: Served(place, found) for place in found.models}


@pytest.fixture
def client(start: Start, opened: dict[str, Served]) -> TestClient:
    """A client of both models."""
    return start("reviews-rope", "digits-vit", opened=opened, methods=("pa-lrp", "attnlrp"))
