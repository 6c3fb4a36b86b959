"""The share of a batch's time that is spent in the model.

    python benchmarks/batch.py --models reviews-bert reviews-rope digits-vit --records 2000

Explains synthetic records with the committed models, once as ``palrp-onnx batch`` does and once as
only the same runs of the session, one after the other in one thread. The share is the time of the
second over that of the first, without opening: 1 would mean that reading, forming batches, writing
lines and waiting for the disk take no time. Both are repeated in turn, and the median of the rounds
is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palrp_onnx.jobs import Settings, Worker
from palrp_onnx.jobs import run as batch
from palrp_onnx.jobs.sources import open_source
from palrp_onnx.session import Session

MODELS = Path(__file__).parents[1] / "models"
Call = tuple[Session, list[str], Mapping[str, Any]]


class Clock:
    """Progress that only stores the time of the start."""

    def start(self, records: int | None) -> None:
        """Store the time."""
        del records
        self.began = time.perf_counter()

    def skip(self, records: int) -> None:
        """Ignored: no record was explained before."""
        del records

    def advance(self, records: int) -> None:
        """Ignored."""
        del records


def make_records(model: Path, count: int, folder: Path) -> Path:
    """Texts of 10 to 150 words of the model's sample, or copies of its picture."""
    generator = random.Random(0)
    path = folder / "records.jsonl"
    picture = model.parent / "sample.png"
    words = [] if picture.is_file() else (model.parent / "sample.txt").read_text().split()
    with path.open("w") as stream:
        for _ in range(count):
            text = " ".join(generator.choices(words, k=generator.randint(10, 150))) if words else ""
            record = {"text": text} if words else {"image": str(picture)}
            stream.write(json.dumps(record) + "\n")
    return path


@contextmanager
def noted(calls: list[Call]) -> Iterator[None]:
    """Store every run of a session."""
    own = Session.run

    def run(self: Session, names: Any, feeds: Any) -> Any:
        wanted = list(names)
        calls.append((self, wanted, feeds))
        return own(self, wanted, feeds)

    Session.run = run  # type: ignore[method-assign]
    try:
        yield
    finally:
        Session.run = own  # type: ignore[method-assign]


def measure(name: str, count: int, rounds: int, batch_size: int) -> str:
    """One row of the table."""
    model = MODELS / name / "model.onnx"
    settings = Settings(batch_size=batch_size)
    with tempfile.TemporaryDirectory() as text:
        source = make_records(model, count, Path(text))
        whole, bare = [], []
        for number in range(rounds):
            calls: list[Call] = []
            clock = Clock()
            plan = batch.Plan(folder=Path(text) / f"out{number}")
            opened = Worker(model, settings)  # only runs for records are stored
            with noted(calls):
                outcome = batch.run_with(opened, open_source(source, _NO_STDIN), plan, clock)
            whole.append(time.perf_counter() - clock.began)
            assert outcome.complete and not outcome.tally.failed
            start = time.perf_counter()
            for session, names, feeds in calls:
                session.run(names, feeds)
            bare.append(time.perf_counter() - start)
    shares = [b / w for b, w in zip(bare, whole, strict=True)]
    rate = count / statistics.median(whole)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"| {name} | {count} | {rate:.0f} | {statistics.median(bare):.2f} s | "
        f"{statistics.median(whole):.2f} s | {statistics.median(shares):.2f} | {peak:.0f} MiB |"
    )


_NO_STDIN: Any = None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["reviews-bert", "reviews-rope"])
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    print("| model | records | records/s | session alone | batch | share | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for name in options.models:
        print(measure(name, options.records, options.rounds, options.batch_size), flush=True)


if __name__ == "__main__":
    main()
