"""A whole batch: from a source to parts in a folder, and on from where it was left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from palrp_onnx.files import make_folder
from palrp_onnx.jobs.executors import Crew, Part, processes, threads
from palrp_onnx.jobs.manifest import BatchManifest, Counts, Job, State, begin, describe_job
from palrp_onnx.jobs.parts import Encode, Parts, Tally
from palrp_onnx.jobs.records import Record
from palrp_onnx.jobs.settings import Settings, Shard
from palrp_onnx.jobs.sources import Source
from palrp_onnx.jobs.worker import Worker

#: Records of a part: what is lost at most when a process is killed, for every part at work.
PART_SIZE = 256


class Progress(Protocol):
    """Is told how a batch goes; from several threads."""

    def start(self, records: int | None) -> None:
        """About how many records there are, where that is known."""
        ...

    def skip(self, records: int) -> None:
        """So many were explained by an earlier run."""
        ...

    def advance(self, records: int) -> None:
        """So many more have their line."""
        ...


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How a batch is run.

    Attributes:
        folder: Where the parts go.
        resume: Go on with the batch that the folder holds.
        shard: Which records are explained.
        part_size: Records of a part.
        workers: Processes; one means threads of this process.
        max_errors: Stop behind the part in which more records than that have failed in all.
        table: Makes a Parquet file of lines, where one is wanted.
    """

    folder: Path
    resume: bool = False
    shard: Shard = field(default_factory=Shard)
    part_size: int = PART_SIZE
    workers: int = 1
    max_errors: int | None = None
    table: Encode | None = None


@dataclass(frozen=True)
class BatchOutcome:
    """How a batch ended.

    Attributes:
        complete: Whether it went through.
        tally: What its parts hold.
        ignored: Files of a folder that are no input.
    """

    complete: bool
    tally: Tally
    ignored: int = 0


def run(
    model: Path, settings: Settings, source: Source, plan: BatchPlan, progress: Progress
) -> BatchOutcome:
    """Explain every record of ``source``.

    Raises:
        UsageError: The folder holds another batch.
        ModelError: The model cannot be explained as asked, whatever the record.
        OutputError: The folder cannot be written to.
        ResourceError: Memory, room or a device is missing.
    """
    return run_with(Worker(model, settings), source, plan, progress)


def run_with(worker: Worker, source: Source, plan: BatchPlan, progress: Progress) -> BatchOutcome:
    """As `run`, with a worker that was opened before."""
    settings = worker.settings
    facts = source.facts()
    job = describe_job(
        (worker.path, worker.model.sha256),
        settings,
        (facts.kind, facts.sha256),
        shard=plan.shard,
        part_size=plan.part_size,
        parquet=plan.table is not None,
    )
    if facts.records is not None:
        progress.start(-(-(facts.records - plan.shard.index + 1) // plan.shard.count))
    crew: AbstractContextManager[Crew]
    if plan.workers > 1:
        crew = processes(worker.path, settings, progress.advance, count=plan.workers)
    else:
        crew = threads(worker, progress.advance, count=2 if worker.overlaps else 1)
    outcome = explain_parts(source, job, plan, crew, progress)
    return replace(outcome, ignored=facts.ignored)


def explain_parts(
    source: Iterable[Record],
    job: Job,
    plan: BatchPlan,
    crew: AbstractContextManager[Crew],
    progress: Progress,
) -> BatchOutcome:
    """Compute the parts that are missing and keep the manifest; memory holds a few parts."""
    begin(plan.folder, job, resume=plan.resume)
    make_folder(plan.folder)
    parts = Parts(plan.folder, plan.table)
    ledger = _Ledger(plan.folder, job)
    ledger.write("running")

    def missing() -> Iterator[Part]:
        """Parts that are not there; a part of another length was cut off by hand."""
        for number, records in cut_parts(source, plan.shard, plan.part_size):
            found = parts.tally(number) if plan.resume else None
            if found is None or found.records != len(records):
                yield number, records
            else:
                ledger.add(found)
                progress.skip(found.records)

    with crew as members:
        for number, lines in members.map(missing()):
            ledger.add(parts.write(number, lines))
            if plan.max_errors is not None and ledger.tally.failed > plan.max_errors:
                ledger.write("stopped")
                return BatchOutcome(False, ledger.tally)
            ledger.write("running")
    ledger.write("complete")
    return BatchOutcome(True, ledger.tally)


def cut_parts(source: Iterable[Record], shard: Shard, size: int) -> Iterator[Part]:
    """Parts of ``size`` records, numbered from 0, of every record that is the shard's."""
    own = (record for place, record in enumerate(source) if shard.has(place))
    number = 0
    while records := list(islice(own, size)):
        yield number, records
        number += 1


class _Ledger:
    """Counts, and the manifest that shows them."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._folder = folder
        self._job = job
        self._parts = 0
        self.tally = Tally()

    def add(self, part: Tally) -> None:
        self.tally += part
        self._parts += 1

    def write(self, state: State) -> None:
        counts = Counts(
            records=self.tally.records,
            explained=self.tally.records - self.tally.failed,
            failed=self.tally.failed,
            parts=self._parts,
        )
        BatchManifest(
            state=state,
            job=self._job,
            settings_sha256=self._job.settings_sha256,
            counts=counts,
        ).write(self._folder)
