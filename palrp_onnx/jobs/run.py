"""A whole batch: from a source to parts in a folder, also resumed after an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from palrp_onnx.files import make_folder
from palrp_onnx.jobs.executors import OrderedExecutor, Part, processes, threads
from palrp_onnx.jobs.manifest import BatchManifest, Counts, Job, State, begin, describe_job
from palrp_onnx.jobs.parts import Encode, Parts
from palrp_onnx.jobs.records import Record
from palrp_onnx.jobs.settings import Settings, Shard
from palrp_onnx.jobs.sources import Source
from palrp_onnx.jobs.tally import Tally
from palrp_onnx.jobs.worker import Worker

#: Records per part. If a process is killed, at most the parts in progress are lost.
PART_SIZE = 256


class Progress(Protocol):
    """Receives the progress of a batch; called from several threads."""

    def start(self, records: int | None) -> None:
        """Start with about this many records, if their number is known."""
        ...

    def skip(self, records: int) -> None:
        """This many records were explained by an earlier run."""
        ...

    def advance(self, records: int) -> None:
        """This many more records are done."""
        ...


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How a batch is run.

    Attributes:
        folder: The folder of the parts.
        resume: Resume the batch in the folder.
        shard: Which records are explained.
        part_size: Records per part.
        workers: Number of processes; 1 means threads of this process.
        max_errors: Stop after the part with which more records than this have failed in all.
        table: Encodes lines as a Parquet file, if that is wanted.
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
        complete: False if it was stopped by ``max_errors``.
        tally: Counts over all parts.
        ignored: Number of files of an input folder that are not input.
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
        ModelError: The model cannot be explained with these settings, whatever the record.
        OutputError: The folder cannot be written to.
        ResourceError: Memory, disk space or a device is missing.
    """
    return run_with(Worker(model, settings), source, plan, progress)


def run_with(worker: Worker, source: Source, plan: BatchPlan, progress: Progress) -> BatchOutcome:
    """As `run`, with an open worker."""
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
    executor: AbstractContextManager[OrderedExecutor]
    if plan.workers > 1:
        executor = processes(worker.path, settings, progress.advance, count=plan.workers)
    else:
        executor = threads(worker, progress.advance, count=2 if worker.overlaps else 1)
    outcome = explain_parts(source, job, plan, executor, progress)
    return replace(outcome, ignored=facts.ignored)


def explain_parts(
    source: Iterable[Record],
    job: Job,
    plan: BatchPlan,
    executor: AbstractContextManager[OrderedExecutor],
    progress: Progress,
) -> BatchOutcome:
    """Compute the missing parts and update the manifest; only a few parts are in memory."""
    begin(plan.folder, job, resume=plan.resume)
    make_folder(plan.folder)
    parts = Parts(plan.folder, plan.table)
    manifest = _ManifestWriter(plan.folder, job)
    manifest.write("running")

    def missing() -> Iterator[Part]:
        """Parts that do not exist, or were edited: they have another number of records."""
        for number, records in cut_parts(source, plan.shard, plan.part_size):
            found = parts.tally(number) if plan.resume else None
            if found is None or found.records != len(records):
                yield number, records
            else:
                manifest.add(found)
                progress.skip(found.records)

    with executor as opened:
        for number, lines in opened.map(missing()):
            manifest.add(parts.write(number, lines))
            if plan.max_errors is not None and manifest.tally.failed > plan.max_errors:
                manifest.write("stopped")
                return BatchOutcome(False, manifest.tally)
            manifest.write("running")
    manifest.write("complete")
    return BatchOutcome(True, manifest.tally)


def cut_parts(source: Iterable[Record], shard: Shard, size: int) -> Iterator[Part]:
    """The records of the shard in parts of ``size``, numbered from 0."""
    own = (record for place, record in enumerate(source) if shard.has(place))
    number = 0
    while records := list(islice(own, size)):
        yield number, records
        number += 1


class _ManifestWriter:
    """Adds up the counts of parts, and writes them to the manifest."""

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
            truncated=self.tally.truncated,
            unknown=self.tally.unknown,
            warnings=dict(sorted(self.tally.warnings.items())),
            checks={check: self.tally.checks[check] for check in self._job.settings.fail_on},
        )
        BatchManifest(
            state=state,
            job=self._job,
            settings_sha256=self._job.settings_sha256,
            counts=counts,
        ).write(self._folder)
