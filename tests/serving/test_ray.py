"""The application as replicas of Ray Serve, one of which is killed on the way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from committed import MODELS

pytest.importorskip("ray.serve")
pytest.importorskip("starlette")
import httpx2 as httpx
import ray
from ray import serve

from palrp_onnx.errors import UsageError
from palrp_onnx.serving.ray import app, options_of

MODEL = str(MODELS / "reviews-rope")
NAME = f"served-by-{os.getpid()}"
URL = "http://127.0.0.1:8123"
BODY = {"instances": ["A gripping film."]}


def test_options_of_a_command_line() -> None:
    given = {"models": f"a={MODEL},b={MODEL}", "timeout": "5", "queue": "64"}
    found = options_of({**given, "methods": "pa-lrp,attnlrp"})
    assert [each.name for each in found.models] == ["a", "b"]
    assert (found.timeout, found.queue) == (5.0, 64)
    assert found.methods == ("pa-lrp", "attnlrp")
    for wrong in ({}, {"models": MODEL, "quue": 7}, {"models": MODEL, "queue": "many"}):
        with pytest.raises(UsageError):
            options_of(wrong)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for check in ("READY", "HEALTH"):  # a busy machine may take long to start the proxy
        monkeypatch.setenv(f"RAY_SERVE_PROXY_{check}_CHECK_TIMEOUT_S", "120")
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": 8123})
    found = app({"models": MODEL, "reload": 0})
    deployment = found._bound_deployment.options(num_replicas=2)
    serve.run(deployment.bind(), name=NAME)
    yield
    serve.shutdown()
    ray.shutdown()


def replicas() -> list[int]:
    """Processes of the replicas, which Ray gives titles."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            if each.read_text().startswith(f"ray::ServeReplica:{NAME}:"):
                found.append(int(each.parent.name))
    return found


async def asked(count: int, kill: int) -> Counter[str]:
    """What requests came to; before one of them, a replica is killed."""
    found: Counter[str] = Counter()
    numbers = iter(range(count))

    async def client() -> None:
        async with httpx.AsyncClient(timeout=60) as session:
            for number in numbers:
                if number == kill:
                    os.kill(replicas()[0], signal.SIGKILL)
                answer = await session.post(f"{URL}/v1/models/reviews-rope:explain", json=BODY)
                found[str(answer.status_code)] += 1

    await asyncio.gather(*(client() for _ in range(8)))
    return found


@pytest.mark.heavy
def test_a_replica_that_is_killed_loses_no_request(served: Any) -> None:
    assert httpx.get(f"{URL}/v2/health/ready").json() == {"ready": True}
    first = httpx.post(f"{URL}/v1/models/reviews-rope:explain", json=BODY).json()
    assert first["explanations"][0]["target"]["label"] == "POSITIVE"
    found = asyncio.run(asked(200, kill=60))
    assert sum(found.values()) == 200  # every request has an answer
    assert found["200"] > 150
    assert set(found) <= {"200", "500", "503"}
    assert asyncio.run(asked(20, kill=-1)) == {"200": 20}
