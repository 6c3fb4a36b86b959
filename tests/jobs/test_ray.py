"""The worker on a cluster of Ray: two nodes, one of which is lost on the way."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from committed import MODELS

from palrp_onnx.jobs.records import Record
from palrp_onnx.jobs.settings import Settings
from palrp_onnx.jobs.tally import Tally
from palrp_onnx.jobs.worker import Worker

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
from ray.cluster_utils import Cluster  # noqa: E402

from palrp_onnx.jobs.ray import RayExplainer, explain_lines  # noqa: E402

pytestmark = pytest.mark.heavy
MODEL = MODELS / "reviews-rope" / "model.onnx"


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head with one processor; nodes with more join it."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=found.address)
    yield found
    ray.shutdown()
    found.shutdown()


def write(path: Path, count: int) -> list[str]:
    """Reviews, with a blank line and a bad one among them."""
    generator = random.Random(0)
    words = (MODEL.parent / "sample.txt").read_text().split()
    texts = [" ".join(generator.choices(words, k=generator.randint(5, 60))) for _ in range(count)]
    lines = [json.dumps({"id": f"r{k}", "text": text}) for k, text in enumerate(texts)]
    lines[count // 3] = ""
    lines[count // 2] = "no record"
    path.write_text("\n".join(lines) + "\n")
    return lines


def plain(lines: list[str]) -> list[dict[str, Any]]:
    """What a single worker says, each record by itself."""
    worker = Worker(str(MODEL), Settings())
    records = [
        Record(number=k, data=line.encode(), source="records.jsonl")
        for k, line in enumerate(lines, start=1)
        if line
    ]
    return [json.loads(line.data) for line in worker(records)]


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [each["id"] for each in found] == [each["id"] for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ("error" in ours) == ("error" in theirs)
        if "error" not in ours:
            assert ours["target"]["label"] == theirs["target"]["label"]
            total = theirs["relevance"]["total"]
            assert ours["relevance"]["total"] == pytest.approx(total, abs=1e-4)


def test_a_node_that_is_lost_loses_no_record(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    lines = write(tmp_path / "records.jsonl", 1500)
    result: list[Tally] = []
    job = threading.Thread(
        target=lambda: result.append(
            explain_lines(
                MODEL,
                Settings(),
                tmp_path / "records.jsonl",
                tmp_path / "out.jsonl",
                actors=1,
                batch_size=8,
            )
        )
    )
    job.start()
    time.sleep(8)  # in the middle of it: an actor opens its model within some seconds
    begun = not result
    cluster.add_node(num_cpus=2)
    cluster.remove_node(node, allow_graceful=False)
    job.join(timeout=300)
    assert begun, "nothing was left to lose"
    (tally,) = result
    assert (tally.records, tally.failed) == (1499, 1)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    same(found, plain(lines))


def test_rows_of_a_table(cluster: Any) -> None:
    cluster.add_node(num_cpus=2)
    rows = [{"id": "a", "text": "A gripping film."}, {"id": "b", "text": "Dull.", "target": "0"}]
    data = ray.data.from_items(rows).map_batches(
        RayExplainer,
        fn_constructor_args=(str(MODEL),),
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    found = {row["id"]: json.loads(row["line"]) for row in data.take_all()}
    assert found["a"]["target"]["label"] == "POSITIVE"
    assert found["b"]["target"]["index"] == 0
