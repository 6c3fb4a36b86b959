"""What holds for all requests: limits, deadlines, checks, keys, logs, numbers, and no paths."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
from committed import MODELS

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from palrp_onnx.errors import InputError, ModelError
from palrp_onnx.serving.lane import Lane
from palrp_onnx.serving.logs import Aside, LogLines
from palrp_onnx.serving.refusals import Refusal, concealed, refusal_of
from palrp_onnx.serving.served import Served

EXPLAIN = "/v1/models/reviews-rope:explain"
BODY = {"instances": ["A gripping film."]}


@pytest.fixture
def slow(opened: dict[str, Served], monkeypatch: pytest.MonkeyPatch) -> dict[str, Served]:
    """Models that take half a second."""
    run = Served.run

    def waiting(self: Served, batch: Any) -> Any:
        time.sleep(0.5)
        return run(self, batch)

    monkeypatch.setattr(Served, "run", waiting)
    return opened


def test_limits(start: Any, opened: dict[str, Served], monkeypatch: pytest.MonkeyPatch) -> None:
    client = start(opened=opened, max_body=200)
    long = {"instances": ["film " * 100]}
    for sent in ({"json": long}, {"content": iter([b" " * 150, b" " * 150])}):
        answer = client.post(EXPLAIN, **sent)
        assert (answer.status_code, answer.json()["code"]) == (413, "limit")
    assert client.post(EXPLAIN, json=BODY).status_code == 200
    assert (
        client.post(EXPLAIN, content=b"x", headers={"content-encoding": "gzip"}).status_code == 415
    )
    many = {"instances": ["a"] * 65}
    assert start(opened=opened).post(EXPLAIN, json=many).status_code == 413
    short = opened["reviews-rope"].options
    monkeypatch.setattr(opened["reviews-rope"], "options", type(short)(models=(), max_tokens=8))
    answer = start(opened=opened).post(EXPLAIN, json=long)
    assert (answer.status_code, "at most 8 tokens" in answer.text) == (413, True)


def test_the_deadline(start: Any, slow: dict[str, Served]) -> None:
    client = start(opened=slow, timeout=0.1)
    answer = client.post(EXPLAIN, json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    client = start(opened=slow)
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    for given, status in ((1e5, 504), (0, 400), ("x", 400), (10**400, 200)):
        body = {"inputs": [text], "parameters": {"timeout": given}}
        assert client.post("/v2/models/reviews-rope/explain", json=body).status_code == status


def test_an_open_ledger_is_an_error(start: Any, opened: dict[str, Served]) -> None:
    client = start(opened=opened, fail_on=("residual>1e-12",))
    answer = client.post(EXPLAIN, json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (500, "check")
    assert "--fail-on 'residual>1e-12'" in answer.json()["error"]
    client = start(opened=opened, fail_on=("residual>1e-3",))
    (record,) = client.post(EXPLAIN, json=BODY).json()["explanations"]
    assert [each["passed"] for each in record["checks"]] == [True]


@pytest.mark.quick
def test_keys(start: Any, opened: dict[str, Served], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first\nsecond\n")
    client = start(opened=opened, api_keys=str(file))
    for headers in ({}, {"authorization": "Bearer other"}, {"x-api-key": "firs"}):
        for path in ("/metrics", "/", "/v2/models/reviews-rope"):
            assert client.get(path, headers=headers).status_code == 401
    for headers in ({"authorization": "Bearer first"}, {"x-api-key": "second"}):
        assert client.get("/v2/models/reviews-rope", headers=headers).status_code == 200
    assert client.get("/v2/health/ready").status_code == 200
    for text in ("", "\n"):
        file.write_text(text)
        with pytest.raises(InputError):
            start(opened=opened, api_keys=str(file))


def test_ids_of_requests(client: TestClient) -> None:
    given = client.get("/v2", headers={"x-request-id": "mine-7"})
    assert given.headers["x-request-id"] == "mine-7"
    for bad in ("a b", "x" * 200, ""):
        found = client.get("/nowhere", headers={"x-request-id": bad})
        assert re.fullmatch("[0-9a-f]{32}", found.headers["x-request-id"])


@pytest.mark.parametrize("log_texts", [False, True])
def test_logs_have_no_texts(
    start: Any, opened: dict[str, Served], log_texts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client = start(opened=opened, log_texts=log_texts)
    with caplog.at_level(logging.INFO, "palrp_onnx.serving"):
        client.post(EXPLAIN, json={"instances": ["secret"]}, headers={"x-request-id": "r1"})
        body = {"instances": [{"text": "x", "target": "secret"}]}
        client.post(EXPLAIN, json=body, headers={"x-request-id": "r2"})
    lines = [LogLines().format(each) for each in caplog.records if each.msg == "request"]
    first, second = (json.loads(line) for line in lines)
    assert (first["request"], first["status"], first["rows"]) == ("r1", 200, 1)
    assert (first["verb"], first["model"]) == ("explain", "reviews-rope")
    assert (second["status"], second["code"]) == (400, "target")
    assert ("secret" in lines[1]) == log_texts
    assert "secret" not in lines[0]


def test_numbers(client: TestClient) -> None:
    client.post(EXPLAIN, json=BODY)
    client.post("/v1/models/none-of-them:explain", json=BODY)
    text = client.get("/metrics").text
    for line in (
        'palrp_requests_total{model="reviews-rope",status="200",verb="explain"} 1.0',
        'palrp_requests_total{model="",status="404",verb="explain"} 1.0',
        'palrp_rows_waiting{model="reviews-rope"} 0.0',
        'palrp_batch_rows_bucket{le="1.0",model="reviews-rope"} 1.0',
        'palrp_residual_bucket{le="0.001",model="reviews-rope"} 1.0',
        'palrp_run_seconds_count{model="reviews-rope"} 1.0',
    ):
        assert line in text
    assert "none-of-them" not in text


def test_no_path_is_said(client: TestClient, opened: dict[str, Served]) -> None:
    folder = str(MODELS.parent)
    for path in (
        "/",
        "/openapi.json",
        "/metrics",
        "/v2/models/reviews-rope",
        "/v2/repository/index",
    ):
        assert folder not in client.get(path).text
    assert folder not in client.post(EXPLAIN, json=BODY).text
    error = ModelError("cannot read /a/b c", place="/srv/models/m.onnx", hint="see /x/y/z.txt:3")
    assert "/srv" not in refusal_of(error).message
    assert (
        concealed("at /srv/models/m.onnx: 1/2 and/or 'v/x' (/a/b)")
        == "at m.onnx: 1/2 and/or 'v/x' (b)"
    )
    unexpected = refusal_of(RuntimeError("/srv/models"))
    assert (unexpected.status, "/srv" in unexpected.message) == (500, False)


@pytest.mark.parametrize("log_texts", [False, True])
def test_an_unexpected_error_is_no_traceback(
    start: Any,
    opened: dict[str, Served],
    log_texts: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has where it came from, and what it says only if messages are wanted."""

    first, second = "a secret", "another one"

    def broken(*_: Any) -> Any:
        try:
            raise KeyError(first)
        except KeyError as error:
            raise ZeroDivisionError(second) from error

    monkeypatch.setattr(Served, "to_explain", broken)
    client = start(opened=opened, log_texts=log_texts)
    answer = client.post(EXPLAIN, json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert first not in answer.text
    assert second not in answer.text
    (line,) = (LogLines().format(each) for each in caplog.records if each.msg == "failure")
    found = json.loads(line)["traceback"]
    assert "in broken" in found
    assert found.index("KeyError") < found.index("ZeroDivisionError")
    assert (first in found, second in found) == (log_texts, log_texts)


def test_what_no_route_answers(client: TestClient) -> None:
    for method, path, status in (("GET", "/x", 404), ("DELETE", "/v2", 405), ("GET", EXPLAIN, 405)):
        answer = client.request(method, path)
        assert answer.status_code in (status, 404)
        assert set(answer.json()) == {"error", "code"}


def test_the_interface_is_described(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for method in operations:
            own = path.replace("{name}", "reviews-rope")
            assert client.request(method, own).status_code not in (404, 405), path
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    page = client.get("/").text
    assert "reviews-rope" in page
    assert not re.findall(r"(?:src|href)=\"https?:", page)


def test_a_client_that_goes_away_is_not_answered(start: Any, slow: dict[str, Served]) -> None:
    client = start(opened=slow)
    sent: list[Any] = []

    async def ask() -> None:
        messages = [
            {"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": EXPLAIN,
            "headers": [],
            "query_string": b"",
            "state": {},
        }
        await client.app(scope, receive, send)

    assert client.portal is not None
    client.portal.call(ask)
    assert sent == []
    assert 'status="499"' in client.get("/metrics").text


def test_spans_where_opentelemetry_is_installed(start: Any, opened: dict[str, Served]) -> None:
    middleware = pytest.importorskip("opentelemetry.instrumentation.asgi")
    app, layers = start(opened=opened).app, set()
    while app is not None:
        layers.add(type(app))
        app = getattr(app, "_app", None)
    assert middleware.OpenTelemetryMiddleware in layers


def test_a_full_queue_turns_away_before_anything_is_read(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what needs room in it."""

    def full(_: Lane, rows: int, own: int = 0) -> None:
        raise Refusal(429, "busy", f"No room for {rows} beside {own}", {"retry-after": "3"})

    monkeypatch.setattr(Lane, "check_room", full)
    monkeypatch.setattr(Lane, "pause", lambda _: 0.0)
    version = client.get("/v2/models/reviews-rope").json()["versions"][0]
    v2 = f"/v2/models/reviews-rope/versions/{version}"
    for path in (EXPLAIN, "/v1/models/digits-vit:predict", f"{v2}/infer", f"{v2}/explain"):
        answer = client.post(path, content=b"nonsense", headers={"content-encoding": "gzip"})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        assert answer.json() == {"error": "No room for 1 beside 0", "code": "busy"}
        assert answer.headers["x-request-id"]
    assert client.post("/v1/models/none:explain", json=BODY).status_code == 404
    assert client.post("/v1/models/reviews-rope:other", json=BODY).status_code == 405
    assert client.get(v2).status_code == 200
    found = 'palrp_requests_total{model="reviews-rope",status="429",verb="explain"} 2.0'
    assert found in client.get("/metrics").text


def test_lines_are_written_aside(capsys: pytest.CaptureFixture[str]) -> None:
    handler = Aside()
    handler.setFormatter(LogLines())
    for name in ("one", "two"):
        handler.handle(logging.makeLogRecord({"msg": name}))
    handler.flush()
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["one", "two"]


def test_the_loop_is_not_blocked_by_a_run(start: Any, slow: dict[str, Served]) -> None:
    client = start(opened=slow)

    async def both() -> list[str]:
        import httpx2 as httpx

        ended: list[str] = []
        transport = httpx.ASGITransport(app=client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as session:

            async def ask(name: str, method: str, path: str, **sent: Any) -> None:
                assert (await session.request(method, path, **sent)).status_code == 200
                ended.append(name)

            explain = asyncio.create_task(ask("explain", "POST", EXPLAIN, json=BODY))
            await asyncio.sleep(0.05)
            await ask("live", "GET", "/v2/health/live")
            await explain
        return ended

    assert client.portal is not None
    assert client.portal.call(both) == ["live", "explain"]
