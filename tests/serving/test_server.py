"""The command on a real socket: it drains, it bears slow clients, and what it needs is named."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner
from committed import MODELS

from palrp_onnx.cli.main import program

pytest.importorskip("starlette")
import httpx2 as httpx

BODY = json.dumps({"instances": ["A gripping film."]}).encode()


@contextmanager
def server(*options: str, model: Path = MODELS / "digits-vit") -> Iterator[Any]:
    """The process of a server, its port, and the lines of its log."""
    words = [sys.executable, "-m", "palrp_onnx", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    try:
        yield process, _port(process, lines), lines
    finally:
        process.kill()
        process.wait(60)


def _port(process: subprocess.Popen[str], lines: list[str]) -> int:
    """The port of a server that has started; what it logs then is collected."""
    stream: IO[str] | None = process.stderr
    assert stream is not None
    for line in stream:
        lines.append(line)
        if found := re.search(r"running on http://127.0.0.1:(\d+)", line):
            threading.Thread(target=lambda: lines.extend(stream), daemon=True).start()
            return int(found[1])
    raise AssertionError("".join(lines))


def wait_for(url: str) -> None:
    """Wait until a worker answers; the parent says that it runs before it does."""
    for _ in range(600):
        try:
            httpx.get(f"{url}/v2/health/live")
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("no worker answers")


def request(path: str, body: bytes, length: int) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: m\r\ncontent-length: {length}\r\n\r\n"
    return head.encode() + body


def answered(connection: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_what_was_accepted_is_answered_before_the_end(tmp_path: Path) -> None:
    """SIGTERM comes while the body of a request is on its way."""
    with server(model=MODELS / "reviews-rope") as (process, port, lines):
        path = "/v1/models/reviews-rope:explain"
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(request(path, BODY[:10], len(BODY)))
            while httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code != 200:
                pass
            process.send_signal(signal.SIGTERM)
            while not any("Shutting down" in line for line in lines):
                pass
            connection.sendall(BODY[10:])
            found = answered(connection)
        assert found.startswith(b"HTTP/1.1 200")
        assert b'"explanations"' in found
        process.wait(60)
    logged = [json.loads(line) for line in lines]
    (own,) = (each for each in logged if each["event"] == "request" and each["model"])
    assert (own["verb"], own["status"], own["rows"]) == ("explain", 200, 1)
    assert "gripping" not in "".join(lines)


def test_clients_that_send_slowly_or_never() -> None:
    """They get an answer at the deadline, and others are answered meanwhile."""
    path = "/v1/models/digits-vit:explain"
    with server("--timeout", "1") as (_, port, _lines):
        slow = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(20)]
        for connection in slow:
            connection.sendall(request(path, b"{", 1000))
        assert httpx.get(f"http://127.0.0.1:{port}/v2/models/digits-vit").status_code == 200
        for connection in slow:
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")
            connection.close()
        with socket.create_connection(("127.0.0.1", port), 60) as large:
            large.sendall(request(path, b"", 1 << 40))
            assert large.recv(1 << 16).startswith(b"HTTP/1.1 413")
        with socket.create_connection(("127.0.0.1", port), 60) as broken:
            broken.sendall(b"\x00\x01 nonsense\r\n\r\n")
            assert b"400" in broken.recv(1 << 16)
        with socket.create_connection(("127.0.0.1", port), 60) as endless, suppress(OSError):
            endless.sendall(b"GET / HTTP/1.1\r\nx: " + b"a" * (64 << 20))
            assert answered(endless) == b""
        with socket.create_connection(("127.0.0.1", port), 60) as silent:
            silent.sendall(b"GET / HT")
            assert answered(silent) == b""  # hung up
        with socket.create_connection(("127.0.0.1", port), 60) as dripping, suppress(OSError):
            dripping.sendall(b"GET /v2 HTTP/1.1\r\nhost: m\r\ncontent-length: 600\r\n\r\n")
            assert dripping.recv(1 << 16).startswith(b"HTTP/1.1 200")
            for _ in range(600):  # the body of a request that is answered
                time.sleep(0.1)
                dripping.sendall(b"x")
            raise AssertionError("not hung up")
        assert httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 200


def test_several_processes_share_their_numbers() -> None:
    with server("--workers", "2") as (process, port, _):
        url = f"http://127.0.0.1:{port}"
        wait_for(url)
        for _ in range(6):  # each a connection of its own
            assert httpx.get(f"{url}/v2/models/digits-vit").status_code == 200
        text = httpx.get(f"{url}/metrics").text
        (count,) = re.findall(
            r'palrp_requests_total\{model="digits-vit",status="200",verb=""\} (.*)', text
        )
        assert float(count) == 6
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_a_bad_model_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    found = CliRunner().invoke(program, ["serve", str(tmp_path / "bad.onnx")])
    assert found.exit_code == 4
    found = CliRunner().invoke(program, ["serve", str(MODELS / "digits-vit"), "--target", "none"])
    assert found.exit_code == 4
    assert "no target 'none'" in found.output


def test_what_serves_is_named_where_it_is_missing(tmp_path: Path) -> None:
    """Without the extra the command says how to get it, and the library does not need it."""
    for name in ("starlette", "prometheus_client"):
        (tmp_path / f"{name}.py").write_text("raise ModuleNotFoundError\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-m", "palrp_onnx", "serve", str(MODELS / "digits-vit")]
    found = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert found.returncode == 7
    assert 'pip install "palrp-onnx[serve]"' in found.stderr
    code = "import palrp_onnx, palrp_onnx.cli.serve, sys; assert 'starlette' not in sys.modules"
    words[1:] = ["-c", code]
    assert subprocess.run(words, env=environment, capture_output=True).returncode == 0


def test_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told so and hung up on; there is room again when another ends."""
    import uvicorn
    from starlette.responses import PlainTextResponse

    from palrp_onnx.serving import wire

    async def statuses() -> list[int]:
        config = uvicorn.Config(PlainTextResponse("yes"), port=0, http=wire.BoundedHttp)
        config.load()
        state = uvicorn.server.ServerState()
        loop = asyncio.get_running_loop()
        made = await loop.create_server(lambda: wire.BoundedHttp(config, state, {}), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{made.sockets[0].getsockname()[1]}"
        found = []
        async with httpx.AsyncClient() as first, httpx.AsyncClient() as second:
            for client in (first, second, second, first):
                answer = await client.get(url)
                found.append(answer.status_code)
                assert ("retry-after" in answer.headers) == (answer.status_code == 429)
            await first.aclose()
            while state.connections:
                await asyncio.sleep(0.01)
            found.append((await second.get(url)).status_code)
        made.close()
        return found

    monkeypatch.setattr(wire, "_CONNECTIONS", 1)
    assert asyncio.run(statuses()) == [200, 429, 429, 200, 200]
