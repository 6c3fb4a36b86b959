"""Load on loopback: what the server costs beside the same session in a loop, and what it survives.

    apt-get install wrk
    python benchmarks/load.py [MODEL] [--seconds 20] [--rounds 3] [--soak 1800]

Four measurements, each against ``palrp-onnx serve`` in a process of its own:

- *throughput*: requests with one text each, from as many connections as three batches have rows, in
  turn with ``explain_many`` over the same texts in one process;
- *overload*: ten times as many connections as the queue has room for, with a short deadline;
- *soak*: memory of the server while it is under load;
- *kill*: one of two workers is killed while requests run; every request gets an answer or an error.

Everything is bounded in time and in connections, and nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx2 as httpx

import palrp_onnx as px
from palrp_onnx.record import encode

ROOT = Path(__file__).parents[1]
#: Sends one text after the other, counts statuses, and prints numbers as JSON.
SCRIPT = """
local file, lines, threads = io.open(os.getenv("TEXTS")), {}, {}
for line in file:lines() do lines[#lines + 1] = line end
function setup(thread)
  thread:set("first", #threads * 37); threads[#threads + 1] = thread
end
function init() counts = {}; sent = first end
function request()
  sent = sent + 1
  return wrk.format("POST", nil, {["content-type"] = "application/json"}, lines[sent % #lines + 1])
end
function response(status)
  counts[status] = (counts[status] or 0) + 1
end
function done(summary, latency)
  local all = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("counts")) do all[status] = (all[status] or 0) + count end
  end
  local statuses = {}
  for status, count in pairs(all) do
    statuses[#statuses + 1] = string.format('"%d": %d', status, count)
  end
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"seconds": %f, "ms": [%f, %f, %f, %f], "broken": %d, "late": %d, "statuses": {%s}}',
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3, e.connect + e.read + e.write, e.timeout,
    table.concat(statuses, ", ")))
end
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path, nargs="?", default=ROOT / "models" / "reviews-rope")
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of throughput")
    parser.add_argument("--soak", type=int, default=60, help="seconds of soak; 1800 in full")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    texts = reviews(options.model, 300)
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder, "bodies.jsonl")
        bodies.write_text("".join(json.dumps({"instances": [text]}) + "\n" for text in texts))
        load = Load(options.model, bodies, Path(folder))
        throughput(load, texts, options)
        overload(load, options)
        soak(load, options)
        kill(load, texts, options)


def reviews(model: Path, count: int) -> list[str]:
    """Texts of 10 to 60 words of the model's sample."""
    words, generator = (model / "sample.txt").read_text().split(), random.Random(0)
    return [" ".join(generator.choices(words, k=generator.randint(10, 60))) for _ in range(count)]


class Load:
    """Servers, and requests to them."""

    def __init__(self, model: Path, bodies: Path, folder: Path) -> None:
        self.model, self.bodies, self.folder = model, bodies, folder
        self.script = folder / "load.lua"
        self.script.write_text(SCRIPT)

    @contextmanager
    def server(self, *options: object) -> Iterator[tuple[str, int]]:
        """URL of ``:explain`` and process of a server, ended by SIGTERM."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = self.folder / "server.log"
        words = ["-m", "palrp_onnx", "serve", f"m={self.model}", "--port", port, *options]
        with log.open("w") as stream:
            process = subprocess.Popen([sys.executable, *map(str, words)], stderr=stream)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(1200):
                try:
                    if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.1)
                if process.poll() is not None:
                    sys.exit(log.read_text())
            yield f"{url}/v1/models/m:explain", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)

    def wrk(self, url: str, connections: int, seconds: int, timeout: int = 60) -> dict:
        """Numbers of one run of wrk."""
        found = subprocess.run(
            [
                *("wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{seconds}s"),
                *("--timeout", f"{timeout}s", "-s", str(self.script), url),
            ],
            env={**os.environ, "TEXTS": str(self.bodies)},
            capture_output=True,
            text=True,
            check=True,
        )
        result = json.loads(re.findall(r"RESULT (.*)", found.stdout)[0])
        return {**result, "rate": result["statuses"].get("200", 0) / result["seconds"]}


def throughput(load: Load, texts: list[str], options: argparse.Namespace) -> None:
    """Rates of the loop and of the server, in turn."""
    model = px.load(load.model)
    list(model.explain_many(texts[:32], batch_size=options.batch))
    connections, rates, last = 3 * options.batch, [], {}
    with load.server("--batch-size", options.batch) as (url, _):
        load.wrk(url, connections, 3)
        for _ in range(options.rounds):
            loop = looped(model, texts, options)
            last = load.wrk(url, connections, options.seconds)
            rates.append((loop, last["rate"]))
            print(f"  loop {loop:.1f}/s, served {last['rate']:.1f}/s", flush=True)
        single = load.wrk(url, 1, options.seconds // 2)
    ratio = median(served / loop for loop, served in rates)
    print(f"throughput: {ratio:.2f} of the loop; {connections} connections {shown(last)}")
    print(f"one connection: {single['rate']:.1f}/s {shown(single)}")


def looped(model: px.LoadedModel, texts: list[str], options: argparse.Namespace) -> float:
    """Texts a second with records as JSON, as a program has them that calls the library."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < options.seconds:
        for found in model.explain_many(texts[:150], batch_size=options.batch):
            assert not isinstance(found, Exception)
            encode(found.record)
            count += 1
    return count / (time.perf_counter() - start)


def shown(found: dict) -> str:
    """Percentiles and statuses."""
    p50, p95, p99, most = found["ms"]
    return (
        f"p50 {p50:.0f} ms, p95 {p95:.0f}, p99 {p99:.0f}, max {most:.0f}; "
        f"statuses {found['statuses']}, broken {found['broken']}, late {found['late']}"
    )


def overload(load: Load, options: argparse.Namespace) -> None:
    """Far more requests than there is room for, with a deadline of two seconds."""
    with load.server("--timeout", 2, "--queue", 64, "--batch-size", options.batch) as (url, _):
        found = load.wrk(url, 640, options.seconds)
    print(f"overload: {found['rate']:.1f}/s answered, deadline 2000 ms: {shown(found)}", flush=True)


def memory(process: int) -> float:
    """Resident memory in MB."""
    return int(re.findall(r"VmRSS:\s*(\d+)", Path(f"/proc/{process}/status").read_text())[0]) / 1024


def soak(load: Load, options: argparse.Namespace) -> None:
    """Memory in tenths of the time."""
    seen: list[float] = []
    with load.server("--batch-size", options.batch) as (url, process):
        for _ in range(10):
            found = load.wrk(url, 3 * options.batch, max(1, options.soak // 10))
            seen.append(memory(process))
    print(
        f"soak of {options.soak} s: {' '.join(f'{each:.0f}' for each in seen)} MB; {shown(found)}"
    )


def kill(load: Load, texts: list[str], options: argparse.Namespace) -> None:
    """One of two workers is killed; counts of what clients saw, and whether it is replaced."""
    with load.server("--workers", 2, "--batch-size", options.batch) as (url, process):
        outcomes = asyncio.run(killed(url, process, texts))
        after = load.wrk(url, options.batch, 5)
    print(f"kill -9 of a worker: clients saw {dict(outcomes)}; afterwards {shown(after)}")


async def killed(url: str, process: int, texts: list[str]) -> Counter[str]:
    """What 600 requests from 24 clients came to."""
    found: Counter[str] = Counter()
    numbers = iter(range(600))

    async def client() -> None:
        async with httpx.AsyncClient(timeout=60) as session:
            for number in numbers:
                try:
                    body = {"instances": [texts[number % len(texts)]]}
                    answer = await session.post(url, json=body)
                    found[str(answer.status_code)] += 1
                except httpx.TransportError as error:
                    found[type(error).__name__] += 1
                if number == 200:
                    os.kill(children(process)[-1], signal.SIGKILL)

    await asyncio.gather(*(client() for _ in range(24)))
    return found


def children(process: int) -> list[int]:
    """Worker processes: children that listen, without Python's tracker of resources."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    named = [(int(each), Path(f"/proc/{each}/cmdline").read_text()) for each in listed]
    return [number for number, words in named if "spawn_main" in words]


if __name__ == "__main__":
    main()
