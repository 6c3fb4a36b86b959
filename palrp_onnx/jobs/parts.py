"""Results in parts: a part that exists is complete, and parts are the only state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from palrp_onnx.files import write_files
from palrp_onnx.jobs.results import Line

#: First bytes of the line of an explained record.
EXPLAINED = b'{"schema":'

Encode = Callable[[Sequence[bytes]], bytes]


@dataclass(frozen=True)
class Tally:
    """Number of records, and of those that failed."""

    records: int = 0
    failed: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.records + other.records, self.failed + other.failed)


class Parts:
    """The parts in one folder.

    Args:
        folder: The folder of the parts.
        table: Encodes the same lines as a Parquet file, if that is wanted.
    """

    def __init__(self, folder: Path, table: Encode | None = None) -> None:
        self._folder = folder
        self._table = table

    def path(self, number: int, suffix: str = ".jsonl") -> Path:
        """Path of a part."""
        return self._folder / f"part-{number:05}{suffix}"

    def tally(self, number: int) -> Tally | None:
        """Counts of a part; ``None`` if it does not exist."""
        path = self.path(number)
        if not path.is_file() or (self._table and not self.path(number, ".parquet").is_file()):
            return None
        records = explained = 0
        with path.open("rb") as stream:
            for line in stream:
                records += 1
                explained += line.startswith(EXPLAINED)
        return Tally(records, records - explained)

    def write(self, number: int, lines: Sequence[Line]) -> Tally:
        """Write a part. The file of lines comes last: if it exists, the part is complete.

        Raises:
            OutputError: The folder cannot be written to.
            ResourceError: The disk is full.
        """
        data = [line.data for line in lines]
        if self._table is not None:
            write_files({self.path(number, ".parquet"): self._table(data)})
        write_files({self.path(number): (line + b"\n" for line in data)})
        return Tally(len(lines), sum(line.failed for line in lines))
