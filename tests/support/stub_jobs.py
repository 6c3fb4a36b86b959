"""A stub of a model, and jobs for it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from palrp_onnx.jobs import Line, Record, Settings
from palrp_onnx.jobs.executors import threads
from palrp_onnx.jobs.manifest import Job, describe_job
from palrp_onnx.jobs.run import BatchOutcome, BatchPlan, explain_parts
from palrp_onnx.jobs.sources import open_source


class Heard:
    """Progress, added up."""

    def __init__(self) -> None:
        self.skipped = self.done = 0

    def start(self, records: int | None) -> None: ...

    def skip(self, records: int) -> None:
        self.skipped += records

    def advance(self, records: int) -> None:
        self.done += records


class Stub:
    """Every record is explained, but those that hold ``bad``."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, records: Sequence[Record], done: Callable[[int], None]) -> list[Line]:
        self.seen += [record.number for record in records]
        done(len(records))
        return [self._line(record) for record in records]

    def _line(self, record: Record) -> Line:
        assert isinstance(record.data, bytes)
        bad = b"bad" in record.data
        start = b'{"id":"%d","error":{}}' if bad else b'{"schema":"s","id":"%d"}'
        return Line(start % record.number, failed=bad)


def job_of(source: Path, plan: BatchPlan, **changes: Any) -> Job:
    facts = open_source(source, io.BytesIO()).facts()
    job = describe_job(
        (source.parent / "model.onnx", "0" * 64),
        Settings(),
        (facts.kind, facts.sha256),
        shard=plan.shard,
        part_size=plan.part_size,
        parquet=False,
    )
    return structs.replace(job, **changes)


def go(
    source: Path, plan: BatchPlan, stub: Any = None, job: Job | None = None
) -> tuple[BatchOutcome, Heard]:
    heard = Heard()
    executor = threads(stub or Stub(), heard.advance, count=2)
    records = open_source(source, io.BytesIO())
    return explain_parts(records, job or job_of(source, plan), plan, executor, heard), heard
